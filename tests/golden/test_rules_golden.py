"""What people are told about a rules file, word for word.

Each `rules/NAME.yaml` is loaded in both modes; `rules/NAME.txt` holds what comes of it (`missing.txt`: of a file that
cannot be read). After a change that is meant:
`UPDATE_GOLDEN=1 pytest tests/golden/test_rules_golden.py`, and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from modbot.rules import Issue, load_rules, render, unreadable
from modbot.rules.ruleset import Mode

FOLDER = Path(__file__).parent / "rules"
FILES = sorted(FOLDER.glob("*.yaml"))
MODES: tuple[Mode, ...] = ("warn", "strict")
CODES = {
    f"R2-{code}"
    for code in ["IO", "YAML", "V001", "K001", "T000", "T001", "D001", "E001", "E002", "G001", "P001", "C001"]
}


def told(path: Path, mode: Mode) -> str:
    loaded = load_rules(path.read_bytes(), file=path.name, mode=mode)
    rules = (
        "nothing runs" if loaded.ruleset is None else f"runs: {', '.join(r.id for r in loaded.ruleset.rules) or '-'}"
    )
    legacy = ", legacy" if loaded.legacy else ""
    return f"# {mode}: {loaded.status}{legacy}, {rules}\n\n{render(loaded.issues)}"


def report(path: Path) -> str:
    return f"{told(path, 'warn')}\n{told(path, 'strict')}"


def check(golden: Path, text: str) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def issues() -> list[Issue]:
    """Every issue that the golden files hold."""
    loaded = (load_rules(path.read_bytes(), file=path.name, mode=mode) for path in FILES for mode in MODES)
    return [*unreadable("rules.yaml", "Is a directory").issues, *(issue for each in loaded for issue in each.issues)]


def test_there_are_enough_different_ones_and_every_code() -> None:
    found = issues()
    assert len({(issue.code, issue.message) for issue in found}) >= 100
    assert {issue.code for issue in found} == CODES


def test_as_json_they_are_the_same() -> None:
    found = issues()
    again = msgspec.json.decode(msgspec.json.encode(found), type=list[Issue])
    assert again == found
    assert render(again) == render(found)


def test_of_a_file_that_cannot_be_read() -> None:
    loaded = unreadable("rules.yaml", "Is a directory")
    check(FOLDER / "missing.txt", f"# warn: {loaded.status}, nothing runs\n\n{render(loaded.issues)}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_rules_file_is_told_about_as_before(path: Path) -> None:
    check(path.with_suffix(".txt"), report(path))


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
