"""An output that would cost an input, another output or a folder is refused before anything is read or written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.p3_day import DATE, Day

P2 = f"out/profiles/current/p2/p2_{DATE}.jsonl"
FINDINGS = f"out/profiles/current/p3/findings_{DATE}.jsonl"
METRICS = f"out/profiles/current/metrics/p3/p3_metrics_{DATE}.json"
AB = ("ab", "--rulesB", "configs/candidate.yaml")


def files() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("scan", "--findings", P2), f"--findings: {P2} is what --analysis reads"),
        (("scan", "--findings", f"./{P2}"), "is what --analysis reads"),
        (("scan", "--trace-jsonl", P2), f"--trace-jsonl: {P2} is what --analysis reads"),
        (("scan", "--metrics", "configs/rules.yaml"), "is what --rules reads"),
        (("scan", "--analysis", FINDINGS, "--findings", FINDINGS), "is what --analysis reads"),
        (("scan", "--analysis", FINDINGS, "--findings", P2), "is what modbot scan reads"),
        (("scan", "--findings", "x", "--trace-jsonl", "x"), "--trace-jsonl: x is what --findings writes"),
        (("scan", "--dry-run", "--metrics", "x", "--trace-jsonl", "./x"), "is what --trace-jsonl writes"),
        (("scan", "--trace-jsonl", FINDINGS), "is what --findings writes"),
        (("scan", "--metrics", "configs"), "--metrics: configs is a folder"),
        (("scan", "--metrics", "/dev/null"), "--metrics: /dev/null is no regular file"),
        (("uncertain", "--out", P2), f"--out: {P2} is what --analysis reads"),
        (("uncertain", "--out", "out"), "--out: out is a folder"),
        ((*AB, "--out-json", "configs/candidate.yaml"), "is what --rulesB reads"),
        ((*AB, "--out-csv", P2), "is what --analysis reads"),
        ((*AB, "--out-csv", "x", "--out-json", "x"), "--out-csv: x is what --out-json writes"),
        (("report", "--out", FINDINGS), f"--out: {FINDINGS} is what --findings reads"),
        (("report", "--out", P2), "is what modbot scan reads"),
    ],
)
def test_nothing_is_lost(day: Day, arguments: tuple[str, ...], said: str) -> None:
    day.generated(5)
    day.ok("scan")
    before = files()
    ran = day.run(*arguments)
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.splitlines()) == 2
    assert files() == before


def test_the_days_metrics_may_be_named(day: Day) -> None:
    day.generated(5)
    day.ok("scan", "--metrics", Path(METRICS).absolute())
