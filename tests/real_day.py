"""A day on real images over real HTTP, run as an operator runs it: the `modbot` command, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from samples.make import write_index
from samples.server import SampleServer

REPOSITORY = Path(__file__).parents[1]
DATE = "2025-10-01"
PROFILE = "current"
OWN_SETTINGS = ("MODBOT_", "ANALYSIS_", "WD14_", "NUDENET_", "DISCORD_", "OUT_DIR", "CACHE_DIR")


class RealDay:
    """One OUT_DIR and CACHE_DIR below `root`, and the command line in front of them."""

    def __init__(self, root: Path, server: SampleServer, models_dir: Path) -> None:
        self.root = root
        self.server = server
        root.mkdir(parents=True, exist_ok=True)
        (root / "configs").symlink_to(REPOSITORY / "configs")
        self.tree = root / "out" / "profiles" / PROFILE
        own = {name: value for name, value in os.environ.items() if not name.startswith(OWN_SETTINGS)}
        self.env = {**own, "MODELS_DIR": str(models_dir), "MODBOT_ALLOW_HOSTS": server.host, "WD14_MODEL": "open_nsfw"}

    def index(self, images: Path, *, rows: int | None = None) -> int:
        """Lays the p0 index of the samples; gives its number of rows."""
        return write_index(self.tree / "p0" / f"p0_{DATE}.csv", images, base_url=self.server.base_url, rows=rows)

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs one command to its end, which must be `code`."""
        done = subprocess.run(
            self._command(arguments),
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts one command in a process group of its own."""
        return subprocess.Popen(
            self._command(arguments),
            cwd=self.root,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _command(self, arguments: Sequence[str]) -> list[str]:
        command, *rest = arguments
        partition = () if command in {"rules", "cache"} else ("--date", DATE)
        return [sys.executable, "-m", "modbot.cli.main", command, *partition, *rest]

    def split(self, shards: int) -> None:
        self.run("split", "--shards", str(shards))

    def tag(self, *flags: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run("tag", "--qps", "unlimited", *flags, code=code)

    def merged(self, step: str) -> Path:
        return self.tree / step / f"{step}_{DATE}.jsonl"

    def records(self, step: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.merged(step).read_text(encoding="utf-8").splitlines()]

    def findings(self) -> list[dict[str, Any]]:
        """The findings without the one thing in them that is a time."""
        lines = (self.tree / "p3" / f"findings_{DATE}.jsonl").read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        for finding in found:
            del finding["metrics"]["eval_ms"]
        return found

    def metrics(self, step: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.tree / "metrics" / f"{step}_metrics_{DATE}.json").read_bytes())
        return document

    def manifest(self, step: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.tree / "status" / f"{step}_manifest_{PROFILE}.json").read_bytes())
        return document

    def journal_lines(self, step: str) -> int:
        """Lines that a step has so far, in journals and finished shards."""
        folder = self.tree / step / "shards" / DATE
        return sum(data.count(b"\n") for data in map(_bytes, folder.glob("*.jsonl*"))) if folder.exists() else 0

    def requests_put_away(self) -> float:
        """How many requests p1 has put away for a run that goes on with its shards."""
        put_away = map(_bytes, (self.tree / "p1" / "shards" / DATE).glob("*.counters.json"))
        return sum(float(json.loads(data)["counters"]["requests"]) for data in put_away if data)

    def stored_links(self) -> set[str]:
        """The names (digests of their keys) of the links whose image is in the store."""
        images = self.root / "cache" / "images"
        links = (link for link in (images / "links").glob("*/*") if link.is_file())
        return {link.name for link in links if _is_stored(images, link)}

    def leftovers(self) -> list[Path]:
        """What no finished run may leave: temporary files and leases."""
        files = [*(self.root / "out").rglob("*"), *(self.root / "cache").rglob("*")]
        return [file for file in files if file.name.endswith((".tmp", ".lease")) or file.name.startswith("lease_")]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _is_stored(images: Path, link: Path) -> bool:
    digest: str = json.loads(link.read_bytes())["sha256"]
    return (images / digest[:2] / digest).exists()


def until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Returns as soon as the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kills a process and all that it started, at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def descendants(pid: int) -> Iterator[int]:
    """The processes that `pid` started, and those that they started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    for child in map(int, children):
        yield child
        yield from descendants(child)
