"""p3 on a generated day: `scan` against a plain script, two processes against one, `ab`, memory, a large rules file.

python -m bench.scan [--records N] [--rounds N]

The ratios are of 100,000 records; `--records` scans a day of so many once more, for the memory that it takes.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from itertools import zip_longest
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec

from bench import p2_data
from bench.p3_rules import large_rules
from modbot.files.paths import Partition
from modbot.rules import load_rules

DATE = "2025-10-01"
RECORDS = 100_000
ROUNDS = 3
FASTER, JOBS_FASTER, AB_LONGER, MEMORY_MB, LOAD_SECONDS = 4, 1.7, 1.6, 200, 1
"""The bars."""

ROOT = Path(__file__).parents[1]
TIMES = re.compile(rb'"eval_ms": ?[0-9.]+')


class Run(NamedTuple):
    """What a command took: wall time, the time of all its processes, and the memory of the largest of them."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


class Bench:
    """A working directory with one generated day; what misses its bar is in `missed`."""

    def __init__(self, folder: Path, records: int) -> None:
        self.folder = folder
        self.part = Partition(Path("out"), "current", DATE)
        self.records = records
        self.peak_mb = 0.0
        """The largest process of the scans so far, in MB."""
        self.missed: list[str] = []
        configs = folder / "configs"
        configs.mkdir()
        rules = (ROOT / "configs" / "rules.yaml").read_text(encoding="utf-8")
        (configs / "rules.yaml").write_text(rules, encoding="utf-8")
        (configs / "candidate.yaml").write_text(rules.replace("adult: 0.80", "adult: 0.70"), encoding="utf-8")
        p2_data.write(folder / self.part.merged("p2"), records)

    def modbot(self, *arguments: str) -> Run:
        """Runs a command."""
        run = self._run("-m", "modbot.cli.main", *arguments, "--date", DATE)
        self.peak_mb = max(self.peak_mb, run.peak_mb)
        return run

    def baseline(self) -> Run:
        """Runs the plain script."""
        outputs = ("base.jsonl", "base.csv", "base.json")
        script = ROOT / "bench" / "baselines" / "scan_stdlib.py"
        return self._run(str(script), "configs/rules.yaml", str(self.part.merged("p2")), *outputs)

    def _run(self, *arguments: str) -> Run:
        started = perf_counter()
        with (self.folder / "said").open("wb") as said:
            process = subprocess.Popen([sys.executable, *arguments], cwd=self.folder, stdout=said, stderr=said)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit((self.folder / "said").read_text(encoding="utf-8"))
        seconds = perf_counter() - started
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)

    def compare(self, what: str, value: float, bar: str, *, met: bool) -> None:
        """Prints a figure beside its bar."""
        print(f"{what}: {value:.2f} ({bar}){'' if met else '  MISSED'}")
        if not met:
            self.missed.append(what)


def main() -> int:
    """Prints every figure, medians of the rounds; 1 where a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, help="scan so many once more, for the memory")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), RECORDS)
        ratios(bench, given.rounds)
        rules_file(bench)
    missed = bench.missed
    if given.records is not None:
        with tempfile.TemporaryDirectory() as folder:
            missed += memory(Bench(Path(folder), given.records))
    return 1 if missed else 0


def ratios(bench: Bench, rounds: int) -> None:
    """The commands, in turn, so that whatever else the machine does meets all of them."""
    size = (bench.folder / bench.part.merged("p2")).stat().st_size / bench.records
    print(f"{bench.records:,} records of {size:.0f} bytes")
    runs: dict[str, list[Run]] = defaultdict(list)
    kept = bench.folder / "one"
    for _ in range(rounds):
        runs["baseline"].append(bench.baseline())
        runs["scan --jobs 1"].append(bench.modbot("scan", "--jobs", "1"))
        keep(bench, kept)
        runs["scan --jobs 2"].append(bench.modbot("scan", "--jobs", "2"))
        require_same(bench, kept)
        runs["scan"].append(bench.modbot("scan"))
        require_same(bench, kept)
        runs["ab --jobs 1"].append(bench.modbot("ab", "--rulesB", "configs/candidate.yaml", "--jobs", "1"))
    took = {name: statistics.median(run.seconds for run in each) for name, each in runs.items()}
    for name, each in runs.items():
        cpu = statistics.median(run.cpu_seconds for run in each)
        all_ = " ".join(f"{run.seconds:.1f}" for run in each)
        print(f"{name:<14}{took[name]:6.2f} s {bench.records / took[name]:8.0f} records/s, {cpu:.2f} CPU s  ({all_})")
    one = took["scan --jobs 1"]
    alone, faster = took["baseline"] / one, took["baseline"] / took["scan"]
    print(f"one process, times as fast as the baseline: {alone:.2f}")
    bench.compare("scan, times as fast as the baseline", faster, f"at least {FASTER}", met=faster >= FASTER)
    jobs = one / took["scan --jobs 2"]
    bench.compare("--jobs 2, times as fast, the same bytes", jobs, f"at least {JOBS_FASTER}", met=jobs >= JOBS_FASTER)
    longer = took["ab --jobs 1"] / one
    bench.compare("ab, times as long as scan", longer, f"less than {AB_LONGER}", met=longer < AB_LONGER)
    bench.compare("largest process, MB", bench.peak_mb, f"less than {MEMORY_MB}", met=bench.peak_mb < MEMORY_MB)


def memory(bench: Bench) -> list[str]:
    """One scan of a large day; gives what it misses."""
    run = bench.modbot("scan")
    print(f"{bench.records:,} records: {run.seconds:.1f} s, {bench.records / run.seconds:.0f} records/s")
    bench.compare("largest process, MB", bench.peak_mb, f"less than {MEMORY_MB}", met=bench.peak_mb < MEMORY_MB)
    return bench.missed


def keep(bench: Bench, kept: Path) -> None:
    """Puts one process's results aside, and holds them against the baseline's."""
    kept.mkdir(exist_ok=True)
    for path in (bench.part.findings, bench.part.report):
        (bench.folder / path).replace(kept / path.name)
    require_equal(bench.folder / "base.csv", kept / bench.part.report.name)
    require_equal_findings(bench.folder / "base.jsonl", kept / bench.part.findings.name)


def require_same(bench: Bench, kept: Path) -> None:
    """Two processes wrote the bytes that one wrote, times aside."""
    require_equal(bench.folder / bench.part.report, kept / bench.part.report.name)
    require_equal(bench.folder / bench.part.findings, kept / bench.part.findings.name)


def require_equal(a: Path, b: Path) -> None:
    """Line by line the same bytes, times aside."""
    with a.open("rb") as lines_a, b.open("rb") as lines_b:
        for number, pair in enumerate(zip_longest(lines_a, lines_b, fillvalue=b""), 1):
            if TIMES.sub(b"", pair[0]) != TIMES.sub(b"", pair[1]):
                raise SystemExit(f"line {number} of {a.name} differs: {pair}")


def require_equal_findings(a: Path, b: Path) -> None:
    """Line by line the same values, in whatever order of keys, times aside."""
    decode = msgspec.json.Decoder().decode
    with a.open("rb") as lines_a, b.open("rb") as lines_b:
        for number, pair in enumerate(zip_longest(lines_a, lines_b, fillvalue=b"{}"), 1):
            one, other = (decode(TIMES.sub(b'"eval_ms":0', line)) for line in pair)
            if one != other:
                raise SystemExit(f"finding {number} differs: {pair}")


def rules_file(bench: Bench) -> None:
    """Loading and checking a large rules file, in this process."""
    source = large_rules(rules=300, patterns=20_000).encode()
    seconds = []
    for _ in range(ROUNDS):
        started = perf_counter()
        loaded = load_rules(source, file="large.yaml")
        seconds.append(perf_counter() - started)
    if loaded.status != "ok":
        raise SystemExit(f"the large rules file: {loaded.issues[0]}")
    took = statistics.median(seconds)
    what = f"load and check 300 rules, 20,000 patterns ({len(source) / 1e6:.1f} MB), s"
    bench.compare(what, took, f"less than {LOAD_SECONDS}", met=took < LOAD_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
