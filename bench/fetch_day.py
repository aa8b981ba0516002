"""`modbot fetch` itself over many small files: what it costs at 45 requests a second, and whether its memory grows.

python -m bench.fetch_day cpu [SECONDS]       at 45 a second: cores busy, server excluded
python -m bench.fetch_day memory [LINKS]      unlimited: resident memory of the process tree along the way
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.baselines.fetch_bare import run_server, start

DATE = "2025-10-01"
QPS = 45
CORES = 0.3
GROWTH = 1.1
"""So many times as much memory at the end as after a fifth of the links still counts as flat."""
SMALL = 2_000
PICTURE = 100_000


@contextmanager
def a_day(root: Path, links: int, size: int) -> Iterator[list[str]]:
    """A day of so many distinct links to files of `size` bytes, split; gives the command that fetches it."""
    server, port_pipe = start(run_server, size)
    try:
        host = f"127.0.0.1:{port_pipe.recv()}"
        index = root / "out" / "profiles" / "current" / "p0" / f"p0_{DATE}.csv"
        index.parent.mkdir(parents=True)
        with index.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["url"], *([f"http://{host}/{i}"] for i in range(links))])
        modbot = [sys.executable, "-m", "modbot.cli.main"]
        subprocess.run([*modbot, "split", "--date", DATE, "--shards", "2"], cwd=root, check=True)
        yield [*modbot, "fetch", "--date", DATE, "--allow-host", host]
    finally:
        server.terminate()
        server.join()


def tree(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    leader = psutil.Process(pid)
    return [leader, *leader.children(recursive=True)]


def cpu(root: Path, seconds: int) -> bool:
    """Cores busy while QPS requests a second are sent: what a run takes more than one of a quarter of its length.

    So what the processes take to start is left out; it is printed as well.
    """
    short, whole = (_fetched(root / str(length), length) for length in (seconds // 4, seconds))
    used, wall = whole.used - short.used, whole.wall - short.wall
    start = short.used - used / wall * short.wall
    print(f"{QPS * seconds} files in {whole.wall:.1f} s: {whole.used:.2f} s of CPU, of which {start:.2f} s to start")
    print(f"at {QPS} requests a second: {used / wall:.3f} cores (bar: {CORES})")
    return used / wall < CORES


class Run(NamedTuple):
    """Seconds of processor time of all processes, and of wall time, from their start to their end."""

    used: float
    wall: float


def _fetched(root: Path, seconds: int) -> Run:
    """A run of so many seconds at QPS requests a second."""
    with a_day(root, QPS * seconds, PICTURE) as fetch:
        before, begin = os.times(), time.perf_counter()
        subprocess.run([*fetch, "--qps", str(QPS), "--parallel", "2"], cwd=root, check=True)
        after, wall = os.times(), time.perf_counter() - begin
    return Run(after.children_user + after.children_system - before.children_user - before.children_system, wall)


def memory(root: Path, links: int) -> bool:
    """Resident memory of all processes, sampled as the files arrive."""
    samples: dict[int, int] = {}
    with a_day(root, links, SMALL) as fetch:
        process = subprocess.Popen([*fetch, "--qps", "unlimited"], cwd=root)
        journals = root / "out" / "profiles" / "current"
        step = max(1, links // 10)
        while process.poll() is None:
            done = sum(path.read_bytes().count(b"\n") for path in journals.glob("fetch/shards/**/*.jsonl*"))
            try:
                samples.setdefault(done // step * step, sum(each.memory_info().rss for each in tree(process.pid)))
            except psutil.NoSuchProcess:
                continue
            time.sleep(0.2)
    for done, resident in sorted(samples.items()):
        print(f"{done:>7} links: {resident / 1e6:.0f} MB resident")
    early = next(resident for done, resident in sorted(samples.items()) if done >= links // 5)
    late = max(resident for done, resident in samples.items() if done >= links // 5)
    print(f"{late / early:.2f} times as much at the most as after a fifth of the links (bar: {GROWTH})")
    return process.returncode == 0 and late / early < GROWTH


def main() -> int:
    """Prints one figure or both; 1: a bar is missed."""
    parser = argparse.ArgumentParser(description="Measure modbot fetch.")
    parser.add_argument("what", nargs="?", choices=("cpu", "memory"))
    parser.add_argument("size", nargs="?", type=int, help="seconds, or links")
    chosen = parser.parse_args()
    met = True
    for measure, size in ((cpu, 40), (memory, 50_000)):
        if chosen.what in {None, measure.__name__}:
            with tempfile.TemporaryDirectory() as scratch:
                met &= measure(Path(scratch), chosen.size or size)
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
