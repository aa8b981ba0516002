"""How far a rule is from matching: which comparisons fail, by how much, and what the least change is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modbot.cli.explaining import number
from modbot.rules import Facts, Mode, RuleSet
from modbot.rules.explain import ExplainedRule, Explainer
from tests.rules_support import ruleset

FACTS = Facts(
    rating={"general": 0.5, "questionable": 0.3, "explicit": 0.2},
    tags={"loli": 0.1, "blood": 0.25},
    detections=[("FACE_FEMALE", 0.8)],
    attachment_count=1,
    xsignals={"exposure_score": 0.4},
)


def of(when: str, facts: Facts = FACTS, mode: Mode = "warn", **top: Any) -> ExplainedRule:  # noqa: ANN401 - YAML of any shape
    rules = ruleset([{"id": "a", "severity": "red", "when": when}], mode=mode, **top)
    return Explainer(rules).explain(facts).rules[0]


@pytest.mark.parametrize(
    ("when", "total", "needed"),
    [
        ("rating.explicit >= 0.5", 0.3, ["rating.explicit >= 0.5"]),
        ("0.5 <= rating.explicit", 0.3, ["rating.explicit >= 0.5"]),
        ("rating.explicit < 0.1", 0.1, ["rating.explicit < 0.1"]),
        ("rating.explicit > 0.2", 0.0, ["rating.explicit > 0.2"]),
        ("rating.explicit == 0.3", 0.1, ["rating.explicit == 0.3"]),
        ("rating.explicit != 0.2", 0.0, ["rating.explicit != 0.2"]),
        ("0.4 <= rating.explicit < rating.questionable", 0.2, ["rating.explicit >= 0.4"]),
        ("rating.explicit > rating.questionable", 0.1, ["rating.explicit > 0.3"]),
        ("rating.explicit >= 0.5 and minors_peak >= 0.4", 0.6, ["rating.explicit >= 0.5", "minors_peak >= 0.4"]),
        ("rating.explicit >= 0.5 or minors_peak >= 0.35", 0.25, ["minors_peak >= 0.35"]),
        ("rating.explicit >= 0.3 and rating.explicit >= 0.5", 0.3, ["rating.explicit >= 0.5"]),
        ("rating.explicit >= 0.5 and exposure_score >= 0.3", 0.3, ["rating.explicit >= 0.5"]),
        (
            "!(rating.explicit > 0.1 or rating.questionable > 0.1)",
            0.3,
            ["rating.explicit <= 0.1", "rating.questionable <= 0.1"],
        ),
        ("!(rating.explicit > 0.1 and rating.questionable > 0.1)", 0.1, ["rating.explicit <= 0.1"]),
        ("!(0.1 < rating.explicit < 0.25)", 0.05, ["rating.explicit >= 0.25"]),
        ("any(gore)", 0.1, ["max(gore) >= 0.35"]),
        ("!any(gore, gt=0.1)", 0.15, ["max(gore) < 0.1"]),
        ("count(gore, gt=0.1) >= 3", 2.0, ["count(gore, gt=0.1) >= 3"]),
        ('nude.any(prefix="FACE", min=2)', 1.0, ['nude.any(prefix="FACE", min=2) >= 2']),
        ("channel.is_nsfw && rating.explicit > 0.1", 1.0, ["channel.is_nsfw == true"]),
        ('!nude.has("FACE_FEMALE")', 1.0, ['nude.has("FACE_FEMALE") == false']),
        ("attachment_count - 1", 0.0, ["attachment_count - 1 != 0"]),
        ("!attachment_count", 1.0, ["attachment_count == 0"]),
        ("truth && rating.explicit > 0.1", 0.2, ["exposure_score > 0.6"]),
        ("number >= 1", 0.5, ["number >= 1"]),
    ],
)
def test_the_least_change(when: str, total: float, needed: list[str]) -> None:
    rule = of(when, features={"truth": "exposure_score > 0.6", "number": "rating.explicit + rating.questionable"})
    assert not rule.matched
    assert rule.distance == pytest.approx(total)
    told = [f"{gap.subject} {gap.operator} {number(gap.threshold)}" for gap in rule.gaps if gap.needed]
    assert sorted(told) == sorted(needed)


def test_what_fails_besides_the_least_change_is_told_as_well() -> None:
    rule = of("rating.explicit >= 0.9 or minors_peak >= 0.35 and any(gore)")
    assert {gap.subject: (gap.gap, gap.needed) for gap in rule.gaps} == {
        "rating.explicit": (0.7, False),
        "minors_peak": (0.25, True),
        "max(gore)": (0.1, True),
    }


@pytest.mark.parametrize(
    "when",
    [
        "1 > 2",
        "nobody > 0.5",
        "max(nowhere) > 0.5",
        "max(none) > 0.5",
        "any(none)",
        '"a" == "b"',
        "score() > 1",
        "idle > 1",
    ],
)
def test_what_no_record_can_change_is_out_of_reach(when: str) -> None:
    rule = of(when, features={"idle": "0.5"})
    assert rule.distance is None
    assert rule.gaps == ()


def test_of_an_or_the_part_that_can_change_counts() -> None:
    assert of("nobody > 0.5 or rating.explicit > 0.5").distance == pytest.approx(0.3)
    assert of("nobody > 0.5 and rating.explicit > 0.5").distance is None


def test_a_part_that_strict_refuses_is_no_way() -> None:
    features = {"share": "1 / rating.safe"}
    assert of("rating.explicit > 0.9 and 1 / rating.safe > 2", mode="strict").distance is None
    assert of("rating.explicit > 0.9 or share > 2", mode="strict", features=features).distance == pytest.approx(0.7)


def test_rules_that_are_no_more_severe_have_no_distance() -> None:
    rules = ruleset(
        [
            {"id": "won", "severity": "orange", "when": "rating.explicit > 0.1"},
            {"id": "same", "severity": "orange", "when": "rating.explicit > 0.5"},
            {"id": "worse", "severity": "red", "when": "rating.explicit > 0.9"},
        ]
    )
    explanation = Explainer(rules).explain(FACTS)
    assert [rule.distance for rule in explanation.rules] == [None, None, pytest.approx(0.7)]
    assert explanation.nearest == "worse"
    assert Explainer(rules).explain(FACTS, floor="red").nearest is None


def test_rules_behind_a_stop_have_no_distance() -> None:
    rules = ruleset(
        [
            {"id": "stop", "severity": "green", "when": "rating.explicit > 0.1", "stop": True},
            {"id": "behind", "severity": "red", "when": "rating.explicit > 0.3"},
        ]
    )
    explanation = Explainer(rules).explain(FACTS)
    assert (explanation.stopped_by, explanation.nearest) == ("stop", None)


@pytest.mark.parametrize(
    ("first", "next_", "when", "total"),
    [
        ("rating.explicit >= 0.5", "{} and {}", "f60", 0.3),
        ("rating.explicit >= 0.5", "!{} and !{}", "f60", 0.3),
        ("rating.explicit", "{} + {}", "f60 > 1e18", 1e18 - 0.2 * 2**60),
        ("1", "{} * {}", "f60 > 2", None),
    ],
)
def test_features_that_use_others_twice_are_worked_out_once(
    first: str, next_: str, when: str, total: float | None
) -> None:
    features = {"f0": first, **{f"f{n}": next_.replace("{}", f"f{n - 1}") for n in range(1, 61)}}
    assert of(when, features=features).distance == (total if total is None else pytest.approx(total))


NAMES = ("general", "sensitive", "questionable", "explicit")


def changed(facts: Facts, rule: ExplainedRule) -> Facts:
    """The record with every needed change made."""
    needed = {gap.subject.removeprefix("rating."): gap.threshold for gap in rule.gaps if gap.needed}
    return msgspec.structs.replace(facts, rating={**facts.rating, **needed})


rising = st.recursive(
    st.builds("rating.{} >= {}".format, st.sampled_from(NAMES), st.integers(0, 20).map(lambda step: step / 20)),
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(rising, st.fixed_dictionaries({name: st.integers(0, 20).map(lambda step: step / 20) for name in NAMES}))
def test_no_smaller_step_of_one_number_makes_a_rising_rule_match(when: str, rating: dict[str, float]) -> None:
    rules: RuleSet = ruleset([{"id": "a", "severity": "red", "when": when}])
    rule = Explainer(rules).explain(Facts(rating=rating)).rules[0]
    if rule.matched or rule.distance is None:
        return
    assert rules.judge(changed(Facts(rating=rating), rule)).rule_id == "a"
    for name in NAMES:
        less = {**rating, name: rating[name] + rule.distance - 0.001}
        assert rules.judge(Facts(rating=less)).rule_id is None
