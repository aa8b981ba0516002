from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modbot.records.evidence import read
from modbot.records.finding import Outcome, finding
from modbot.records.tags import Group
from modbot.rules import load_rules
from modbot.signals import SignalConfig
from modbot.stages.hashlists import HashLists
from modbot.stages.judge import Judged, RulesJudge
from modbot.stages.rulebook import signals_of
from tests.p2_records import RULES, plain

HARMLESS: dict[str, Any] = {
    "wd14": {"rating": {"general": 0.9, "sensitive": 0.1, "questionable": 0.0, "explicit": 0.0}, "general_raw": []},
    "nudity_detections": [],
    "xsignals": None,
    "meta": {},
    "image": {"width": 10, "height": 10},
}


def judged(change: dict[str, Any], rules: str = RULES, *, mode: str = "warn") -> Judged:
    loaded = load_rules(rules.encode(), file="rules.yaml", mode="strict" if mode == "strict" else "warn")
    assert loaded.ruleset is not None, loaded.issues
    signals = signals_of(loaded.ruleset.groups.get("nsfw_general", Group(())), SignalConfig())
    judge = RulesJudge(loaded.ruleset, unjudged="yellow", lists=HashLists(), signals=signals)
    return judge(read(json.dumps(plain(1, **HARMLESS) | change).encode(), 1))


def test_nothing_found_is_green_by_default() -> None:
    outcome = judged({}).outcome
    assert (outcome.severity, outcome.rule_id, outcome.reasons) == ("green", None, [])
    assert outcome.metrics["winning"]["origin"] == "default"


def test_a_rules_verdict_names_its_rule() -> None:
    rating = {**HARMLESS["wd14"]["rating"], "explicit": 0.8}
    outcome = judged({"wd14": {"rating": rating}}).outcome
    assert (outcome.severity, outcome.rule_id) == ("red", "ADULT")
    assert outcome.rule_title == "Adult content outside NSFW channels"
    assert outcome.reasons == ["explicit 0.80", "adult 0.80"]
    assert outcome.metrics["winning"] == {"origin": "dsl", "severity": "red", "rule_id": "ADULT", "priority": 10}
    assert outcome.metrics["dsl"] == {"adult": 0.8}


DOUBTS = [
    ({"meta": {"nudenet_error": "boom"}}, "detector_failed (boom)"),
    ({"meta": {"nudenet_error": "boom:\n  at\r\n\tline\u2028 7"}}, "detector_failed (boom: at line 7)"),
    ({"image": {"truncated": True}}, "truncated (the image was read in part)"),
    (
        {"wd14": {"rating": {"general": 1, "explicit": None}}},
        "not_finite (rating.explicit is no finite number)",
    ),
    ({"wd14": None}, "scores_missing (the record holds no ratings)"),
    (
        {"meta": {"nudenet_ran": True}, "nudity_detections": None},
        "evidence_missing (the record holds no nudity_detections, though the detector ran)",
    ),
    ({"xsignals": {"exposure_score": None}}, "not_finite (xsignals.exposure_score is no finite number)"),
    (
        {"wd14": {"rating": {"general": 1, "explicit": -5}}},
        "out_of_range (rating.explicit is -5, not 0 to 1)",
    ),
]


@pytest.mark.parametrize(("change", "said"), DOUBTS)
def test_what_would_be_green_is_unjudged_where_evidence_is_missing(change: dict[str, Any], said: str) -> None:
    found = judged(change)
    assert found.outcome.severity == "yellow"
    assert found.outcome.reasons == [f"not judged: {said}"]
    assert found.outcome.metrics["winning"]["origin"] == "unjudged"
    assert found.fault is not None
    assert said.startswith(found.fault.kind)


@pytest.mark.parametrize(("change", "said"), DOUBTS)
def test_a_green_rule_does_not_clear_a_doubt(change: dict[str, Any], said: str) -> None:
    rules = RULES + '  - {id: FINE, severity: green, when: "1 > 0", stop: true}\n'
    assert judged(change, rules).outcome.reasons == [f"not judged: {said}"]


@pytest.mark.parametrize(("change", "said"), DOUBTS)
def test_rules_raise_a_doubtful_record(change: dict[str, Any], said: str) -> None:
    rules = RULES + '  - {id: ANY, severity: red, when: "1 > 0"}\n'
    assert said
    assert judged(change, rules).outcome.rule_id == "ANY"


def test_a_records_own_error_is_not_raised_by_rules() -> None:
    rules = RULES + '  - {id: ANY, severity: red, when: "1 > 0"}\n'
    found = judged({"error": {"kind": "timeout", "detail": ""}}, rules)
    assert found.outcome.severity == "yellow"
    assert found.outcome.reasons == ["not judged: timeout"]


def test_an_evaluation_that_failed_in_strict_is_no_green() -> None:
    rules = RULES + '  - {id: DIV, severity: red, when: "1 / rating.explicit > 2"}\n'
    found = judged({}, rules, mode="strict")
    assert found.fault is not None
    assert found.fault.kind == "evaluation_failed"
    assert "DIV" in found.outcome.reasons[0]
    assert judged({}, rules).outcome.severity == "green"


def test_signals_are_computed_where_p2_did_not() -> None:
    detections = [{"class": "FEMALE_BREAST_EXPOSED", "score": 0.8, "box": [0, 0, 5, 10]}]
    metrics = judged({"nudity_detections": detections}).outcome.metrics
    assert metrics["exposure_score"] == 0.8
    assert metrics["nudity_area_ratio"] == 0.5
    assert metrics["nudity_box_count"] == 1


def test_violence_tags_are_those_of_the_group_from_the_threshold() -> None:
    tags = [["long_sword", 0.9], ["blood", 0.35], ["weapon", 0.3499], ["dog", 0.9]]
    metrics = judged({"wd14": {**HARMLESS["wd14"], "general_raw": tags}}).outcome.metrics
    assert metrics["violence_tags"] == [("long_sword", 0.9), ("blood", 0.35)]


def test_a_feature_named_like_the_groups_maximum_hides_no_violence_tag() -> None:
    rules = RULES.replace("features:\n", 'features:\n  violence_max: "0"\n')
    metrics = judged({"wd14": {**HARMLESS["wd14"], "general_raw": [["blood", 0.9]]}}, rules).outcome.metrics
    assert metrics["violence_max"] == 0
    assert metrics["violence_tags"] == [("blood", 0.9)]


def test_a_finding_of_an_empty_object_is_valid() -> None:
    outcome = Outcome("green", None, None, [], {})
    assert json.loads(finding(b"{}", outcome)) == json.loads(finding(b"{ }", outcome))
    assert json.loads(finding(b'{"a": 1 }', outcome))["a"] == 1


def test_the_package_reads_its_schema_from_the_contract() -> None:
    root = Path(__file__).parents[2]
    assert (root / "src/modbot/records/p3_findings.schema.json").read_text() == (
        root / "docs/contracts/p3_findings.schema.json"
    ).read_text()
