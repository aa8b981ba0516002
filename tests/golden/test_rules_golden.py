"""What people are told about a rules file, word for word.

Each `rules/NAME.yaml` is loaded in both modes; `rules/NAME.txt` holds what comes of it. After a change that is meant:
`UPDATE_GOLDEN=1 pytest tests/golden/test_rules_golden.py`, and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modbot.rules import load_rules, render
from modbot.rules.ruleset import Mode

FOLDER = Path(__file__).parent / "rules"
FILES = sorted(FOLDER.glob("*.yaml"))


def told(path: Path, mode: Mode) -> str:
    loaded = load_rules(path.read_bytes(), file=path.name, mode=mode)
    rules = (
        "nothing runs" if loaded.ruleset is None else f"runs: {', '.join(r.id for r in loaded.ruleset.rules) or '-'}"
    )
    legacy = ", legacy" if loaded.legacy else ""
    return f"# {mode}: {loaded.status}{legacy}, {rules}\n\n{render(loaded.issues)}"


def report(path: Path) -> str:
    return f"{told(path, 'warn')}\n{told(path, 'strict')}"


def test_there_are_enough() -> None:
    assert len(FILES) >= 30


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_rules_file_is_told_about_as_before(path: Path) -> None:
    golden = path.with_suffix(".txt")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(report(path), encoding="utf-8")
    assert report(path) == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_marks_stand_under_what_they_mark(path: Path) -> None:
    """Every excerpt's second line is spaces and carets, no longer than the line above allows."""
    for issue in load_rules(path.read_bytes(), file=path.name).issues:
        marked = [issue.excerpt, *(other.excerpt for other in issue.related)]
        for excerpt in marked:
            text, marks = excerpt.split("\n")
            assert marks.strip("^ ") == ""
            assert marks.strip(" ")
            assert text.isprintable()
