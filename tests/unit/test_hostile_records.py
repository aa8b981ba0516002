"""Whatever a record holds: a verdict, a valid finding, a report row, a trace line; never an exception."""

from __future__ import annotations

import csv
import io
import json
from functools import lru_cache
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from modbot.records.evidence import read
from modbot.records.finding import REPORT_COLUMNS, SEVERITIES, finding
from modbot.records.tags import Group
from modbot.rules import load_rules
from modbot.signals import SignalConfig
from modbot.stages.hashlists import HashLists
from modbot.stages.judge import RulesJudge
from modbot.stages.report import report_row
from modbot.stages.rulebook import signals_of
from modbot.stages.sheet import sheet
from modbot.stages.trace import trace_line
from tests.p2_records import RULES, plain

ODD: st.SearchStrategy[Any] = (
    st.sampled_from(
        [None, True, False, 0, -1, 1e308, float("nan"), float("-inf"), 10**30, "", "0.5", "nan", "\ud800", [], {}]
    )
    | st.text(max_size=5)
    | st.lists(st.sampled_from([1, "x", None, [], ["dog", 0.5], {"class": "X"}]), max_size=3)
)


@lru_cache
def judge() -> RulesJudge:
    loaded = load_rules(RULES.encode(), file="rules.yaml")
    assert loaded.ruleset is not None
    return RulesJudge(
        loaded.ruleset, unjudged="yellow", lists=HashLists(), signals=signals_of(Group(["nude"]), SignalConfig())
    )


def paths(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:  # noqa: ANN401 - JSON
    """Every place in the value, the first items of a list only."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [at, *(path for key, item in inner for path in paths(item, (*at, key)))]


GOOD = plain(2)
PLACES = paths(GOOD)[1:]


def changed(changes: dict[tuple[str | int, ...], Any]) -> dict[str, Any]:
    record = json.loads(json.dumps(GOOD))
    for path, value in sorted(changes.items(), key=lambda change: -len(change[0])):
        holder = record
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
    assert isinstance(record, dict)
    return record


def check(line: bytes) -> None:
    judged = judge()(read(line, 1))
    outcome = judged.outcome
    assert outcome.severity in SEVERITIES
    found = msgspec.json.decode(finding(judged.reading.line, outcome))
    assert (found["severity"], found["reasons"]) == (outcome.severity, outcome.reasons)
    if judged.reading.doubts or judged.reading.evidence.error is not None:
        assert outcome.severity != "green"
    out = io.BytesIO()
    write_row = sheet(out, REPORT_COLUMNS)
    write_row(report_row(judged.reading.evidence, judged.tags, outcome))
    assert [len(row) for row in csv.reader(io.StringIO(out.getvalue().decode()))] == [len(REPORT_COLUMNS)] * 2
    assert out.getvalue().count(b"\n") == 2
    assert isinstance(msgspec.json.decode(trace_line(judged, judge())), dict)


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from(PLACES), ODD, min_size=1, max_size=4))
def test_values_that_should_not_be_there(changes: dict[tuple[str | int, ...], Any]) -> None:
    check(json.dumps(changed(changes)).encode())


def test_a_whole_number_beyond_all_bounds() -> None:
    for path in PLACES:
        check(json.dumps(changed({path: 10**400})).encode())
    detections = [{"class": "FEMALE_BREAST_EXPOSED", "score": 0.9, "box": [0, 0, 10**400, 10**400]}]
    image = {**GOOD["image"], "width": 10**400, "height": 10**400}
    check(json.dumps(plain(2, image=image, nudity_detections=detections, xsignals=None)).encode())


@settings(max_examples=300)
@given(st.integers(0, len(json.dumps(GOOD))), st.binary(max_size=3), st.integers(0, 4))
def test_bytes_that_should_not_be_there(at: int, put: bytes, instead: int) -> None:
    good = json.dumps(GOOD).encode()
    check(good[:at] + put + good[at + instead :])


def test_ten_thousand_tags_and_a_very_long_line() -> None:
    tags = [[f"tag {number}", number / 10_000] for number in range(10_000)]
    check(json.dumps(plain(2, wd14={**GOOD["wd14"], "general_raw": tags}, note="x" * 20_000_000)).encode())


def test_scores_whose_sum_is_no_number() -> None:
    tags = [[tag, 1e308] for tag in ("blood", "weapon", "long_sword", "nude", "guro")]
    detections = [{"class": "BELLY_EXPOSED", "score": 1e308, "box": [0, 0, 10**18, 10**18]}] * 3
    check(json.dumps(plain(2, wd14={**GOOD["wd14"], "general_raw": tags})).encode())
    rating = dict.fromkeys(GOOD["wd14"]["rating"], 1e308)
    wd14 = {**GOOD["wd14"], "general_raw": [*tags, *([tag, 1e308] for tag in ("penis", "sex"))], "rating": rating}
    check(json.dumps(plain(2, wd14=wd14, nudity_detections=detections, xsignals=None)).encode())
