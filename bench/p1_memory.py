"""How much memory p1 takes over many rows: the samples under distinct links, over HTTP, with open_nsfw.

    python -m bench.p1_memory [--rows 5000] [--parallel 2]

Prints the peak of the resident memory of the whole process tree (each process's own peaks are not added: what counts
is what was resident at one time), sampled twenty times a second, and what p1 said.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from samples.make import DATE, write_index, write_pictures
from samples.server import SampleServer

REPOSITORY = Path(__file__).resolve().parents[1]
BAR_MB = 900


def resident(pid: int) -> int:
    """Bytes resident in a process and all that it started, at this moment."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    """Runs p1 and prints what it took."""
    parser = argparse.ArgumentParser(description="Measure p1's memory.")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--parallel", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        images = root / "images"
        write_pictures(images)
        with SampleServer(images) as server:
            env = {
                **os.environ,
                "OUT_DIR": str(root / "out"),
                "CACHE_DIR": str(root / "cache"),
                "MODBOT_ALLOW_HOSTS": server.host,
            }
            index = root / "out" / "profiles" / "current" / "p0" / f"p0_{DATE}.csv"
            write_index(index, images, base_url=server.base_url, rows=chosen.rows)
            modbot = [sys.executable, "-m", "modbot.cli.main"]
            subprocess.run([*modbot, "split", "--date", DATE], cwd=REPOSITORY, env=env, check=True)
            flags = ["--date", DATE, "--model", "open_nsfw", "--qps", "unlimited", "--parallel", str(chosen.parallel)]
            process = subprocess.Popen([*modbot, "tag", *flags], cwd=REPOSITORY, env=env)
            peak = 0
            while process.poll() is None:
                peak = max(peak, resident(process.pid))
                time.sleep(0.05)
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"p1 over {chosen.rows} rows, --parallel {chosen.parallel}: exit code {process.returncode}")
    print(f"peak resident memory of all processes: {peak / 1e6:.0f} MB (bar: {BAR_MB} MB)")


if __name__ == "__main__":
    main()
