"""The explanation of a verdict is of that verdict: same winner, features, matches, reasons and problems."""

from __future__ import annotations

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

SOUND = (
    *("rating.explicit", "rating.beauty", "attachment_count", "exposure_peak", "exposure_count", "minors_peak"),
    *("metrics.gore_max", "channel.is_nsfw", "message.is_spoiler", "known.spam", 'score("loli")', "const_limit"),
    *("max(minors)", "min(minors)", "sum(gore)", "min(none)", "any(minors)", "count(gore, gt=0.2)"),
    *("topk_sum(minors, 2)", "topk_sum(minors, rating.explicit * 3, gt=0.1)", "topk_sum(gore, 1e300 * 1e300)"),
    *('nude.has("ANUS_EXPOSED")', 'nude.any(suffix="_EXPOSED", min=2)', "nude.any()"),
    *("0.3", "1", "0", "True", "9007199254740992", "1e308", "first", "second"),
)
FAILING = ("nobody", "score(7)", "max(nowhere)", "score()")
"""What keeps a file from loading in `strict`, and is 0 in `warn`."""


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


reasons = st.sampled_from(
    ["plain", "{max(minors):.2f} and {first!r:>8}", "{1 / rating.general:.1f}", "{channel.is_nsfw:d}"]
)


def files(names: tuple[str, ...]) -> st.SearchStrategy[bytes]:
    """Rules files of those names."""
    expressions = st.recursive(st.sampled_from(names), grown, max_leaves=8)
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
    first = st.sampled_from([name for name in names if name not in {"first", "second"}])
    second = expressions.filter(lambda text: "second" not in text)
    features = st.builds(lambda *pair: dict(zip(("first", "second"), pair, strict=True)), first, second)
    return st.builds(
        lambda rules, features: document(rules, features=features, thresholds={"limit": 0.4}), rules, features
    )


def parts_of(part: Part) -> list[Part]:
    return [part, *(each for inner in part.parts for each in parts_of(inner))]


def check(source: bytes, mode: Mode, record: Facts) -> None:
    ruleset = load_rules(source, file="rules.yaml", mode=mode, lists=["spam"]).ruleset
    assert ruleset is not None
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


@settings(max_examples=250, deadline=None)
@given(source=files(SOUND + FAILING), record=facts)
def test_in_warn_the_explanation_is_of_the_verdict(source: bytes, record: Facts) -> None:
    check(source, "warn", record)


@settings(max_examples=250, deadline=None)
@given(source=files(SOUND), record=facts)
def test_in_strict_the_explanation_is_of_the_verdict(source: bytes, record: Facts) -> None:
    check(source, "strict", record)
