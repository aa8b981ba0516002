"""Laws of judging, for rule sets and records made at random."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from modbot.records.finding import SEVERITIES
from modbot.rules import Capabilities, Facts, Verdict, load_rules
from tests.rules_support import document, ruleset

TAGS = ("loli", "shota", "my_child", "blood", "guro", "smile")
RATINGS = ("general", "sensitive", "questionable", "explicit")
scores = st.floats(0, 1).map(lambda score: round(score, 3))
facts = st.builds(
    Facts,
    rating=st.dictionaries(st.sampled_from(RATINGS), scores),
    tags=st.dictionaries(st.sampled_from(TAGS), scores),
    detections=st.lists(
        st.tuples(st.sampled_from(["FACE_FEMALE", "ANUS_EXPOSED", "BELLY_EXPOSED"]), scores), max_size=3
    ),
    channel_is_nsfw=st.booleans(),
    xsignals=st.dictionaries(st.sampled_from(["exposure_score", "nudity_box_count"]), scores),
)

rising = st.sampled_from(
    [
        "rating.explicit",
        "rating.questionable + rating.explicit",
        "max(minors)",
        "sum(gore)",
        "minors_peak * 2",
        'score("loli")',
        "topk_sum(minors, 2, 0.2)",
        "count(gore, gt=0.3)",
        "clamp(sum(minors), 0.1, 0.9)",
        "max(rating.explicit, gore_peak)",
        "min(minors)",
        "any(minors, gt=0.5)",
        "minors_sum / 2 + 0.1",
    ]
)
"""Expressions that a higher score never lowers."""
falling = st.sampled_from(["-rating.explicit", "1 - max(gore)", "!any(minors)", "-count(gore) / 3"])
failing = st.sampled_from(["nobody", "1 / rating.general", "max(nowhere)", '("a" < 1)', "rating.beauty", "score()"])
limits = st.floats(0, 1).map(lambda number: repr(round(number, 2)))


def combined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    comparison = st.builds("{} {} {}".format, parts, st.sampled_from([">", ">="]), limits)
    return st.recursive(
        comparison,
        lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["and", "||"]), inner),
        max_leaves=4,
    )


def rules_of(when: st.SearchStrategy[str], *, stop: bool = True) -> st.SearchStrategy[list[dict[str, Any]]]:
    rule = st.fixed_dictionaries(
        {
            "severity": st.sampled_from(SEVERITIES),
            "when": when,
            "priority": st.integers(-2, 2),
            "stop": st.booleans() if stop else st.just(value=False),
            "reasons": st.lists(
                st.sampled_from(["plain", "{max(minors):.2f}", "{1 / rating.general:.1f}"]), max_size=2
            ),
        }
    )
    return st.lists(rule, min_size=1, max_size=5).map(
        lambda rules: [{"id": f"r{index}", **each} for index, each in enumerate(rules)]
    )


def rank(severity: str) -> int:
    return -SEVERITIES.index(severity)


def judged_alone(rule: dict[str, Any], record: Facts) -> bool:
    return ruleset([rule]).judge(record).rule_id is not None


@settings(max_examples=60)
@given(rules_of(combined(st.one_of(rising, falling, failing))), facts)
def test_the_winner_is_the_best_of_those_that_match_before_a_stop(rules: list[dict[str, Any]], record: Facts) -> None:
    reached = []
    for rule in rules:
        if judged_alone(rule, record):
            reached.append(rule)
            if rule["stop"]:
                break
    verdict = ruleset(rules).judge(record)
    if not reached:
        assert (verdict.rule_id, verdict.severity) == (None, "green")
        return
    assert all(rank(verdict.severity) >= rank(rule["severity"]) for rule in reached)
    best = max(reached, key=lambda rule: (rank(rule["severity"]), rule["priority"], -rules.index(rule)))
    assert verdict.rule_id == best["id"]
    assert verdict.reasons


@settings(max_examples=60)
@given(rules_of(combined(rising), stop=False), facts, st.sampled_from(TAGS + RATINGS), scores)
def test_a_higher_score_never_lowers_a_verdict_of_rising_rules(
    rules: list[dict[str, Any]], record: Facts, name: str, raised: float
) -> None:
    def with_score(values: Any) -> dict[str, float]:  # noqa: ANN401 - a Mapping field of Facts
        return {**values, name: max(raised, values.get(name, 0.0))}

    rating = with_score(record.rating) if name in RATINGS else record.rating
    tags = with_score(record.tags) if name in TAGS else record.tags
    higher = Facts(
        rating=rating,
        tags=tags,
        detections=record.detections,
        channel_is_nsfw=record.channel_is_nsfw,
        xsignals=record.xsignals,
    )
    judge = ruleset(rules).judge
    assert rank(judge(higher).severity) >= rank(judge(record).severity)


positive = st.floats(0, 2).map(lambda number: repr(round(number, 3)))
tag_scores = st.sampled_from(TAGS).map('score("{}")'.format)
of_groups = st.sampled_from(["max(minors)", "sum(minors)", "max(gore)", "sum(gore)"])


def monotone(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """What `and`, `or`, `>=`, `sum`, `max` and `any` make of expressions; constants stand right of `>=` and in `gt`."""
    several = st.lists(inner, min_size=2, max_size=3)
    return st.one_of(
        several.map(lambda parts: f"({' and '.join(parts)})"),
        several.map(lambda parts: f"({' || '.join(parts)})"),
        several.map(lambda parts: f"sum({', '.join(parts)})"),
        several.map(lambda parts: f"max({', '.join(parts)})"),
        st.builds("({} >= {})".format, inner, positive),
        st.builds("any({}, gt={})".format, st.sampled_from(["minors", "gore"]), positive),
    )


@settings(max_examples=150)
@given(
    st.recursive(st.one_of(tag_scores, of_groups, positive), monotone, max_leaves=10),
    facts,
    st.dictionaries(st.sampled_from(TAGS), scores, min_size=1),
)
def test_raising_a_score_never_unmatches_what_only_rises(when: str, record: Facts, raised: dict[str, float]) -> None:
    tags = {tag: max(record.tags.get(tag, 0.0), raised.get(tag, 0.0)) for tag in {*record.tags, *raised}}
    rules = ruleset([{"id": "a", "severity": "red", "when": when}], mode="strict")
    if rules.judge(record).rule_id == "a":
        higher = Facts(rating=record.rating, tags=tags, detections=record.detections)
        assert rules.judge(higher).rule_id == "a"


@settings(max_examples=60)
@given(rules_of(combined(st.one_of(rising, falling))), facts, st.randoms(use_true_random=False))
def test_the_order_within_a_record_does_not_matter(rules: list[dict[str, Any]], record: Facts, random: Any) -> None:  # noqa: ANN401 - hypothesis' own Random
    def shuffled(items: Any) -> list[Any]:  # noqa: ANN401 - of tags or of detections
        mixed = list(items)
        random.shuffle(mixed)
        return mixed

    other = Facts(
        rating=dict(shuffled(record.rating.items())),
        tags=dict(shuffled(record.tags.items())),
        detections=shuffled(record.detections),
        channel_is_nsfw=record.channel_is_nsfw,
        xsignals=record.xsignals,
    )
    assert ruleset(rules).judge(other) == ruleset(rules).judge(record)


@settings(max_examples=40)
@given(
    rules_of(combined(st.one_of(rising, falling, failing))),
    st.lists(facts, max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_order_of_records_does_not_matter(rules: list[dict[str, Any]], records: list[Facts], random: Any) -> None:  # noqa: ANN401 - hypothesis' own Random
    order = random.sample(range(len(records)), len(records))
    straight, shuffled = ruleset(rules), ruleset(rules)
    verdicts: dict[int, Verdict] = {index: shuffled.judge(records[index]) for index in order}
    assert [straight.judge(record) for record in records] == [verdicts[index] for index in range(len(records))]
    assert straight.issue_counts() == shuffled.issue_counts()


@settings(max_examples=60)
@given(rules_of(combined(st.one_of(rising, falling, failing))), facts)
def test_warn_and_strict_agree_where_strict_does_not_refuse(rules: list[dict[str, Any]], record: Facts) -> None:
    source = document(rules)
    warn, strict = (load_rules(source, file="r", mode=mode) for mode in ("warn", "strict"))
    assert warn.ruleset is not None
    if strict.ruleset is None:
        assert any(issue.level == "error" for issue in strict.issues)
        assert len(warn.issues) == len(strict.issues)
        return
    verdict = strict.ruleset.judge(record)
    if not verdict.problems:
        assert verdict == warn.ruleset.judge(record)
        assert warn.ruleset.issue_counts() == {}


@settings(max_examples=20)
@given(st.lists(st.dictionaries(st.text("abc_", max_size=4), scores, max_size=5), min_size=5, max_size=20))
def test_a_tag_that_was_forgotten_is_learnt_again(records: list[dict[str, float]]) -> None:
    rules = [{"id": "a", "severity": "red", "when": "sum(named) > 0.5 or max(wild) > 0.5"}]
    groups = {"named": ["a", "ab"], "wild": ["*c", "a?"]}
    forgetful, fresh = ruleset(rules, groups=groups), ruleset(rules, groups=groups)
    forgetful._scores._MOST_TAGS = 3
    for tags in records:
        assert forgetful.judge(Facts(tags=tags)) == fresh.judge(Facts(tags=tags))


@settings(max_examples=60)
@given(rules_of(combined(st.one_of(rising, falling, failing)), stop=False), facts)
def test_a_rule_that_is_said_to_be_unmatchable_never_matches(rules: list[dict[str, Any]], record: Facts) -> None:
    untagged = Facts(
        rating={key: score for key, score in record.rating.items() if key in {"general", "explicit"}},
        detections=record.detections,
        channel_is_nsfw=record.channel_is_nsfw,
        xsignals=record.xsignals,
    )
    dead = ruleset(rules).unmatchable(Capabilities(tags=False, ratings=frozenset({"general", "explicit"})))
    for rule in rules:
        if rule["id"] in dead:
            assert not judged_alone(rule, untagged)
