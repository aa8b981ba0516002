"""The explanation of a verdict is of that verdict: same winner, features, matches, reasons and problems."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modbot.rules import Facts, Mode, load_rules
from modbot.rules.explain import Explainer, Part
from tests.rules_support import document

TAGS = ("loli", "shota", "my_child", "blood", "guro", "smile")
RATINGS = ("general", "sensitive", "questionable", "explicit", "beauty")
scores = st.floats(0, 1).map(lambda score: round(score, 2))
facts = st.builds(
    Facts,
    rating=st.dictionaries(st.sampled_from(RATINGS), scores),
    tags=st.dictionaries(st.sampled_from(TAGS), scores),
    detections=st.lists(
        st.tuples(st.sampled_from(["FACE_FEMALE", "ANUS_EXPOSED", "belly_exposed"]), scores), max_size=3
    ),
    channel_is_nsfw=st.booleans(),
    is_spoiler=st.booleans(),
    attachment_count=st.integers(0, 3),
    xsignals=st.dictionaries(st.sampled_from(["exposure_score", "nudity_box_count"]), scores),
    known=st.frozensets(st.just("spam")),
)

numbers = st.sampled_from(
    [
        *("rating.explicit", "rating.beauty", "attachment_count", "exposure_peak", "exposure_count", "minors_peak"),
        *("metrics.gore_max", "channel.is_nsfw", "message.is_spoiler", "known.spam", 'score("loli")', "const_LIMIT"),
        *("max(minors)", "min(minors)", "sum(gore)", "min(none)", "any(minors)", "count(gore, gt=0.2)"),
        *("topk_sum(minors, 2)", "topk_sum(minors, rating.explicit * 3, gt=0.1)", "topk_sum(gore, 1e300 * 1e300)"),
        *('nude.has("ANUS_EXPOSED")', 'nude.any(suffix="_EXPOSED", min=2)', "nude.any()", "nobody", "score(7)"),
        *("0.3", "1", "0", "True", "9007199254740992", "1e308", "first", "second", "max(nowhere)", "score()"),
    ]
)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(inner, inner)
    return st.one_of(
        st.builds(
            lambda pair, operator: f"({pair[0]} {operator} {pair[1]})",
            two,
            st.sampled_from(["and", "or", "&&", "||", "+", "-", "*", "/", ">=", "<", "==", "!="]),
        ),
        st.builds(
            lambda pair, operator: f"{pair[0]} {operator} {pair[1]}",
            two,
            st.sampled_from(["and", "||", "+", "*", ">=", "<"]),
        ),
        st.builds("{} < {} <= {}".format, inner, inner, inner),
        st.builds("(!{})".format, inner),
        st.builds("-({})".format, inner),
        st.builds("max({}, {})".format, inner, inner),
        st.builds("min({})".format, inner),
        st.builds("sum({}, {}, 0.5)".format, inner, inner),
        st.builds("clamp({}, {}, {})".format, inner, inner, inner),
        st.builds("nude.any(min={})".format, inner),
        st.builds("count(minors, gt={})".format, inner),
    )


expressions = st.recursive(numbers, grown, max_leaves=8)
reasons = st.sampled_from(
    ["plain", "{max(minors):.2f} and {first!r:>8}", "{1 / rating.general:.1f}", "{channel.is_nsfw:d}"]
)
rules = st.lists(
    st.fixed_dictionaries(
        {
            "severity": st.sampled_from(["red", "orange", "yellow", "green"]),
            "when": expressions,
            "priority": st.integers(-1, 1),
            "stop": st.booleans(),
            "reasons": st.lists(reasons, max_size=2),
        }
    ),
    min_size=1,
    max_size=5,
).map(lambda found: [{"id": f"r{index}", **each} for index, each in enumerate(found)])
features = st.fixed_dictionaries(
    {"first": numbers.filter(lambda text: text not in {"first", "second"}), "second": expressions}
)


def parts_of(part: Part) -> list[Part]:
    return [part, *(each for inner in part.parts for each in parts_of(inner))]


@pytest.mark.parametrize("mode", ["warn", "strict"])
@settings(max_examples=250, deadline=None)
@given(rules=rules, features=features, record=facts)
def test_the_explanation_is_of_the_verdict(
    mode: Mode, rules: list[dict[str, Any]], features: dict[str, str], record: Facts
) -> None:
    source = document(rules, features=features, thresholds={"LIMIT": 0.4})
    ruleset = load_rules(source, file="rules.yaml", mode=mode, lists=["spam"]).ruleset
    if ruleset is None:
        return
    verdict = ruleset.judge(record)
    explanation = Explainer(ruleset).explain(record)
    assert explanation.verdict == verdict
    assert [rule.id for rule in explanation.rules if rule.won] == ([verdict.rule_id] if verdict.rule_id else [])
    assert {feature.name: feature.value for feature in explanation.features} == verdict.features
    reached = [rule for rule in explanation.rules if rule.reached]
    assert list(explanation.rules[: len(reached)]) == reached
    last = reached[-1]
    assert explanation.stopped_by == (last.id if last.stop and last.matched else None)
    assert last.id == explanation.stopped_by or len(reached) == len(explanation.rules)
    matched = [index for index, rule in enumerate(explanation.rules) if rule.matched]
    assert verdict.matched == sum(1 << index for index in matched)
    assert not any(part.evaluated for rule in explanation.rules[len(reached) :] for part in parts_of(rule.when))
