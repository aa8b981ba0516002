"""What must hold of the rules language whatever it is given.

`tests/unit/test_rules_fuzz.py` checks it for inputs of its own and for those in `found/`, `tests/fuzz/guided.py` looks
for more of these.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modbot.errors import RulesError
from modbot.rules import Facts, Mode, RuleSet, load_rules, load_vocabulary, render
from modbot.rules.explain import explain
from modbot.rules.issues import MESSAGE_LENGTH
from modbot.rules.syntax import Expression, ExpressionError, parse, unparse

FOUND = Path(__file__).parent / "found"
GOLDEN = Path(__file__).parents[1] / "golden" / "rules"

TEMPLATE: dict[str, Any] = {
    "version": 2,
    "rule_titles": {"a": "A", "b": "B"},
    "groups": {"minors": ["loli", "*_child", "[ab]?"], "gore": ["blood"], "none": []},
    "thresholds": {"mine": 0.5},
}
FACTS = (
    Facts(),
    Facts(
        rating={"general": 0.1, "questionable": 0.3, "explicit": 0.6, "beauty": 0.9},
        tags={"loli": 0.5, "a_child": 0.25, "blood": 0.75, "other": 0.9, "a1": 1.0},
        detections=[("FEMALE_BREAST_EXPOSED", 0.7), ("face_female", 0.8)],
        channel_is_nsfw=True,
        attachment_count=3,
        xsignals={"exposure_score": 0.4, "nudity_box_count": 2},
        known=frozenset({"banned"}),
    ),
    Facts(
        rating={"explicit": 1.7e308, "general": -1.7e308},
        tags={"loli": 1.7e308, "b_child": 1.7e308, "blood": 5e-324},
        attachment_count=10**300,
        is_spoiler=True,
    ),
)
LONGEST_REASON = 200_000


def check_expression(text: str) -> None:
    """Parsing, rendering, and judging by an expression that stands wherever one may."""
    tree = _parsed(text)
    assert 0 <= tree.span.start <= tree.span.end <= len(text)
    assert isinstance(tree, ExpressionError) or parse(unparse(tree)) == tree
    rule = {"id": "a", "severity": "red", "when": text, "reasons": [text, f"{{{text}}}", f"{{{text}:.2f}}"]}
    fine = {"id": "b", "severity": "yellow", "when": "x > 0 or 1 > 0", "reasons": ["{x:.3f}"]}
    check_file(json.dumps({**TEMPLATE, "features": {"x": text, "y": "x + 1"}, "rules": [rule, fine]}).encode())


def check_file(source: bytes) -> None:
    """Loading a file in both modes, and judging by what of it can run."""
    rulesets = {mode: _checked(source, mode) for mode in ("warn", "strict")}
    with contextlib.suppress(RulesError):
        load_vocabulary(source, file="rules.yaml")
    warn, strict = rulesets["warn"], rulesets["strict"]
    if warn is None:
        assert strict is None
        return
    for facts in FACTS:
        verdict = warn.judge(facts)
        numbers = (*verdict.features.values(), *verdict.signals.values())
        assert all(math.isfinite(number) for number in numbers)
        assert verdict.problems == ()
        assert sum(map(len, verdict.reasons)) < LONGEST_REASON
        assert explain(warn, facts).verdict == verdict
        if strict is None:
            continue
        refused_or_same = strict.judge(facts)
        assert refused_or_same.problems or refused_or_same == verdict


def _parsed(text: str) -> Expression | ExpressionError:
    try:
        return parse(text)
    except ExpressionError as refused:
        return refused


def _checked(source: bytes, mode: Mode) -> RuleSet | None:
    loaded = load_rules(source, file="rules.yaml", mode=mode, lists=["banned"])
    assert (loaded.ruleset is None) == (loaded.status == "error")
    assert loaded.issues or loaded.status == "ok"
    for issue in loaded.issues:
        assert len(issue.message) <= MESSAGE_LENGTH + 1
        assert 1 <= issue.line <= issue.end_line
        assert issue.column >= 1
        assert issue.excerpt.count("\n") == 1
    assert render(loaded.issues).replace("\n", "").replace("\u3000", "").isprintable()
    return loaded.ruleset


CHECKS: tuple[Callable[[bytes], None], ...] = (
    lambda data: check_expression(data.decode(errors="replace")),
    check_file,
)


def check(data: bytes) -> None:
    """One input: its first byte says what the others are."""
    if data:
        CHECKS[data[0] % len(CHECKS)](data[1:])


def seeds() -> list[bytes]:
    """What to start from: the golden files, their expressions, what was found before."""
    files = [b"\x01" + path.read_bytes() for path in sorted(GOLDEN.glob("*.yaml"))]
    expressions = sorted({line.split("when: ")[1] for file in files for line in _lines(file) if "when: " in line})
    found = [path.read_bytes() for path in sorted(FOUND.iterdir())]
    return [*files, *(b"\x00" + text.strip("}'\"").encode() for text in expressions), *found]


def _lines(file: bytes) -> list[str]:
    return file.decode(errors="replace").splitlines()
