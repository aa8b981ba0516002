"""Days whose images all lie in the store already, and p1 over them: what bench.p1_store and bench.vit_cpu run."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from shutil import rmtree
from time import monotonic, sleep
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

DATE = "2025-10-01"
SHARDS = 2
_PR_SET_CHILD_SUBREAPER = 36
MODBOT = (sys.executable, "-m", "modbot.cli.main")


class Rate(NamedTuple):
    """Images a second, seconds of processor time an image of all processes, and the long day's `stages`."""

    images: float
    seconds: float
    stages: dict[str, Any]


class StoreDays:
    """A short and a long day below `root`, each a profile: p1's rate is that of the images by which the long is longer.

    So starting and loading do not count. The pictures are JPEGs of `size`, no two alike.
    """

    def __init__(self, root: Path, models: Path, *, short: int, long: int, size: tuple[int, int]) -> None:
        self._root = root
        self._size = size
        self._counts = {"short": short, "long": long}
        self._env = {
            **os.environ,
            "MODELS_DIR": str(models),
            "CACHE_DIR": str(root / "cache"),
            "OUT_DIR": str(root / "out"),
            "MODBOT_FILE_ROOT": str(root / "images"),
        }
        for day, count in self._counts.items():
            self._lay(day, count)

    @property
    def pictures(self) -> list[Path]:
        """The pictures of the long day."""
        return sorted((self._root / "images" / "long").iterdir())

    def fill(self, model: str) -> None:
        """Puts every picture into the store."""
        for day in self._counts:
            self._tag(day, model, parallel=SHARDS)

    def rate(self, model: str, *, parallel: int, cores: int) -> Rate:
        """What `parallel` processes do on so many cores."""
        with only(cores):
            used = [processor_time()]
            walls = []
            for day in self._counts:
                metrics = self._tag(day, model, parallel=parallel)
                walls.append(metrics["wall_time_s"])
                used.append(processor_time())
        more = self._counts["long"] - self._counts["short"]
        return Rate(more / (walls[1] - walls[0]), (used[2] - 2 * used[1] + used[0]) / more, metrics["stages"])

    def first_line(self, model: str) -> float:
        """Seconds from the start of p1 over the long day to the first line of a journal; the run goes on to its end."""
        folder = self._root / "out" / "profiles" / "long" / "p1" / "shards" / DATE
        rmtree(folder)
        command, env = self._tagging("long", model, parallel=1), self._env
        started = monotonic()
        with subprocess.Popen(command, cwd=self._root, env=env, stdout=subprocess.DEVNULL) as process:
            while not any(path.stat().st_size for path in folder.glob("*.tmp")):
                if process.poll() is not None:
                    raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
                sleep(0.002)
            return monotonic() - started

    def _lay(self, day: str, count: int) -> None:
        folder = self._root / "images" / day
        folder.mkdir(parents=True)
        random = np.random.default_rng(count)
        width, height = self._size
        for number in range(count):
            coarse = random.integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize(self._size, Image.Resampling.BICUBIC)
            picture.save(folder / f"{number:06}.jpg", quality=90)
        index = self._root / "out" / "profiles" / day / "p0" / f"p0_{DATE}.csv"
        index.parent.mkdir(parents=True, exist_ok=True)
        links = (path.as_uri() for path in sorted(folder.iterdir()))
        index.write_text("url\n" + "\n".join(links) + "\n", encoding="utf-8")
        self._run([*MODBOT, "split", "--profile", day, "--date", DATE, "--shards", str(SHARDS)])

    def _tag(self, day: str, model: str, *, parallel: int) -> dict[str, Any]:
        """p1's metrics."""
        self._run(self._tagging(day, model, parallel=parallel))
        file = self._root / "out" / "profiles" / day / "metrics" / f"p1_metrics_{DATE}.json"
        metrics: dict[str, Any] = json.loads(file.read_bytes())
        if metrics["failed"] or metrics["inferred"] != metrics["rows"]:
            raise SystemExit(f"not all was as it should be: {json.dumps(metrics)}")
        return metrics

    def _tagging(self, day: str, model: str, *, parallel: int) -> list[str]:
        """The command. What an earlier run kept of scores is removed: they are to be computed."""
        rmtree(self._root / "cache" / "scores", ignore_errors=True)
        how = ["--model", model, "--provider", "cpu", "--qps", "unlimited", "--parallel", str(parallel)]
        return [*MODBOT, "tag", "--profile", day, "--date", DATE, *how]

    def _run(self, command: Sequence[str]) -> None:
        done = subprocess.run(command, cwd=self._root, env=self._env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr.strip()}")


def processor_time() -> float:
    """Seconds of all processes that this one started and that have ended, and of those that these left behind."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # whoever is left behind becomes a child of this process
    sleep(0.3)  # they end on their own, a moment later
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def only(cores: int) -> Iterator[None]:
    """Keeps this process, and those that it starts meanwhile, on so many cores."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_of_them)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)
