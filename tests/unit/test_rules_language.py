"""Every construct of the language, by what it is worth for facts whose answer can be worked out by hand."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from modbot.rules import Facts, load_rules
from tests.rules_support import codes, document, load, matches, ruleset, value

TAGS = {"loli": 0.5, "a_child": 0.25, "the_child": 0.25, "blood": 0.75, "other": 0.9}
FACTS = Facts(
    rating={"general": 0.1, "questionable": 0.3, "explicit": 0.6, "aesthetic": 0.8},
    tags=TAGS,
    detections=[
        ("FEMALE_BREAST_EXPOSED", 0.7),
        ("FEMALE_BREAST_COVERED", 0.9),
        ("face_female", 0.8),
        ("FACE_FEMALE", 0.5),
        ("FEET_EXPOSED", 0.75),
    ],
    channel_is_nsfw=True,
    is_spoiler=False,
    attachment_count=3,
    xsignals={"exposure_score": 0.4, "nudity_area_ratio": 0.2, "nudity_box_count": 2, "placement_risk_pre": 0.9},
    known=frozenset({"banned"}),
)


@pytest.mark.parametrize(
    ("expression", "worth"),
    [
        ("1 + 2 * 3 - 4 / 2", 5),
        ("-(1 + 2) * -2", 6),
        ("+3", 3),
        ("7 / 2 / 7", 0.5),
        ("2 * 3 / 4 * 2", 3),
        ("1 < 2 < 3", 1),
        ("1 < 3 < 2", 0),
        ("1 == 1.0", 1),
        ("0.5 != 0.5", 0),
        ("2 >= 2 <= 2", 1),
        ("true + true", 2),
        ("0 or 0.25", 0.25),
        ("0.5 and 0.25", 0.25),
        ("0 and 1 / 0", 0),
        ("!0", 1),
        ("not 1 > 2", 1),
        ('"a" == "a"', 1),
        ('"a" < "b"', 1),
        ('"a" + "b" == "ab"', 1),
        ('"a || b" == "a or b"', 0),
        ('!"x"', 0),
        ('score("loli")', 0.5),
        ('score("L O L I")', 0.0),
        ('score("The Child")', 0.25),
        ('score("nothing")', 0.0),
        ('score("*_child")', 0.0),
        ("score(loli)", 0.5),
        ("score(LOLI) + score(nothing)", 0.5),
        ("score(tag=the_child)", 0.25),
        ("score(minors)", 0.0),  # a group's name is a tag's here
        ("sum(minors)", 1.0),
        ("sum(MINORS)", 1.0),
        ('sum("minors")', 1.0),
        ("sum(1, 2, 3.5)", 6.5),
        ("max(minors)", 0.5),
        ("max(none)", 0.0),
        ("max(rating.explicit)", 0.6),
        ("max(0.1, rating.explicit, 0.2)", 0.6),
        ("max(gore)", 0.75),
        ("min(0.4, 0.1)", 0.1),
        ("min(minors)", 0.0),  # shota is named, and absent
        ("min(present)", 0.5),
        ("min(by_pattern)", 0.25),
        ("min(none)", 0.0),
        ("any(minors)", 1),
        ("any(minors, gt=0.5)", 1),
        ("any(minors, gt=0.51)", 0),
        ("any(minors, 0.2)", 1),
        ("any(none, gt=0)", 0),
        ("any(absent, gt=0)", 0),
        ("any(absent, gt=-1)", 0),
        ("count(minors)", 1),
        ("count(minors, gt=0.25)", 3),
        ("count(minors, gt=0)", 3),
        ("count(absent, gt=0)", 0),
        ("topk_sum(minors, 2)", 0.75),
        ("topk_sum(minors, 2.9)", 0.75),
        ("topk_sum(minors, 9)", 1.0),
        ("topk_sum(minors, 0)", 0),
        ("topk_sum(minors, -1)", 0),
        ("topk_sum(minors, 3, 0.3)", 0.5),
        ("topk_sum(minors, k=3, gt=0.25)", 1.0),
        ("topk_sum(none, 3)", 0),
        ("clamp(5, 0, 1)", 1),
        ("clamp(-5, 0, 1)", 0),
        ("clamp(0.5, 1, 0)", 0.5),
        ("clamp(5, 1, 0)", 1),
        ("clamp(x=5, hi=2, lo=1)", 2),
        ('nude.has("FEMALE_BREAST_EXPOSED")', 1),
        ('nude.has("female_breast_exposed")', 1),
        ('nude.has("ANUS_EXPOSED")', 0),
        ("nude.has(FACE_FEMALE)", 1),
        ("nude.has(face_male)", 0),
        ('nude.any(prefix="FEMALE_BREAST")', 1),
        ('nude.any(prefix="FEMALE_BREAST", min=2)', 1),
        ('nude.any(prefix="FEMALE_BREAST", min=3)', 0),
        ('nude.any(prefix="FACE", min=2)', 0),  # one class, twice
        ('nude.any(suffix="_exposed", min=2)', 1),
        ('nude.any(prefix="FEMALE", suffix="_EXPOSED", min=2)', 0),
        ("nude.any(min=4)", 1),
        ("nude.any(min=5)", 0),
        ('nude.any(prefix="ANUS")', 0),
        ("nude.any(prefix=female_breast, min=2)", 1),
        ("nude.any(FEMALE, suffix=_exposed)", 1),
        ("rating.general", 0.1),
        ("rating.sensitive", 0.0),
        ("rating.safe", 0.0),
        ("rating.aesthetic", 0.8),
        ("channel.is_nsfw", 1),
        ("message.is_spoiler", 0),
        ("attachment_count", 3),
        ("exposure_score", 0.4),
        ("nsfw_margin", 0.0),
        ("exposure_area", 0.2),
        ("exposure_count", 2),
        ("nudity_box_count", 2),
        ("exposure_peak", 0.75),
        ("minors_sum", 1.0),
        ("minors_peak", 0.5),
        ("gore_peak + gore_sum", 1.5),
        ("violence_max + drug_score + animals_sum + animal_context_peak + dismember_peak", 0.0),
        ("metrics.minors_max", 0.5),
        ("metrics.gore_max", 0.75),
        ("metrics.placement_risk", 0.9),
        ("metrics.violence_peak", 0.0),
        ("metrics.exposure_score", 0.4),
        ("const_WD14_QUES", 0.35),
        ("const_WD14_EXPL", 0.2),
        ("const_mine", 0.125),
        ("max(const_mine)", 0.125),
        ("max(const_WD14_QUES)", 0.35),
        ("min(const_WD14_QUES)", 0.35),
        ("sum(const_WD14_QUES, const_mine)", 0.475),
    ],
)
def test_what_an_expression_is_worth(expression: str, worth: float) -> None:
    groups = {
        "minors": ["loli", "shota", "*_child", "a_*"],
        "gore": ["blood", "guro"],
        "none": [],
        "absent": ["absent"],
        "present": ["loli", "blood"],
        "by_pattern": ["*_child"],
    }
    assert value(expression, FACTS, groups=groups, thresholds={"mine": 0.125}) == pytest.approx(worth, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("violence_sum", "violence"),
        ("violence_max", "violence"),
        ("minors_peak", "minors"),
        ("gore_sum", "gore"),
        ("drug_score", "drugs"),
        ("animals_sum", "animal_subjects"),
        ("animals_peak", "animal_subjects"),
        ("animal_context_peak", "animal_contexts"),
        ("sexual_explicit_sum", "sexual_explicit"),
        ("sexual_modifier_sum", "sexual_modifiers"),
        ("dismember_peak", "dismember"),
    ],
)
def test_a_built_in_number_is_its_groups(name: str, group: str) -> None:
    facts = Facts(tags={"x": 0.4, "y": 0.3})
    assert value(name, facts, groups={group: ["x", "y"]}) == pytest.approx(0.7 if name.endswith("_sum") else 0.4)
    assert value(name, facts, groups={}) == 0.0


def test_a_quote_with_an_operator_in_it_is_not_rewritten() -> None:
    assert matches('score("rock && roll") > 0.5', Facts(tags={"rock_&&_roll": 0.6}))


def test_an_expression_may_begin_with_a_bang() -> None:
    assert matches("!channel.is_nsfw && rating.explicit > 0.5", Facts(rating={"explicit": 0.6}))
    assert not matches("!channel.is_nsfw && rating.explicit > 0.5", FACTS)


def test_a_tag_of_several_patterns_counts_once() -> None:
    assert value("sum(g)", Facts(tags={"ab": 0.5}), groups={"g": ["ab", "a*", "*b", "AB"]}) == 0.5


class TestBareNames:
    """A tag or class may stand without quotes where its name is nothing else."""

    @pytest.mark.parametrize("when", ["score(nude) > 0.5", "nude.has(FACE_FEMALE)", "nude.any(prefix=FACE)"])
    def test_it_is_read_alike_in_both_modes_and_without_a_word(self, when: str) -> None:
        for mode in ("warn", "strict"):
            loaded = load([{"id": "a", "severity": "red", "when": when}], mode=mode)
            assert loaded.issues == ()
            assert loaded.ruleset is not None
            facts = Facts(tags={"nude": 0.6}, detections=[("FACE_FEMALE", 0.9)])
            assert loaded.ruleset.judge(facts).rule_id == "a"

    @pytest.mark.parametrize("name", ["minors_peak", "earlier", "later", "const_WD14_EXPL", "attachment_count"])
    def test_a_name_that_is_a_number_stays_one_and_the_way_out_is_quotes(self, name: str) -> None:
        features = {"earlier": "1 + 1", "uses": f"score({name})", "later": "2 + 2"}
        loaded = load([{"id": "a", "severity": "red", "when": "uses > 0"}], features=features)
        assert codes(loaded) == [("R2-E001", "warning")]
        assert loaded.issues[0].hint == f'if the tag is called so, put it in quotes: `"{name}"`'
        assert load([{"id": "a", "severity": "red", "when": "uses > 0"}], features=features, mode="strict").status == (
            "error"
        )
        features["uses"] = f'score("{name}")'
        loaded = load([{"id": "a", "severity": "red", "when": "uses > 0"}], features=features, mode="strict")
        assert loaded.ruleset is not None
        assert loaded.ruleset.judge(Facts(tags={name.lower(): 0.5})).rule_id == "a"

    def test_a_feature_that_was_left_out_is_no_tag(self) -> None:
        loaded = load([{"id": "a", "severity": "red", "when": "score(lost) > 0"}], features={"lost": "1 +"})
        assert ("R2-E001", "warning") in codes(loaded)

    def test_the_name_of_a_group_is_taken_as_the_tags_and_remarked_on(self) -> None:
        for mode in ("warn", "strict"):
            loaded = load([{"id": "a", "severity": "red", "when": "score(gore) > 0.5"}], mode=mode)
            assert codes(loaded) == [("R2-E001", "warning")]
            assert loaded.ruleset is not None
            assert loaded.ruleset.judge(Facts(tags={"gore": 0.6})).rule_id == "a"
        assert load([{"id": "a", "severity": "red", "when": 'score("gore") > 0.5'}]).issues == ()

    @pytest.mark.parametrize("call", ["nude.has(FACE_FEMAL)", 'nude.has("EXPOSED_BREAST_F")', "nude.any(prefix=NOSE)"])
    def test_a_class_that_the_detector_does_not_have_is_remarked_on(self, call: str) -> None:
        loaded = load([{"id": "a", "severity": "red", "when": call}], mode="strict")
        assert codes(loaded) == [("R2-E002", "warning")]
        assert loaded.ruleset is not None
        facts = Facts(detections=[("EXPOSED_BREAST_F", 0.9), ("NOSE", 0.9), ("FACE_FEMAL", 0.9)])
        assert loaded.ruleset.judge(facts).rule_id == "a"


def test_group_names_are_normalised_like_tags() -> None:
    assert value('max("My Group") + max(my_group)', Facts(tags={"x": 0.5}), groups={"my-group": ["X"]}) == 1.0


class TestFeatures:
    def test_each_may_use_the_earlier_ones(self) -> None:
        assert value("b * 2", features={"a": "1 + 1", "b": "a + 1"}) == 6

    def test_a_truth_becomes_a_float(self) -> None:
        worth = value("1 < 2")
        assert worth == 1.0
        assert isinstance(worth, float)

    def test_one_overrides_the_built_in_of_its_name_also_in_what_is_exported(self) -> None:
        rules = ruleset(
            [{"id": "a", "severity": "red", "when": "minors_peak == 2 and metrics.minors_max == 2"}],
            features={"minors_peak": "minors_peak * 4"},
        )
        verdict = rules.judge(Facts(tags={"loli": 0.5}))
        assert verdict.rule_id == "a"
        assert verdict.features == {"minors_peak": 2.0}
        assert (verdict.signals["minors_peak"], verdict.signals["minors_max"]) == (2.0, 2.0)

    def test_a_later_one_is_not_known_yet(self) -> None:
        assert value("1", features={"a": "b + 1", "b": "5"}) == 1
        loaded = load([{"id": "a", "severity": "red", "when": "a > 0"}], features={"a": "b + 1", "b": "5"})
        assert codes(loaded) == [("R2-E002", "warning")]
        assert loaded.issues[0].hint == "a feature can only use the ones above it: move it up"

    def test_a_text_is_0(self) -> None:
        loaded = load([{"id": "a", "severity": "red", "when": "t == 0"}], features={"t": '"text"'})
        assert codes(loaded) == [("R2-E001", "warning")]
        assert loaded.ruleset is not None
        assert loaded.ruleset.judge(Facts()).features == {"t": 0.0}
        assert loaded.ruleset.issue_counts() == {"feature:t": {"type_mismatch": 1}}

    def test_an_empty_one_is_0(self) -> None:
        assert value("e == 0", features={"e": "  "}) == 1

    @pytest.mark.parametrize(
        "expression", ["1e300 * 1e300", "1e300 * 1e300 - 1e300 * 1e300", "9007199254740993 * 1e300"]
    )
    def test_one_that_is_not_finite_is_0_and_counted(self, expression: str) -> None:
        rules = ruleset([{"id": "a", "severity": "red", "when": "1 > 2"}], features={"x": f"({expression}) * 1e300"})
        assert rules.judge(Facts()).features["x"] == 0.0
        assert rules.issue_counts() == {"feature:x": {"arithmetic": 1}}


class TestWarn:
    """What cannot be evaluated is 0 where it stands, and counted."""

    @pytest.mark.parametrize(
        ("expression", "worth", "kind"),
        [
            ("nobody + 0.5", 0.5, "unknown_name"),
            ("metrics.nothing + 0.5", 0.5, "unknown_name"),
            ("known.nothing + 0.5", 0.5, "unknown_name"),
            ("channel.name + 0.5", 0.5, "unknown_name"),
            ("rating.beauty + 0.5", 0.5, "unknown_name"),
            ("1 / rating.sensitive + 0.5", 0.5, "division_by_zero"),
            ("2 * (1 / 0) + 0.5", 0.5, "division_by_zero"),
            ("max(nowhere) + 0.5", 0.5, "failing_call"),
            ("score(minors_peak) + 0.5", 0.5, "failing_call"),
            ("score(f) + 0.5", 0.5, "failing_call"),
            ("score(rating.explicit) + 0.5", 0.5, "failing_call"),
            ("score(0.5) + 0.5", 0.5, "failing_call"),
            ("score() + 0.5", 0.5, "failing_call"),
            ('score("a", "b") + 0.5', 0.5, "failing_call"),
            ("any(minors, lt=1) + 0.5", 0.5, "failing_call"),
            ("clamp(1, 2) + 0.5", 0.5, "failing_call"),
            ("sum(rating.explicit + 1) + 0.5", 0.5, "failing_call"),
            ("nude.has(attachment_count) + 0.5", 0.5, "failing_call"),
            ("nude.any(prefix=const_WD14_QUES) + 0.5", 0.5, "failing_call"),
            ("topk_sum(minors) + 0.5", 0.5, "failing_call"),
            ('(1 < "a") + 0.5', 0.5, "type_mismatch"),
            ('("a" == 1) + 0.5', 0.5, "type_mismatch"),
            ('("a" + 1) + 0.5', 0.5, "type_mismatch"),
            ('("a" * 3) + 0.5', 0.5, "type_mismatch"),
            ('-"a" + 0.5', 0.5, "type_mismatch"),
            ('max("a", 0.5)', 0.5, "type_mismatch"),
            ('("a" or 1) * 2 + 0.5', 0.5, "type_mismatch"),
            ("max(minors, 0.5)", 0.5, "failing_call"),
        ],
    )
    def test_it_is_0_in_its_place(self, expression: str, worth: float, kind: str) -> None:
        rules = ruleset([{"id": "a", "severity": "red", "when": f"({expression}) == {worth}"}], features={"f": "1 + 1"})
        verdict = rules.judge(FACTS)
        assert verdict.rule_id == "a"
        assert verdict.problems == ()
        assert rules.issue_counts() == {"a": {kind: 1}}

    def test_what_is_not_reached_is_not_counted(self) -> None:
        rules = ruleset([{"id": "a", "severity": "red", "when": "1 > 0 or nobody > 1 / 0"}])
        assert rules.judge(Facts()).rule_id == "a"
        assert rules.issue_counts() == {}

    def test_it_is_logged_five_times_a_rule_and_kind(self, caplog: pytest.LogCaptureFixture) -> None:
        rules = ruleset(
            [
                {"id": "a", "severity": "red", "when": "nobody > 1 / 0"},
                {"id": "b", "severity": "red", "when": "nobody > 1"},
            ]
        )
        with caplog.at_level(logging.WARNING, "modbot.rules"):
            for _ in range(8):
                rules.judge(Facts())
        assert rules.issue_counts() == {
            "a": {"unknown_name": 8, "division_by_zero": 8},
            "b": {"unknown_name": 8},
        }
        assert len(caplog.records) == 15
        assert caplog.messages[0] == "rules.yaml:1: a: nothing is called `nobody`; counted as 0"

    def test_what_is_logged_says_what_strict_makes_of_it(self, caplog: pytest.LogCaptureFixture) -> None:
        rules = ruleset([{"id": "a", "severity": "red", "when": "1 / rating.explicit > 2"}], mode="strict")
        with caplog.at_level(logging.WARNING, "modbot.rules"):
            assert rules.judge(Facts()).problems
        assert caplog.messages == ["rules.yaml:1: a: division by zero; such a record is never green"]

    def test_what_is_logged_moves_no_cursor(self, caplog: pytest.LogCaptureFixture) -> None:
        rules = ruleset([{"id": "a\x1b[2J", "severity": "red", "when": "nobody"}])
        with caplog.at_level(logging.WARNING, "modbot.rules"):
            rules.judge(Facts())
        assert caplog.messages == ["rules.yaml:1: a\ufffd[2J: nothing is called `nobody`; counted as 0"]

    def test_a_calculation_without_a_finite_result_is_no_match(self) -> None:
        huge = " * ".join(["9007199254740991"] * 40)
        rules = ruleset([{"id": "a", "severity": "red", "when": f"{huge} / 3 > 0"}])
        assert rules.judge(Facts()).rule_id is None
        assert rules.issue_counts() == {"a": {"arithmetic": 1}}


class TestStrict:
    @pytest.mark.parametrize("when", ["1 / rating.explicit > 0", "rating.beauty > 0"])
    def test_what_shows_at_evaluation_is_a_problem_that_names_the_rule(self, when: str) -> None:
        rules = ruleset(
            [{"id": "a", "severity": "red", "when": when}, {"id": "b", "severity": "yellow", "when": "1 > 0"}],
            mode="strict",
        )
        verdict = rules.judge(Facts())
        assert verdict.rule_id == "b"
        assert len(verdict.problems) == 1
        assert verdict.problems[0].startswith("a: ")
        assert verdict.problems[0].endswith("(rules.yaml:1)")
        fine = rules.judge(Facts(rating={"explicit": 0.5, "beauty": 0.5}))
        assert (fine.rule_id, fine.problems) == ("a", ())

    def test_a_broken_feature_is_0_and_a_problem(self) -> None:
        rules = ruleset(
            [{"id": "a", "severity": "red", "when": "f == 0"}], mode="strict", features={"f": "1 / rating.explicit"}
        )
        verdict = rules.judge(Facts())
        assert verdict.rule_id == "a"
        assert verdict.problems == ("feature:f: division by zero (rules.yaml:1)",)

    def test_a_broken_reason_is_left_out_and_a_problem(self) -> None:
        rule = {"id": "a", "severity": "red", "when": "1 > 0", "reasons": ["{1 / rating.explicit}", "fine"]}
        verdict = ruleset([rule], mode="strict").judge(Facts())
        assert verdict.reasons == ["fine"]
        assert len(verdict.problems) == 1


def rule(id_: str, severity: str, when: str = "1 > 0", **more: object) -> dict[str, Any]:
    return {"id": id_, "severity": severity, "when": when, **more}


class TestWinner:
    @pytest.mark.parametrize(
        ("rules", "winner"),
        [
            ([rule("a", "yellow"), rule("b", "red"), rule("c", "orange")], "b"),
            ([rule("a", "green"), rule("b", "yellow")], "b"),
            ([rule("a", "orange", priority=99), rule("b", "red", priority=-5)], "b"),
            ([rule("a", "red"), rule("b", "red", priority=1)], "b"),
            ([rule("a", "red", priority=-1), rule("b", "red")], "b"),
            ([rule("a", "red"), rule("b", "red")], "a"),
            ([rule("a", "red", "1 < 0"), rule("b", "yellow")], "b"),
            ([rule("a", "yellow", stop=True), rule("b", "red")], "a"),
            ([rule("a", "orange"), rule("b", "yellow", stop=True), rule("c", "red")], "a"),
            ([rule("a", "yellow", "1 < 0", stop=True), rule("b", "red")], "b"),
            ([rule("a", "red", "1 < 0")], None),
            ([rule("a", "green")], "a"),
        ],
    )
    def test_the_most_severe_then_the_priority_then_the_file(
        self, rules: list[dict[str, Any]], winner: str | None
    ) -> None:
        assert ruleset(rules).judge(Facts()).rule_id == winner

    def test_no_match_is_the_default(self) -> None:
        verdict = ruleset([rule("a", "red", "1 < 0")]).judge(Facts())
        assert (verdict.severity, verdict.rule_id, verdict.rule_title, verdict.reasons) == ("green", None, None, [])
        assert (verdict.origin, verdict.priority) == ("default", None)

    def test_a_match_brings_its_title_and_priority(self) -> None:
        rules = ruleset([rule("a", "red", priority=7)], rule_titles={"a": "題 / Title"})
        verdict = rules.judge(Facts())
        assert (verdict.severity, verdict.rule_title, verdict.priority, verdict.origin) == (
            "red",
            "題 / Title",
            7,
            "dsl",
        )


class TestReasons:
    @pytest.mark.parametrize(
        ("reason", "told"),
        [
            ("plain", "plain"),
            ("{rating.explicit}", "0.6"),
            ("e {rating.explicit:.2f}!", "e 0.60!"),
            ("{rating.explicit:.0%}", "60%"),
            ("{ max(minors) + 1 :.1f}", "1.5"),
            ("{{{rating.explicit}}} {{}}", "{0.6} {}"),
            ("{rating.explicit:d}", "0.6"),
            ("{rating.explicit:nonsense}", "0.6"),
            ("{rating.explicit:999999999}", "0.6"),
            ("{count(minors):99999999d}", "1"),
            ("{count(minors):>+#099999999d}", "1"),
            ("{rating.explicit:.99999999g}", "0.6"),
            ("{rating.explicit:\u0663\u0663\u0663\u0663}", "0.6"),
            ("{rating.explicit:__class__}", "0.6"),
            ("{rating.explicit:%Y}", "0.6"),
            ("{rating.explicit:99}", "0.6".rjust(99)),
            ("{count(minors):c}", "1"),
            ("{count(minors):n}", "1"),
            ("{rating.explicit:{{}}}", "0.6}"),
            ("{rating.explicit:.999999999f}", "0.6"),
            ("{55296:c}", "55296"),
            ("{count(minors):03d}", "001"),
            ("{1 < 2}", "True"),
            ("{rating.explicit!r}", "0.6"),
            ('{"あ"!r:>5}', "  'あ'"),
            ('{"あ":>3}', "  あ"),
            ('{"a:b"}', "a:b"),
            ('{"}"}', "}"),
            ("{'{x}' + '!'}", "{x}!"),
            ('{score("a:b"):.1f}', "0.3"),
            ("{!channel.is_nsfw}", "False"),
            ("{1 != 2 and !0}", "True"),
            ("{max(0.1, (0.2)):.1f}", "0.2"),
        ],
    )
    def test_a_placeholder_is_filled(self, reason: str, told: str) -> None:
        rules = ruleset([rule("a", "red", reasons=[reason])], mode="strict")
        facts = Facts(rating={"explicit": 0.6}, tags={"loli": 0.5, "a:b": 0.3}, channel_is_nsfw=True)
        assert rules.judge(facts).reasons == [told]

    @pytest.mark.parametrize(
        "reason",
        [
            "{",
            "}",
            "{}",
            "{ }",
            "{!r}",
            "{1 +}",
            "{nobody}",
            "{max(nowhere)}",
            "{foo(1)}",
            "{1!x}",
            "{1!r",
            '{"a}',
            "{a ** b}",
            "{0[a]}",
            "{rating.explicit.real}",
            "{rating.explicit:{count(minors)}}",
        ],
    )
    def test_a_bad_placeholder_drops_that_reason_alone(self, reason: str) -> None:
        loaded = load([rule("a", "red", reasons=[reason, "stays"])])
        assert codes(loaded) == [("R2-P001", "warning")]
        assert loaded.status == "ok"
        assert loaded.ruleset is not None
        assert loaded.ruleset.judge(Facts()).reasons == ["stays"]
        assert load([rule("a", "red", reasons=[reason])], mode="strict").status == "error"

    @pytest.mark.parametrize("reasons", [[], ["{nobody}"], None])
    def test_with_no_reason_left_it_is_the_rules_id(self, reasons: list[str] | None) -> None:
        assert ruleset([rule("a", "red", reasons=reasons)]).judge(Facts()).reasons == ["a"]

    def test_however_wide_a_reason_is_it_is_bounded(self) -> None:
        huge = " * ".join(["9007199254740991"] * 100)
        reasons = ["{1e300:099.99f}" * 250, "{1:>99}" * 500, f"{{{huge}}}", f"{{{huge}:.99e}}", "{'a' + 'b':99}"]
        verdict = ruleset([rule("a", "red", reasons=reasons)]).judge(Facts())
        assert verdict.reasons[0].startswith("1000000000")
        assert max(map(len, verdict.reasons)) < 110_000

    def test_of_more_reasons_than_anyone_reads_the_rest_are_left_out(self) -> None:
        loaded = load([rule("a", "red", reasons=["x"] * 60)])
        assert codes(loaded) == [("R2-P001", "warning")]
        assert loaded.ruleset is not None
        assert loaded.ruleset.judge(Facts()).reasons == ["x"] * 50
        assert load([rule("a", "red", reasons=["x"] * 60)], mode="strict").status == "error"

    def test_a_failure_in_a_reason_is_0_and_counted(self) -> None:
        rules = ruleset([rule("a", "red", reasons=["x {1 / rating.explicit}"])])
        assert rules.judge(Facts()).reasons == ["x 0"]
        assert rules.issue_counts() == {"a": {"division_by_zero": 1}}


class TestKnownAndConstants:
    def test_a_list_that_is_loaded_can_be_asked(self) -> None:
        source = document([rule("a", "red", "known.banned == 1")])
        loaded = load_rules(source, file="r", lists=["banned"], mode="strict")
        assert loaded.ruleset is not None
        assert loaded.ruleset.judge(FACTS).rule_id == "a"
        assert loaded.ruleset.judge(Facts()).rule_id is None

    def test_a_constant_given_wins_over_the_files(self) -> None:
        source = document([rule("a", "red", "const_T == 3 and const_WD14_QUES == 9")], thresholds={"T": 2})
        loaded = load_rules(source, file="r", consts={"T": 3.0, "WD14_QUES": 9.0}, mode="strict")
        assert loaded.ruleset is not None
        assert loaded.ruleset.judge(Facts()).rule_id == "a"

    def test_thresholds_have_the_gates_defaults(self) -> None:
        rules = ruleset([rule("a", "red")], thresholds={"wd14_explicit": 0.3, "mine": 5})
        assert rules.thresholds == {"wd14_questionable": 0.35, "wd14_explicit": 0.3, "mine": 5.0}


def test_signals_are_exported_by_their_names_and_aliases() -> None:
    signals = ruleset([rule("a", "red")]).judge(FACTS).signals
    assert signals["minors_peak"] == signals["minors_max"] == 0.5
    assert signals["gore_peak"] == signals["gore_max"] == 0.75
    assert signals["violence_peak"] == signals["violence_max"] == 0.0
    assert signals["placement_risk"] == signals["placement_risk_pre"] == 0.9
    assert signals["nudity_box_count"] == signals["exposure_count"] == 2
    assert all(math.isfinite(number) for number in signals.values())


def test_a_sum_does_not_depend_on_the_order_of_the_tags() -> None:
    tags = {f"t{i}": 0.1 * i + 1e-9 for i in range(30)}
    group = {"g": ["t*"]}
    there = value("sum(g)", Facts(tags=tags), groups=group)
    back = value("sum(g)", Facts(tags=dict(reversed(tags.items()))), groups=group)
    assert there == back
