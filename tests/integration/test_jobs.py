"""Several processes write what one writes, byte by byte, times aside; and leave nothing when they are ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.cli.judging import crew_size
from modbot.files.paths import Partition
from modbot.stages import lines as lines_module
from modbot.stages.lines import WHOLE, numbered_lines, pieces
from tests.p2_records import lines, odd_lines, plain, write
from tests.p3_day import DATE, Day, document, jsonl, table

TIMES = re.compile(rb'"eval_ms": ?[0-9.]+')
OF_A_RUN = {"wall_time_s", "throughput_rps", "latency_ms_avg", "latency_ms_p95"}
B = ("--rulesB", "configs/candidate.yaml")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of a test is large enough to be judged in parts."""
    monkeypatch.setattr(lines_module, "PIECE_BYTES", 8192)


def everything() -> list[bytes]:
    """Good lines and all odd ones, blank lines between them, a mark at the beginning, carriage returns, no end."""
    odd = [line + b"\n" for line in odd_lines().values()]
    some = list(lines(120, raw_tags=30))
    return [b"\xef\xbb\xbf", *some[:40], *odd, b"\n", *(line[:-1] + b"\r\n" for line in some[40:80]), *some[80:], b"{"]


def untimed(path: Path) -> bytes:
    return TIMES.sub(b"", path.read_bytes())


def counted(path: Path) -> dict[str, Any]:
    return {name: value for name, value in document(path).items() if name not in OF_A_RUN}


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--severity", "red,yellow"),
        ("--channel", "#room-2", "--since", "2025-10-01", "--until", "2025-10-02"),
        ("--offset", "30", "--limit", "70"),
        ("--limit", "3", "--severity", "red"),
    ],
)
def test_parts_of_a_day_are_the_day(day: Day, flags: tuple[str, ...]) -> None:
    day.records(everything())
    named = ("--trace-jsonl", "t.jsonl", "--findings", "f.jsonl", "--metrics", "m.json")
    files = [Path("t.jsonl"), Path("f.jsonl"), Path("f.report.csv")]
    one = day.ok("scan", *flags, *named, "--jobs", "1")
    expected, metrics = [untimed(path) for path in files], counted(Path("m.json"))
    several = day.ok("scan", *flags, *named, "--jobs", "3")
    assert [untimed(path) for path in files] == expected
    assert counted(Path("m.json")) == metrics
    assert metrics["total"] + sum(metrics["filtered"].values()) == 120 + len(odd_lines()) + 1
    assert one.out.splitlines()[1:] == several.out.splitlines()[1:]
    assert not leftovers()


def test_a_very_long_line_and_an_encoding_that_is_none_are_accounted_for(day: Day) -> None:
    long = json.dumps(plain(3, note="x" * 50_000_000)).encode() + b"\n"
    wide = json.dumps(plain(4)).encode("utf-16") + b"\n"
    day.records([*lines(5, raw_tags=30), long, wide, *lines(5, seed=1, raw_tags=30)])
    day.ok("scan", "--jobs", "2")
    findings = jsonl(day.part.findings)
    assert [found["error"] and found["error"]["kind"] for found in findings[5:7]] == [None, "unreadable"]
    assert len(findings) == document(day.part.scan_metrics)["total"] == 12
    assert len(findings[5]["note"]) == 50_000_000


def test_a_crew_is_as_large_as_is_asked_for_and_worth_it(day: Day) -> None:
    day.generated(300)
    found = [(day.part, day.part.merged("p2"))]
    assert [crew_size(found, jobs) for jobs in (1, 2, 3, 8, 1000)] == [0, 2, 3, 8, found[0][1].stat().st_size // 8192]
    assert crew_size(found, 8, whole=True) == 0
    assert [crew_size(found * 3, jobs) for jobs in (1, 2, 3, 8)] == [0, 2, 3, 3]
    day.records([])
    assert crew_size(found, 8) == 0


def test_what_cannot_be_evaluated_is_told_five_times_in_all(day: Day, caplog: pytest.LogCaptureFixture) -> None:
    day.rules.write_text(day.rules.read_text() + '  - {id: X, severity: red, when: "1 / (rating.general * 0) > 2"}\n')
    day.generated(100)
    issues, told = [], []
    for jobs in ("1", "3"):
        caplog.clear()
        day.ok("scan", "--jobs", jobs)
        issues.append(document(day.part.scan_metrics)["ruleset"]["evaluation_issues"])
        told.append([record.getMessage() for record in caplog.records])
    assert issues[0] == issues[1] == {"X": {"division_by_zero": 98}}
    assert told[0] == told[1]
    assert len(told[0]) == 5


def test_legacy_rules_are_green_in_every_part(day: Day) -> None:
    day.rules.write_text("version: 1\nrules: []\n")
    day.generated(100)
    day.ok("scan", "--allow-legacy", "--fallback", "green", "--jobs", "2")
    assert {found["severity"] for found in jsonl(day.part.findings)} == {"green"}
    assert document(day.part.scan_metrics)["winning"] == {"legacy": 100}


def test_days_at_once_are_the_days_one_by_one(day: Day) -> None:
    dates = [f"2025-10-0{number}" for number in (1, 2, 3)]
    parts = [Partition(Path("out"), "current", date) for date in dates]
    for number, date in enumerate(dates):
        day.generated((600, 30, 40)[number], seed=number, date=date)  # the first is done last
    one = day.ok("scan", "--dates", "2025-10-01..2025-10-03", "--jobs", "1", date=None)
    expected = [(untimed(part.findings), part.report.read_bytes(), counted(part.scan_metrics)) for part in parts]
    several = day.ok("scan", "--dates", "2025-10-01..2025-10-03", "--jobs", "2", date=None)
    found = [(untimed(part.findings), part.report.read_bytes(), counted(part.scan_metrics)) for part in parts]
    assert found == expected
    assert document(day.part.latest_scan) == document(parts[-1].scan_metrics)
    assert several.out.splitlines()[-5:] == one.out.splitlines()[-5:]
    assert several.err == one.err
    assert not leftovers()


def test_an_error_in_a_day_ends_the_days(day: Day) -> None:
    for date in ("2025-10-01", "2025-10-02"):
        day.generated(20, date=date)
    (day.part.step_metrics("p2")).parent.mkdir(parents=True)
    day.part.step_metrics("p2").write_text("{")
    ran = day.run("scan", "--dates", "2025-10-01..2025-10-02", "--jobs", "2", date=None)
    assert ran.code == 2
    assert str(day.part.step_metrics("p2")) in ran.err
    assert not leftovers()


@pytest.mark.parametrize("samples", ["0", "20"])
def test_a_comparison_in_parts_is_the_comparison(day: Day, samples: str) -> None:
    day.records(everything())
    files = [day.part.ab_compare, day.part.ab_diff, day.part.ab_samples]
    one = day.ok("ab", *B, "--sample-diff", samples, "--jobs", "1")
    expected = [path.read_bytes() for path in files]
    several = day.ok("ab", *B, "--sample-diff", samples, "--jobs", "3")
    assert [path.read_bytes() for path in files] == expected
    assert (several.out, several.err) == (one.out, one.err)
    assert not leftovers()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_compared_days_are_each_on_its_own_and_all_as_one(day: Day, jobs: str) -> None:
    dates = ["2025-10-01", "2025-10-02"]
    parts = [Partition(Path("out"), "current", date) for date in dates]
    for number, date in enumerate(dates):
        day.generated(40 + 20 * number, seed=number, date=date)
    alone = []
    for part in parts:
        day.ok("ab", *B, "--sample-diff", "9", "--jobs", "1", date=part.date)
        alone.append([path.read_bytes() for path in (part.ab_compare, part.ab_diff, part.ab_samples)])
    day.ok("ab", *B, "--sample-diff", "9", "--dates", "..".join(dates), "--jobs", jobs, "--out-dir", "ab", date=None)
    for part, expected in zip(parts, alone, strict=True):
        files = (part.ab_day_compare, part.ab_day_diff, part.ab_day_samples)
        assert [path.read_bytes() for path in files] == expected
        assert [(Path("ab") / path.name).read_bytes() for path in files] == expected
    whole = document(day.part.ab_compare)
    days = [document(part.ab_day_compare) for part in parts]
    assert whole["total"] == 100
    for key in ("countsA", "countsB", "confusion"):
        assert whole[key] == {
            name: sum(one[key].get(name, 0) for one in days) for name in {*days[0][key], *days[1][key]}
        }
    for rule, shared in whole["overlapA"].items():
        assert shared["matches"] == sum(one["overlapA"].get(rule, {"matches": 0})["matches"] for one in days)
    assert table(day.part.ab_diff) == [row for part in parts for row in table(part.ab_day_diff)]
    sizes = [sample["size"] for sample in jsonl(day.part.ab_samples)]
    assert (
        sizes == sorted((sample["size"] for part in parts for sample in jsonl(part.ab_day_samples)), reverse=True)[:9]
    )
    assert not leftovers()


def test_the_overlap_is_what_the_rules_say(day: Day) -> None:
    day.rules.write_text(
        "version: 2\nrule_titles: {WIDE: w, NARROW: n, LAST: l, END: e}\nrules:\n"
        '  - {id: WIDE, severity: yellow, when: "rating.explicit >= 0.2"}\n'
        '  - {id: NARROW, severity: red, when: "rating.explicit >= 0.6"}\n'
        '  - {id: END, severity: green, when: "rating.explicit >= 0.9", stop: true}\n'
        '  - {id: LAST, severity: orange, when: "rating.explicit >= 0"}\n'
    )
    day.generated(300)
    day.ok("ab", "--rulesB", "configs/rules.yaml")
    explicit = [r["wd14"]["rating"]["explicit"] for r in jsonl(day.part.merged("p2")) if r["error"] is None]
    wide, narrow, end = (sum(score >= least for score in explicit) for least in (0.2, 0.6, 0.9))
    assert 0 < end < narrow < wide < len(explicit)
    assert document(day.part.ab_compare)["overlapA"] == {
        "WIDE": {"matches": wide, "won": 0, "alone": 0, "most_with": "LAST", "share": round((wide - end) / wide, 4)},
        "NARROW": {"matches": narrow, "won": narrow, "alone": 0, "most_with": "WIDE", "share": 1.0},
        "END": {"matches": end, "won": 0, "alone": 0, "most_with": "WIDE", "share": 1.0},
        "LAST": {
            "matches": len(explicit) - end,
            "won": len(explicit) - narrow,
            "alone": len(explicit) - wide,
            "most_with": "WIDE",
            "share": round((wide - end) / (len(explicit) - end), 4),
        },
    }


def leftovers() -> list[Path]:
    return [path for path in Path().rglob("*") if path.suffix == ".tmp" or path.name.startswith("lease")]


@pytest.fixture
def running(day: Day) -> Iterator[subprocess.Popen[bytes]]:
    """A scan in two processes that has begun to write, and goes on for a while."""
    many(day.part)
    with scanning("--date", DATE) as process:
        yield process


def many(part: Partition) -> None:
    """More than is judged in a moment."""
    write(part.merged("p2"), list(lines(200, raw_tags=60)) * 150)


@contextmanager
def scanning(*flags: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "modbot.cli.main", "scan", *flags, "--jobs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while len([path for path in leftovers() if path.stat().st_size > 0 and path.suffix == ".tmp"]) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of the crew."""
    return psutil.Process(process.pid).children()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_scan_that_is_stopped_takes_its_processes_along(
    running: subprocess.Popen[bytes], how: signal.Signals
) -> None:
    crew = workers(running)
    assert len(crew) == 2
    (os.killpg if how is signal.SIGINT else os.kill)(running.pid, how)
    _, told = running.communicate(timeout=30)
    assert running.returncode == 130
    assert b"Traceback" not in told
    assert not any(worker.is_running() for worker in crew)
    assert not leftovers()
    assert not list(Path("out").rglob("findings*"))


def test_a_scan_whose_process_is_killed_says_so_and_writes_nothing(running: subprocess.Popen[bytes]) -> None:
    workers(running)[0].kill()
    _, told = running.communicate(timeout=60)
    assert running.returncode == 1
    assert b"a worker process died (exit code -9)" in told
    assert b"Traceback" not in told
    assert not leftovers()
    assert not list(Path("out").rglob("findings*"))


@pytest.mark.usefixtures("day")
def test_days_whose_process_is_killed_leave_nothing_half_written() -> None:
    for date in (DATE, "2025-10-02"):
        many(Partition(Path("out"), "current", date))
    with scanning("--dates", f"{DATE}..2025-10-02") as process:
        workers(process)[0].kill()
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"a worker process died (exit code -9)" in told
    assert not [path for path in leftovers() if path.suffix == ".tmp"]


def test_processes_end_with_the_scan_that_started_them(running: subprocess.Popen[bytes]) -> None:
    crew = workers(running)
    running.kill()
    running.communicate()
    _, alive = psutil.wait_procs(crew, timeout=10)
    assert alive == []


@given(
    st.lists(st.sampled_from([b"\n", b"{}\n", b" \r\n", b"x" * 9 + b"\n", b"y" * 300 + b"\n"]), max_size=60),
    st.sampled_from([b"", b"torn"]),
    st.integers(1, 1000),
)
def test_pieces_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, whole: list[bytes], torn: bytes, size: int
) -> None:
    path = write(tmp_path_factory.mktemp("pieces") / "f", [*whole, torn])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "PIECE_BYTES", size)
        found = list(pieces(path, what="", remedy=""))
    assert len(found) <= path.stat().st_size // size + 1
    joined = [line for span in found for line in numbered_lines(path, what="", remedy="", span=span)]
    assert joined == list(numbered_lines(path, what="", remedy="", span=WHOLE))
    assert b"".join(line for _, line in joined) == b"".join(line for line in [*whole, torn] if line.strip())
