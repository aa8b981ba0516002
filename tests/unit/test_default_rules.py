"""The rule sets that come with the project: they load without a word, and decide their own test cases as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modbot.records.p1 import Rating
from modbot.records.p2 import Detection, XSignals
from modbot.records.tags import Group, normalise
from modbot.rules import Capabilities, Facts, RuleSet, Verdict, load_rules, load_vocabulary
from modbot.signals import SignalConfig, compute

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = ("rules.yaml", "rules_candidate.yaml")


def ruleset(name: str, mode: Any = "strict") -> RuleSet:  # noqa: ANN401 - the two modes' literal
    loaded = load_rules((CONFIGS / name).read_bytes(), file=name, mode=mode)
    assert loaded.status == "ok"
    assert loaded.issues == ()
    assert loaded.ruleset is not None
    return loaded.ruleset


def cases() -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}: {case['name']}")
        for name in FILES
        for case in yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))["tests"]
    ]


def judged(rules: RuleSet, record: dict[str, Any]) -> Verdict:
    """The verdict on a record as `tests:` writes it."""
    rating = {key: float(value) for key, value in record.get("rating", {}).items()}
    four = Rating(**{key: rating.get(key, 0.0) for key in ("general", "sensitive", "questionable", "explicit")})
    tags = {normalise(tag): score for tag, score in record.get("tags", {}).items()}
    found = [Detection(class_=d["class"], score=d["score"], box=(0, 0, 10, 10)) for d in record.get("nudity", [])]
    nsfw = rules.groups.get("nsfw_general", Group(()))
    signals = compute(four, tags, found, 100, 100, nsfw, SignalConfig())
    return rules.judge(
        Facts(
            rating=rating,
            tags=tags,
            detections=[(each.class_, each.score) for each in found],
            channel_is_nsfw=record.get("channel", {}).get("is_nsfw", False),
            xsignals={name: getattr(signals, name) for name in XSignals.__struct_fields__},
        )
    )


@pytest.mark.parametrize(("name", "case"), cases())
def test_a_case_of_the_file_is_decided_as_it_expects(name: str, case: dict[str, Any]) -> None:
    verdict = judged(ruleset(name), case["record"])
    assert {"severity": verdict.severity, "rule_id": verdict.rule_id} == case["expect"]
    assert verdict.problems == ()


@pytest.mark.parametrize("name", FILES)
def test_every_rule_has_a_case_and_a_title_in_both_languages(name: str) -> None:
    expected = {case.values[1]["expect"]["rule_id"] for case in cases() if case.values[0] == name}
    rules = ruleset(name).rules
    assert {rule.id for rule in rules} <= expected
    assert all(rule.title and " / " in rule.title for rule in rules)


@pytest.mark.parametrize("name", FILES)
def test_reasons_hold_no_placeholder_and_no_bare_id(name: str) -> None:
    for case in cases():
        if case.values[0] == name and case.values[1]["expect"]["rule_id"]:
            verdict = judged(ruleset(name), case.values[1]["record"])
            assert verdict.reasons
            assert not any("{" in reason or reason == verdict.rule_id for reason in verdict.reasons)


@pytest.mark.parametrize("name", FILES)
def test_with_ratings_alone_adult_content_and_mild_exposure_still_match(name: str) -> None:
    open_nsfw = Capabilities(tags=False, ratings=frozenset({"general", "explicit"}))
    rules = ruleset(name)
    dead = set(rules.unmatchable(open_nsfw))
    assert {rule.id for rule in rules.rules} - dead == {"adult_outside_nsfw", "mild_exposure"}
    assert rules.unmatchable(Capabilities()) == []


@pytest.mark.parametrize("minor", [0.35, 0.6, 1.0])
@pytest.mark.parametrize("nsfw_channel", [True, False])
@pytest.mark.parametrize(
    "evidence",
    [
        {"rating": {"explicit": 0.25}},
        {"rating": {"questionable": 0.55}},
        {"rating": {"general": 0.9}, "tags": {"penis": 0.3}},
        {"nudity": [{"class": "FEMALE_GENITALIA_EXPOSED", "score": 0.7}]},
    ],
)
def test_a_minor_with_any_sexual_evidence_is_red_in_every_channel(
    minor: float, *, nsfw_channel: bool, evidence: dict[str, Any]
) -> None:
    record = {**evidence, "tags": {"child": minor, **evidence.get("tags", {})}, "channel": {"is_nsfw": nsfw_channel}}
    for name in FILES:
        assert judged(ruleset(name), record).rule_id == "minors_sexual"


def test_the_candidate_differs_and_mostly_agrees() -> None:
    current, candidate = ruleset("rules.yaml"), ruleset("rules_candidate.yaml")
    assert [rule.id for rule in current.rules] == [rule.id for rule in candidate.rules]
    records = [{"rating": {"explicit": step / 100}} for step in range(101)]
    differing = [r for r in records if judged(current, r).severity != judged(candidate, r).severity]
    assert 0 < len(differing) < len(records) / 4


def test_the_fallback_vocabulary_is_the_rules_files() -> None:
    vocabulary = load_vocabulary((CONFIGS / "rules.yaml").read_bytes(), file="rules.yaml")
    signals = yaml.safe_load((CONFIGS / "xsignals.yaml").read_text(encoding="utf-8"))
    assert Group(signals["nsfw_general"]) == vocabulary.groups["nsfw_general"]


def test_the_signals_file_says_the_defaults_and_all_of_them() -> None:
    signals = yaml.safe_load((CONFIGS / "xsignals.yaml").read_text(encoding="utf-8"))
    assert SignalConfig.from_mapping(signals) == SignalConfig()
    assert set(signals) == {*SignalConfig.__slots__, "nsfw_general"}
