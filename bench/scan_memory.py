"""Peak memory of a scan, whatever the number of records: `python -m bench.scan_memory [records]` (default 200,000)."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from modbot.files.paths import Partition
from tests.p2_records import RULES, lines

BAR_MIB = 300
DATE = "2025-10-01"
DISTINCT = 2_000
"""Records that are generated; the file repeats them, which is quicker to write."""


def main() -> int:
    """Generates the records, scans them in a process of its own, prints peak RSS and rate; 1 above the bar."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "configs").mkdir()
        (root / "configs" / "rules.yaml").write_text(RULES, encoding="utf-8")
        analysis = root / Partition(Path("out"), "current", DATE).merged("p2")
        analysis.parent.mkdir(parents=True)
        some = list(lines(DISTINCT, raw_tags=30))
        with analysis.open("wb") as out:
            for number in range(count):
                out.write(some[number % DISTINCT])
        started = perf_counter()
        command = [sys.executable, "-m", "modbot.cli.main", "scan", "--date", DATE]
        subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = perf_counter() - started
        size = analysis.stat().st_size / count
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = usage.ru_maxrss / 1024
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{count} records of {size:.0f} bytes: peak {peak:.0f} MiB (bar {BAR_MIB}), {count / seconds:.0f} records/s,")
    print(f"{count / cpu:.0f} records per CPU second, start and end of the process included")
    return 0 if peak < BAR_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
