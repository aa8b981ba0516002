from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.errors import RulesError
from modbot.rules import Facts, Mode, RuleSet, file_mode, load_rules, load_vocabulary, render, unreadable
from modbot.rules.compile import Program
from modbot.rules.issues import MESSAGE_LENGTH, Source, Span, display_width, draw
from tests.rules_support import codes, document, load

SOURCE = Path(__file__).parents[2]
GOOD = {"id": "good", "severity": "red", "when": "1 > 0"}


def test_a_good_file_is_ok_in_both_modes() -> None:
    for mode in ("warn", "strict"):
        loaded = load([GOOD], mode=mode)
        assert (loaded.status, loaded.issues, loaded.legacy, loaded.mode) == ("ok", (), False, mode)
        assert loaded.digest == hashlib.sha256(document([GOOD])).hexdigest()


@pytest.mark.parametrize(
    ("dsl_mode", "asked", "used"),
    [
        (None, None, "warn"),
        ("strict", None, "strict"),
        ("warn", None, "warn"),
        ("strict", "warn", "warn"),
        ("warn", "strict", "strict"),
        ("nonsense", None, "warn"),
        (True, None, "warn"),
        (["strict"], None, "warn"),
    ],
)
def test_the_mode_asked_for_wins_over_the_files(dsl_mode: Any, asked: Mode | None, used: Mode) -> None:  # noqa: ANN401 - YAML
    source = document([GOOD], **({} if dsl_mode is None else {"dsl_mode": dsl_mode}))
    assert load_rules(source, file="r", mode=asked).mode == used
    assert file_mode(source) == (dsl_mode if dsl_mode in ("warn", "strict") else None)


@pytest.mark.parametrize("source", [b"", b"\xff", b"[", b"- a", b"a: b: c"])
def test_a_file_without_a_mode_has_none(source: bytes) -> None:
    assert file_mode(source) is None


@pytest.mark.parametrize("version", [b"1", b"3", b'"2"', b"2.0", b"true", b"null", b"[2]", b"0x"])
def test_another_version_is_legacy(version: bytes) -> None:
    loaded = load_rules(b"version: " + version + b"\nrules: []\n", file="r")
    assert (loaded.status, loaded.legacy, loaded.ruleset) == ("error", True, None)
    assert codes(loaded) == [("R2-V001", "error")]


def test_what_is_left_out_makes_it_invalid_in_warn_and_an_error_in_strict() -> None:
    bad = {"id": "bad", "severity": "red", "when": "1 +"}
    loaded = load([GOOD, bad])
    assert loaded.status == "invalid"
    assert loaded.ruleset is not None
    assert [rule.id for rule in loaded.ruleset.rules] == ["good"]
    strict = load([GOOD, bad], mode="strict")
    assert (strict.status, strict.ruleset) == ("error", None)


@pytest.mark.parametrize(
    ("rules", "top", "code", "in_warn", "in_strict"),
    [
        ([GOOD], {"more": 1}, "R2-K001", "ok", "error"),
        ([{**GOOD, "more": 1}], {}, "R2-K001", "ok", "error"),
        ([GOOD], {"rule_titles": {"good": "t", "x": 5}}, "R2-T000", "ok", "error"),
        ([GOOD], {"rule_titles": {}}, "R2-T001", "ok", "ok"),
        ([{**GOOD, "priority": "high"}], {}, "R2-V001", "ok", "ok"),
        ([{**GOOD, "priority": 1.5}], {}, "R2-V001", "ok", "ok"),
        ([{**GOOD, "priority": True}], {}, "R2-V001", "ok", "ok"),
        ([{**GOOD, "stop": 1}], {}, "R2-V001", "ok", "error"),
        ([{**GOOD, "reasons": ["{nobody}"]}], {}, "R2-P001", "ok", "error"),
        ([{**GOOD, "when": "nobody > 1"}], {}, "R2-E002", "ok", "error"),
        ([{**GOOD, "when": "max(nowhere) > 1"}], {}, "R2-G001", "ok", "error"),
        ([{**GOOD, "when": "score() > 1"}], {}, "R2-E001", "ok", "error"),
        ([{**GOOD, "when": '"a" > 1'}], {}, "R2-E001", "ok", "error"),
        ([GOOD, GOOD], {}, "R2-D001", "invalid", "error"),
        ([GOOD, {"id": "x"}], {"rule_titles": {"good": "t"}}, "R2-V001", "invalid", "error"),
        ([GOOD], {"groups": {"g": "text"}}, "R2-G001", "invalid", "error"),
        ([GOOD], {"features": {"f": 1}}, "R2-E001", "invalid", "error"),
        ([GOOD], {"features": {"f": "import os"}}, "R2-E001", "invalid", "error"),
        ([GOOD], {"features": []}, "R2-V001", "invalid", "error"),
        ([GOOD], {"thresholds": {"x": "high"}}, "R2-V001", "ok", "error"),
        ([GOOD], {"tests": {}}, "R2-V001", "ok", "error"),
        ([], {}, "R2-V001", "ok", "error"),
    ],
)
def test_each_code_and_what_it_does(
    rules: list[dict[str, Any]], top: dict[str, Any], code: str, in_warn: str, in_strict: str
) -> None:
    warn, strict = load(rules, **top), load(rules, mode="strict", **top)
    assert {issue.code for issue in warn.issues} == {issue.code for issue in strict.issues} == {code}
    assert (warn.status, strict.status) == (in_warn, in_strict)
    assert (warn.ruleset is None, strict.ruleset is None) == (False, in_strict == "error")


def test_tests_are_a_known_key() -> None:
    case = {"name": "x", "record": {"rating": {"explicit": 0.9}}, "expect": {"severity": "green"}}
    assert load([GOOD], tests=[case], mode="strict").status == "ok"


def test_a_rule_that_uses_a_feature_that_was_left_out_is_left_out() -> None:
    uses = {"id": "uses", "severity": "red", "when": "through > 1 or 1 > 0"}
    loaded = load([GOOD, uses], features={"lost": "1 +", "through": "lost + 1"})
    assert sorted(codes(loaded)) == [("R2-E001", "error"), ("R2-E002", "error"), ("R2-E002", "error")]
    assert loaded.ruleset is not None
    assert [rule.id for rule in loaded.ruleset.rules] == ["good"]


def test_a_feature_that_was_left_out_does_not_fall_back_to_the_built_in() -> None:
    uses = {"id": "uses", "severity": "red", "when": "minors_peak > 0"}
    loaded = load([GOOD, uses], features={"minors_peak": "max(minors"})
    assert loaded.ruleset is not None
    assert [rule.id for rule in loaded.ruleset.rules] == ["good"]


def test_the_first_of_two_ids_stays() -> None:
    loaded = load([{**GOOD, "severity": "yellow"}, GOOD])
    assert loaded.ruleset is not None
    assert [rule.severity for rule in loaded.ruleset.rules] == ["yellow"]
    assert loaded.issues[0].related[0].message == "the first one"


def test_no_rule_left_is_an_error_even_in_warn() -> None:
    loaded = load([{"id": "a", "severity": "red", "when": "1 +"}])
    assert (loaded.status, loaded.ruleset) == ("error", None)


def test_of_a_key_that_stands_twice_the_last_counts_as_it_always_did() -> None:
    groups = b"groups:\n  g: [x]\n  g: [y]\n"
    source = b"version: 2\nrule_titles: {a: t}\n" + groups + b"rules: [{id: a, severity: red, when: max(g) > 0}]"
    loaded = load_rules(source, file="r")
    assert loaded.status == "invalid"
    assert loaded.ruleset is not None
    assert loaded.ruleset.judge(Facts(tags={"y": 1.0})).rule_id == "a"
    assert loaded.ruleset.judge(Facts(tags={"x": 1.0})).rule_id is None


def test_anchors_and_merges_work() -> None:
    source = b"""
version: 2
rule_titles: {a: t, b: t}
groups: {g: &tags [x, y], h: *tags}
rules:
  - &base {id: a, severity: red, when: max(h) > 0.5, priority: 3}
  - {<<: *base, id: b, severity: yellow}
"""
    loaded = load_rules(source, file="r", mode="strict")
    assert loaded.status == "ok"
    assert loaded.ruleset is not None
    assert [(r.id, r.severity, r.priority) for r in loaded.ruleset.rules] == [("a", "red", 3), ("b", "yellow", 3)]


def test_a_place_is_a_line_and_columns_in_characters() -> None:
    source = "version: 2\nrule_titles: {規則: 題}\nrules:\n  - {id: 規則, severity: red, when: 知らない > 1}\n"
    issue = load_rules(source.encode(), file="r").issues[0]
    assert (issue.line, issue.column, issue.end_line, issue.end_column) == (4, 35, 4, 39)
    assert issue.excerpt.split("\n")[1] == " " * 36 + "^" * 8


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_change_no_place(newline: str, mark: str) -> None:
    head = "version: 2\nrule_titles: {a: t}\nrules:\n  - id: a\n    severity: red\n"
    text = f"{head}    when: |\n      1 > 0\n      or nobody > 1\n"
    issue = load_rules((mark + text.replace("\n", newline)).encode(), file="r").issues[0]
    assert (issue.line, issue.column, issue.end_column) == (8, 10, 16)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20))
def test_a_name_is_found_in_a_scalar_of_any_style(before: str) -> None:
    """Whatever stands before it in quotes, the unknown name is marked where it stands."""
    quoted = before.replace("\\", "\\\\").replace('"', '\\"')
    expression = f'"{quoted}" == "x" or nobody > 1'
    double = expression.replace("\\", "\\\\").replace('"', '\\"')
    for scalar in (f'"{double}"', "'" + expression.replace("'", "''") + "'", f"|\n      {expression}"):
        source = f"version: 2\nrule_titles: {{a: t}}\nrules:\n  - id: a\n    severity: red\n    when: {scalar}\n"
        loaded = load_rules(source.encode(), file="r")
        if any(issue.code == "R2-YAML" for issue in loaded.issues):
            continue  # a character that YAML does not allow
        issue = loaded.issues[0]
        assert issue.code == "R2-E002"
        line = source.split("\n")[issue.line - 1]
        assert line[issue.column - 1 : issue.end_column - 1] == "nobody"


class TestHostileFiles:
    @pytest.mark.parametrize(
        "source",
        [
            b"",
            b"\x00",
            b"\xff\xfe",
            b"a: \xf0\x28\x8c\x28",
            b"[" * 100_000,
            b"[" * 9_000 + b"]" * 9_000,
            b"- " * 9_000,
            b"a: &a [*a]\nversion: 2\nrules: *a",
            b"version: 2\nrules: &r\n  - *r\n",
            b"version: 2\n<<: &m {<<: *m}\nrules: []",
            b"version: 2\n<<: 5\nrules: []",
            b"version: 2\nrules: !!python/object/apply:os.system ['true']",
            b"version: !!int x\nrules: []",
            b"version: !!int ''\nrules: []",
            b"version: 2\nthresholds: {x: 1" + b":1" * 300 + b".5}\nrules: []",
            b"version: 2\nthresholds: {x: 1" + b":1" * 1_000_000 + b"}\nrules: []",
            b"version: 2\n? [a, b]\n: c\nrules: []",
            b"version: 2\nrules: [{id: !!binary aGk=, severity: red, when: 1}]",
            b"version: 2\nrules: [{id: a, severity: red, when: '1 > 0', priority: !!int q}]",
            b"version: " + b"9" * 10_000 + b"\nrules: []",
            b"version: 2\nthresholds: {x: " + b"9" * 4_000 + b"}\nrules: []",
            b'version: 2\nrules: [{id: "\\ud800", severity: red, when: "1 > 0"}]',
            b"%YAML 9.9\n---\nversion: 2\nrules: []",
            b"*nobody",
            b"a: b\n\tc: d",
            b"#" * (2 * 1024 * 1024 + 1),
        ],
    )
    def test_it_is_told_about_and_never_raised(self, source: bytes) -> None:
        started = time.perf_counter()
        loaded = load_rules(source, file="r")
        assert time.perf_counter() - started < 5
        assert loaded.issues
        assert render(loaded.issues).encode()

    @pytest.mark.parametrize(
        "rules",
        [
            [
                {"id": f"r{i}", "severity": "red", "when": "||".join(f"nobody{i}" for _ in range(500))}
                for i in range(100)
            ],
            [{"id": "a", "severity": "red", "when": "1 > 0", "reasons": ["{nobody}" * 200] * 1000}],
            [{"id": "a", "severity": "red", "when": "1 > 0", "reasons": ["{1}" * 300_000]}],
            [{"id": "a", "severity": "red", "when": "a" * 1_000_000}],
            [{"id": "a", "severity": "red", "when": "a" * 15_000}],
            [{"id": f"r{i}", "severity": "red"} for i in range(20_000)],
        ],
    )
    def test_a_file_full_of_mistakes_is_given_up_soon(self, rules: list[dict[str, Any]]) -> None:
        source = document(rules)
        started = time.process_time()
        loaded = load_rules(source, file="r")
        assert time.process_time() - started < 10
        assert 0 < len(loaded.issues) <= 2_000
        assert all(len(issue.message) <= MESSAGE_LENGTH + 1 and len(issue.excerpt) < 1_000 for issue in loaded.issues)

    @pytest.mark.parametrize("call", ["count(minors)", "topk_sum(gore, 2)", "nude.any(prefix=FACE)"])
    def test_what_looks_at_each_tag_may_stand_so_often_and_no_oftener(self, call: str) -> None:
        whens = [" or ".join([call] * 500)] * 5
        rules = [{"id": f"r{number}", "severity": "red", "when": when} for number, when in enumerate(whens)]
        loaded = load(rules)
        assert (loaded.status, codes(loaded)) == ("error", [("R2-E001", "error")])
        assert load(rules[:4]).status == "ok"

    def test_as_many_rules_run_as_a_file_can_hold(self) -> None:
        rules = load([{"id": f"r{i}", "severity": "red", "when": "rating.explicit > 0.5"} for i in range(15_000)])
        assert rules.ruleset is not None
        assert rules.ruleset.judge(Facts(rating={"explicit": 0.9})).matched == (1 << 15_000) - 1

    def test_scores_beyond_reason_do_not_stop_the_judge(self) -> None:
        rules = load([{**GOOD, "when": "topk_sum(minors, 1e300 * 1e300 - 1e300 * 1e300) > 1 or minors_sum > 1"}])
        assert rules.ruleset is not None
        verdict = rules.ruleset.judge(Facts(tags={"loli": 1.7e308, "shota": 1.7e308}))
        assert verdict.signals["minors_sum"] > 1e308
        assert rules.ruleset.issue_counts() == {"good": {"arithmetic": 1}}

    def test_aliases_do_not_multiply(self) -> None:
        lines = ["version: 2", "x0: &x0 {a: b}"]
        lines += [f"x{i}: &x{i} {{<<: [{', '.join([f'*x{i - 1}'] * 9)}]}}" for i in range(1, 12)]
        lines += ["<<: *x11", "rules: []"]
        started = time.perf_counter()
        assert load_rules("\n".join(lines).encode(), file="r").issues
        assert time.perf_counter() - started < 5

    @given(st.binary(max_size=200))
    def test_any_bytes(self, source: bytes) -> None:
        assert load_rules(source, file="r").status == "error"

    @given(st.text("{}!:\"'arng.()<>0.5é", max_size=30))
    def test_any_reason(self, reason: str) -> None:
        loaded = load([{**GOOD, "reasons": [reason]}])
        assert loaded.ruleset is not None
        assert loaded.ruleset.judge(Facts()).reasons

    @given(st.text("abmaxinors ._()!&|<>=+-*/,\"'01e", max_size=40))
    def test_any_expression_judges_or_is_told_about(self, expression: str) -> None:
        loaded = load([GOOD, {"id": "b", "severity": "red", "when": expression}], features={"a": expression})
        assert loaded.ruleset is not None
        assert loaded.ruleset.judge(Facts(tags={"loli": 0.5})).severity == "red"

    def test_attributes_of_python_objects_cannot_be_reached(self) -> None:
        for when in (
            "rating.__class__ > 1",
            "rating.get('x') > 1",
            "known.union > 1",
            "metrics.mro > 1",
            "tags.get > 1",
        ):
            loaded = load([GOOD, {"id": "b", "severity": "red", "when": when}], mode="strict")
            assert loaded.status == "error", when


class TestVocabulary:
    def test_groups_and_thresholds_of_any_version(self) -> None:
        source = (
            b"version: 1\ngroups: {NSFW-General: [Nude, 'cum *']}\nthresholds: {wd14_explicit: 0.3}\nrules: whatever"
        )
        vocabulary = load_vocabulary(source, file="r")
        assert vocabulary.groups["nsfw_general"].items == ("nude", "cum_*")
        assert vocabulary.thresholds == {"wd14_questionable": 0.35, "wd14_explicit": 0.3}

    def test_the_digest_is_of_the_groups_alone(self) -> None:
        def digest(text: str) -> str:
            return load_vocabulary(text.encode(), file="r").digest

        one = digest("groups: {a: [x, y], b: []}")
        assert one == digest("version: 2\ngroups: {b: [], A: [Y, x]}\nrules: []")
        assert one != digest("groups: {a: [x], b: []}")
        assert one != digest("groups: {a: [x, y], c: []}")

    def test_a_file_without_groups_has_none(self) -> None:
        assert load_vocabulary(b"version: 2", file="r").groups == {}

    @pytest.mark.parametrize("source", [b"a: [", b"\xff", b"- a", b"", b"text"])
    def test_what_is_no_map_is_refused_by_name(self, source: bytes) -> None:
        with pytest.raises(RulesError, match=r"rules\.yaml") as refused:
            load_vocabulary(source, file="rules.yaml")
        assert refused.value.remedy


def test_a_file_that_cannot_be_read_is_told_about_the_same_way() -> None:
    loaded = unreadable("rules.yaml", "No such file or directory")
    assert (loaded.status, loaded.ruleset, codes(loaded)) == ("error", None, [("R2-IO", "error")])
    assert "cannot be read: No such file or directory" in render(loaded.issues)


def test_thousands_of_rules_without_a_title_run_and_are_told_in_short() -> None:
    rules = "".join(f'  - {{id: R{number}, severity: red, when: "1 > 2"}}\n' for number in range(2_500))
    loaded = load_rules(f"version: 2\nrules:\n{rules}".encode(), file="rules.yaml")
    assert loaded.status == "ok"
    assert loaded.ruleset is not None
    assert len(loaded.ruleset.rules) == 2_500
    assert codes(loaded) == [("R2-T001", "warning")] * 200
    assert "… and 2300 more warnings like these" in render(loaded.issues)


def test_a_file_with_thousands_of_errors_is_given_up() -> None:
    rules = "".join(f'  - {{id: R{number}, severity: red, when: "1 >"}}\n' for number in range(2_500))
    loaded = load_rules(f"version: 2\nrules:\n{rules}".encode(), file="rules.yaml")
    assert (loaded.status, loaded.ruleset) == ("error", None)
    assert "more than 2000 things are wrong with the file" in render(loaded.issues)


class TestOnlyCheckedRulesJudge:
    def test_a_rule_set_cannot_be_made(self) -> None:
        program = Program(groups={}, features=(), rules=(), signals={})
        with pytest.raises(TypeError, match="abstract"):
            RuleSet(program, (), mode="warn", file="r", thresholds={})  # type: ignore[abstract] # the point

    def test_the_one_that_can_be_made_is_private_to_the_check(self) -> None:
        made = load([GOOD]).ruleset
        assert made is not None
        assert RuleSet.__subclasses__() == [type(made)]
        assert type(made).__module__ == "modbot.rules.load"
        assert type(made).__name__.startswith("_")
        uses = [
            path.relative_to(SOURCE).as_posix()
            for folder in ("src", "app", "scripts", "tools", "bench", "samples", "tests")
            for path in (SOURCE / folder).rglob("*.py")
            if type(made).__name__ in path.read_text(encoding="utf-8")
        ]
        assert uses == ["src/modbot/rules/load.py"]


class TestDrawing:
    @pytest.mark.parametrize(
        ("text", "width"), [("abc", 3), ("あい", 4), ("ｱ", 1), ("e\u0301", 1), ("が", 2), ("か\u3099", 2), ("", 0)]
    )
    def test_width_is_a_terminals(self, text: str, width: int) -> None:
        assert display_width(text) == width

    def test_a_mark_stands_under_its_text_whatever_its_width(self) -> None:
        assert draw("あe\u0301い x", 3, 4) == "あe\u0301い x\n   ^^"
        assert draw("\tx", 1, 2) == "    x\n    ^"

    def test_nothing_moves_the_cursor(self) -> None:
        assert draw("a\x1b[31m\u202eb", 7, 8) == "a�[31m�b\n       ^"

    @given(st.text(max_size=400), st.integers(0, 400), st.integers(0, 400))
    def test_any_span_of_any_text_can_be_drawn(self, text: str, start: int, length: int) -> None:
        excerpt = Source("f", text).excerpt(Span(min(start, len(text)), min(start + length, len(text))))
        above, below = excerpt.split("\n")
        assert set(below) <= {" ", "^"}
        assert below.endswith("^")
        assert len(above) <= 410
