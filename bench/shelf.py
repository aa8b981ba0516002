"""What it costs to look up among a million kept score vectors: `python -m bench.shelf [records]` (default 1,000,000).

The files are as months of runs leave them, 2,000 records each. Those that are asked for have the size of a vector; the
others are short, which a lookup does not notice: it reads the index of each file, and the record that it wants.
"""

from __future__ import annotations

import hashlib
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from modbot.files.shelf import Shelf, ShelfWriter

PER_FILE = 2_000
VECTOR_BYTES = 21_800
ASKED = 1_000
BAR_SECONDS = 2.0
BAR_MB = 100


def main() -> int:
    """Writes the files, measures the lookups in a process of their own; 1 where a bar is missed."""
    if sys.argv[1:2] == ["look-up"]:
        return look_up(Path(sys.argv[2]), int(sys.argv[3]))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(f"{platform.machine()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), count)
        return subprocess.run(
            [sys.executable, "-m", "bench.shelf", "look-up", folder, str(count)], check=False
        ).returncode


def digest(number: int) -> str:
    """The digest that stands for a content."""
    return hashlib.sha256(number.to_bytes(8, "little")).hexdigest()


def write(folder: Path, count: int) -> None:
    """Files of `count` records, ASKED of them as long as a vector is."""
    every = max(1, count // ASKED)
    for first in range(0, count, PER_FILE):
        with ShelfWriter(folder) as writer:
            for number in range(first, min(first + PER_FILE, count)):
                writer.put(digest(number), bytes(VECTOR_BYTES if number % every == 0 else 8))


def look_up(folder: Path, count: int) -> int:
    """Opens the shelf, asks for what is there and for what is not, and prints seconds and memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = perf_counter()
    with Shelf(folder) as kept:
        kept.refresh()
        opened = perf_counter() - started
        asked = [digest(number) for number in range(0, count, max(1, count // ASKED))]
        found = sum(kept.get(name) is not None for name in asked)
        strange = sum(kept.get(digest(count + number)) is not None for number in range(ASKED))
    seconds = perf_counter() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{len(kept):,} records in {count // PER_FILE:,} files: opened in {opened:.2f} s")
    print(f"{found} of {len(asked)} found, {strange} of {ASKED} not there: {seconds:.2f} s (bar {BAR_SECONDS})")
    print(f"memory grew by {grown:.0f} MB (bar {BAR_MB})")
    return 0 if seconds < BAR_SECONDS and grown < BAR_MB and found == len(asked) and not strange else 1


if __name__ == "__main__":
    sys.exit(main())
