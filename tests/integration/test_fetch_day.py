"""`modbot fetch`: a day's images into the store, on a machine without models, and what an operator is told of it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from modbot.files.processes import own_name, started
from samples.server import SampleServer
from tests.real_day import DATE, RealDay, descendants, kill_group, until

COUNT = 12
OWN_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from modbot.cli.main import run
run()
"""
HEAVY = ("numpy", "onnxruntime", "PIL", "cv2", "imagehash")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleServer]:
    folder = tmp_path_factory.mktemp("files")
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(_bytes(number))
    with SampleServer(folder) as running:
        yield running


@pytest.fixture
def day(tmp_path: Path, server: SampleServer) -> RealDay:
    """A day on a machine where nothing that a model needs can be imported, in this process or its workers."""
    made = RealDay(tmp_path / "day", server, tmp_path / "no models")
    poison = tmp_path / "poison"
    poison.mkdir()
    for name in HEAVY:
        (poison / f"{name}.py").write_text(f"raise AssertionError('{name} is not for a cheap machine')\n")
    made.env["PYTHONPATH"] = os.pathsep.join([str(poison), made.env.get("PYTHONPATH", "")])
    server.gets.clear()
    return made


def _bytes(number: int) -> bytes:
    return f"image {number}".encode() * 100


def _split(day: RealDay, links: list[str], *, shards: int = 2, **cells: str) -> None:
    index = day.tree / "p0" / f"p0_{DATE}.csv"
    index.parent.mkdir(parents=True, exist_ok=True)
    with index.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["url", *cells])
        rows.writerows([link, *cells.values()] for link in links)
    day.split(shards)


def _links(server: SampleServer) -> list[str]:
    return [f"{server.base_url}/{number}.png" for number in range(COUNT)]


def _fetch(day: RealDay, *flags: str, code: int = 0) -> str:
    return day.run("fetch", "--qps", "unlimited", *flags, code=code).stdout


def _lines(day: RealDay) -> list[dict[str, Any]]:
    folder = day.tree / "fetch" / "shards" / DATE
    lines = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted(lines, key=lambda line: int(line["row"]))


def test_a_day_is_fetched_into_the_store_without_a_model(day: RealDay, server: SampleServer) -> None:
    links = _links(server)
    _split(day, [*links, links[0], f"{server.base_url}/gone.png", "https://nowhere.example/x.png"])
    out = _fetch(day, "--parallel", "2")
    assert "fetch: 15 rows, 13 in the store, 2 failed (expired 1, forbidden_host 1); 13 requests" in out
    assert dict(server.gets) == {**{f"/{n}.png": 1 for n in range(COUNT)}, "/gone.png": 1}
    lines = _lines(day)
    assert [line["row"] for line in lines] == list(range(15))
    assert lines[3] == {"row": 3, "sha256": hashlib.sha256(_bytes(3)).hexdigest(), "bytes": 700, "error": None}
    assert [line["error"]["kind"] for line in lines[13:]] == ["expired", "forbidden_host"]
    metrics = day.metrics("fetch")
    assert {key: metrics[key] for key in ("rows", "images_ok", "failed", "failed_expired", "requests")} == {
        "rows": 15,
        "images_ok": 13,
        "failed": 2,
        "failed_expired": 1,
        "requests": 13,
    }
    assert metrics["run"]["done"] == 15
    assert not any(isinstance(value, bool) for value in metrics.values())
    assert {shard["state"] for shard in day.manifest("fetch")["shards"].values()} == {"done"}
    assert day.leftovers() == []


def test_what_is_done_is_left_and_what_failed_is_tried_again(day: RealDay, server: SampleServer) -> None:
    links = _links(server)[:4]
    _split(day, [*links, f"{server.base_url}/gone.png"])
    _fetch(day)
    server.gets.clear()
    out = _fetch(day, "--resume")
    assert "in this run, which did 0 rows; the counts are the day's" in out
    assert not server.gets
    _fetch(day, "--retry-failed", "timeout")
    assert not server.gets
    out = _fetch(day, "--retry-failed", "expired")
    assert dict(server.gets) == {"/gone.png": 1}
    assert "1 failed (expired 1); 6 requests" in out
    server.gets.clear()
    [damaged] = (day.root / "cache" / "images").glob(f"*/{hashlib.sha256(_bytes(2)).hexdigest()}")
    damaged.write_bytes(bytes(len(_bytes(2))))  # of the right size: only a look at the bytes tells
    _fetch(day)
    assert dict(server.gets) == {"/2.png": 1, "/gone.png": 1}
    assert damaged.read_bytes() == _bytes(2)


def test_a_killed_run_is_gone_on_with(day: RealDay, server: SampleServer) -> None:
    _split(day, _links(server), shards=3)
    process = day.start("fetch", "--qps", "20", "--parallel", "2")
    until(lambda: day.journal_lines("fetch") >= 4)
    kill_group(process)
    stored = len(day.stored_links())
    server.gets.clear()
    _fetch(day, "--resume")
    assert sum(server.gets.values()) == COUNT - stored
    assert [line["row"] for line in _lines(day)] == list(range(COUNT))
    assert day.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_stops_in_time_and_keeps_what_was_finished(day: RealDay, server: SampleServer, number: int) -> None:
    _split(day, _links(server), shards=1)
    process = day.start("fetch", "--qps", "5")
    until(lambda: day.journal_lines("fetch") >= 2)
    begun = time()
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert time() - begun < 5
    assert "what was finished is kept" in said
    done = day.journal_lines("fetch")
    assert done >= 2
    server.gets.clear()
    _fetch(day, "--resume")
    assert sum(server.gets.values()) <= COUNT - done


def test_a_terminal_that_is_closed_stops_the_run_and_leaves_nobody_behind(day: RealDay, server: SampleServer) -> None:
    _split(day, _links(server), shards=2)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", OWN_TERMINAL, "fetch", "--date", DATE, "--qps", "5", "--parallel", "2"],
        cwd=day.root,
        env=day.env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    until(lambda: day.journal_lines("fetch") >= 2)
    workers = set(descendants(process.pid))
    assert workers
    begun = time()
    os.close(ours)
    assert process.wait(timeout=20) == 130
    assert time() - begun < 5
    until(lambda: not any(started(worker) for worker in workers), seconds=5)
    assert not list((day.tree / "status").glob("lease_*"))
    done = day.journal_lines("fetch")
    server.gets.clear()
    _fetch(day, "--resume")
    assert sum(server.gets.values()) <= COUNT - done


def test_a_dry_run_says_what_there_is_and_sends_nothing(day: RealDay, server: SampleServer) -> None:
    links = _links(server)
    _split(day, links[:3])
    _fetch(day)
    server.gets.clear()
    cdn = "https://cdn.discordapp.com/attachments/1/2"
    later, past = f"{int(time()) + 90_000:x}", f"{int(time()) - 90_000:x}"
    signed = [f"{cdn}/a.png?ex={later}&is=1&hm={n}" for n in range(2)]
    expired = [f"{cdn}/{name}.png?ex={past}&is=1&hm=1" for name in "bcd"]
    _split(day, [*links[:5], *signed, *expired, "no link at all", "file:///x.png"], channel_id="5", message_id="6")
    out = day.run("fetch", "--dry-run", "--qps", "2").stdout
    assert out.splitlines() == [
        "12 links: 9 distinct attachments, 2 that cannot be fetched (bad_row 1, forbidden_host 1)",
        "forbidden_host: name further hosts to fetch from with --allow-host or MODBOT_ALLOW_HOSTS",
        "3 stored, 6 not",
        "3 links have expired: set DISCORD_BOT_TOKEN for fresh links",
        "3 requests: about 2 s at 2/s, 24 at once",
        "nothing was sent",
    ]
    day.env["DISCORD_BOT_TOKEN"] = "a.bot.token"  # noqa: S105 - not one
    out = day.run("fetch", "--dry-run", "--qps", "90").stdout
    assert "3 links have expired: 3 of them get a fresh link by reading 1 message" in out
    assert "7 requests: about 0 s at 45/s" in out
    (day.tree / "status" / "budget.json").write_text(
        json.dumps(
            {
                "paces": {"discord": {"rate": {"qps": 0.5, "concurrency": 24}, "quiet_since": time()}},
                "holds": {"discord": time() + 400},
            }
        )
    )
    out = day.run("fetch", "--dry-run").stdout
    assert "at 0.5/s, 24 at once, of which 6 min" in out
    (day.tree / "status" / "budget.json").write_text(
        json.dumps({"paces": {server.host: {"rate": {"qps": 0.5, "concurrency": 24}, "quiet_since": time()}}})
    )
    assert "7 requests: about 4 s at 0.5/s" in day.run("fetch", "--dry-run").stdout
    assert not server.gets
    assert day.leftovers() == []


def test_a_rest_asked_of_one_profile_holds_every_other(day: RealDay) -> None:
    """No request is sent: Discord asked another profile for more patience than a run has."""
    other = day.root / "out" / "profiles" / "other" / "status" / "budget.json"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"holds": {"discord": time() + 10_000}}))
    _split(day, ["https://cdn.discordapp.com/attachments/1/2/a.png"])
    said = day.run("fetch", code=1).stderr
    assert "discord asks to be left alone until" in said
    assert not (day.root / "out" / "status" / "discord.lease").exists()


def test_a_second_run_is_told_who_fetches_from_discord(day: RealDay) -> None:
    lease = day.root / "out" / "status" / "discord.lease"
    lease.parent.mkdir(parents=True)
    with lease.open("w") as out:
        json.dump({**_owner(), "command": "modbot fetch --profile other"}, out)
    _split(day, ["https://cdn.discordapp.com/attachments/1/2/a.png"])
    said = day.run("fetch", code=1).stderr
    assert "another run is fetching from Discord: held by 'modbot fetch --profile other'" in said
    assert "--resume" in said
    lease.unlink()


def test_an_index_of_another_day_is_remarked_on(day: RealDay) -> None:
    index = day.tree / "p0" / "p0_2025-09-30.csv"
    index.parent.mkdir(parents=True)
    index.write_text("url\nhttps://cdn.discordapp.com/a.png\n")
    said = day.run("split", "--input", str(index)).stderr
    assert f"warning: {index} is by its name the index of 2025-09-30; its rows become those of {DATE}" in said
    same = index.with_name("links.csv")
    index.rename(same)
    assert day.run("split", "--input", str(same)).stderr == ""


def _owner() -> dict[str, Any]:
    """This process, as the holder of a lease."""
    return {
        "token": "t",
        "host": "pod",
        "machine": own_name(),
        "pid": os.getpid(),
        "process_start": started(os.getpid()),
        "since": "2025-10-01T00:00:00Z",
    }
