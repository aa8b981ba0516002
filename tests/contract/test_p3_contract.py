"""The names, orders and shapes that others rely on, spelled here a second time: a change of either breaks this."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from modbot.files.paths import Partition
from modbot.records.finding import DIFF_COLUMNS, REPORT_COLUMNS
from modbot.stages.contract import finding_validator, load_schema
from modbot.stages.report import part_of
from modbot.stages.tally import Tally
from tests.p2_records import plain

ROOT = Path(__file__).parents[2]

REPORT = (
    "severity, rule_id, rule_title, message_link, author_id, is_nsfw_channel, wd14_rating_general, "
    "wd14_rating_sensitive, wd14_rating_questionable, wd14_rating_explicit, top_tags, nudity_tops, exposure_score, "
    "placement_risk_pre, nsfw_margin, nsfw_ratio, nsfw_general_sum, violence_tags, animals_sum, reasons, "
    "message_count, other_message_links, other_author_ids, sha256"
)
DIFF = (
    "message_link, severityA, severityB, ruleA, ruleB, rating_questionable, rating_explicit, exposure_score, "
    "nsfw_general_sum, minors_peak_A, gore_peak_A, minors_peak_B, gore_peak_B, sha256"
)
METRICS = (
    "total severity winning winning_ratio rules top_rules latency_ms_avg latency_ms_p95 wall_time_s throughput_rps "
    "filtered context"
)
OUTCOME: dict[str, Any] = {
    "severity": "green",
    "rule_id": None,
    "rule_title": None,
    "reasons": [],
    "metrics": {
        "winning": {"origin": "default", "severity": "green", "rule_id": None, "priority": None},
        "dsl": {},
        "eval_ms": 0.1,
    },
}


def test_the_columns_begin_with_those_that_were_promised() -> None:
    assert ", ".join(REPORT_COLUMNS[: len(REPORT.split(", "))]) == REPORT
    assert ", ".join(DIFF_COLUMNS[: len(DIFF.split(", "))]) == DIFF


def test_the_metrics_have_every_key_that_was_promised() -> None:
    metrics = Tally().metrics(wall_time_s=1, context={}, ruleset={})
    assert set(METRICS.split()) <= metrics.keys()


def test_the_files_lie_where_they_were_promised() -> None:
    part = Partition(Path("out"), "P", "2025-10-01")
    root = "out/profiles/P"
    for found, promised in {
        part.findings: "p3/findings_2025-10-01.jsonl",
        part.report: "p3/report_2025-10-01.csv",
        part_of(part.findings): "p3/findings_2025-10-01.part.jsonl",
        part_of(part.report): "p3/report_2025-10-01.part.csv",
        part.scan_metrics: "metrics/p3/p3_metrics_2025-10-01.json",
        part.latest_scan: "metrics/p3_run.json",
        part.ab_compare: "metrics/p3_ab_compare.json",
        part.ab_diff: "exports/p3_ab_diff.csv",
        part.ab_samples: "exports/p3_ab_diff_samples.jsonl",
        part.uncertain: "review/uncertain_top200.csv",
    }.items():
        assert str(found) == f"{root}/{promised}"


def test_the_schema_is_one_and_the_document_names_what_it_requires() -> None:
    schema = load_schema()
    Draft202012Validator.check_schema(schema)
    told = (ROOT / "docs/contracts/p3.md").read_text(encoding="utf-8")
    for key in (*schema["required"], *REPORT_COLUMNS, *DIFF_COLUMNS, *METRICS.split()):
        assert f"`{key}`" in told, key


@pytest.mark.parametrize("row", range(51))
def test_every_kind_of_record_makes_a_valid_finding(row: int) -> None:
    assert finding_validator().is_valid(plain(row, **OUTCOME))


GROWN_LATER = {("messages", 0, "attachments", 0, "row")}
"""What a finding may lack: it came on top of what was promised."""


def promised(finding: object) -> list[tuple[str | int, ...]]:
    """Where each key stands that p1, p2 or p3 was promised to write; of free maps and lists only the place itself."""
    free = {"extra", "xsignals", "dsl", "rating"}
    return [
        place
        for place in places(finding)
        if place and isinstance(place[-1], str) and not free & set(place[:-1]) and place not in GROWN_LATER
    ]


@pytest.mark.parametrize("row", [2, 49], ids=["an image", "an error"])
def test_a_finding_that_lacks_a_promised_key_is_a_breach(row: int) -> None:
    finding = plain(row, **OUTCOME)
    assert (finding["error"] is None) == (row == 2)
    for place in promised(finding):
        lacking = json.loads(json.dumps(finding))
        holder = lacking
        for key in place[:-1]:
            holder = holder[key]
        del holder[place[-1]]
        assert not finding_validator().is_valid(lacking), place


JSON = st.recursive(
    st.sampled_from([None, True, 0, -1, 1.0, 0.5, 10**15, 1e300, "", "red", "0" * 64, "2025-10-01T00:00:00Z"])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FINDING = plain(2, **OUTCOME)


def places(value: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in the value, the first items of a list only."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [at, *(place for key, item in inner for place in places(item, (*at, key)))]


@settings(max_examples=300)
@given(place=st.sampled_from(places(FINDING)[1:]), instead=JSON, drop=st.booleans())
def test_the_quick_validator_is_as_strict_as_the_reference(
    *, place: tuple[str | int, ...], instead: object, drop: bool
) -> None:
    finding = json.loads(json.dumps(FINDING))
    holder = finding
    for key in place[:-1]:
        holder = holder[key]
    if drop:
        del holder[place[-1]]
    else:
        holder[place[-1]] = instead
    reference = sorted(_named(error.path) for error in Draft202012Validator(load_schema()).iter_errors(finding))
    quick = sorted(_named(error.instance_path) for error in finding_validator().iter_errors(finding))
    assert quick == reference
    assert finding_validator().is_valid(finding) == (not reference)


def _named(path: Iterable[str | int]) -> str:
    """Where an error is. The quick one's paths leave an empty key out."""
    return str([key for key in path if key != ""])
