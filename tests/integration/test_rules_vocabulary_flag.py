"""`modbot rules validate --vocabulary` checks a file's tags against those of a tagger."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from modbot.cli.rules import rules

FILE = """version: 2
rule_titles: {a: A}
groups: {minors: [child, todler, hatsune_miku]}
rules: [{id: a, severity: red, when: minors_peak > 0.5}]
"""
TAGS = """tag_id,name,category,count
1,general,9,1
2,sensitive,9,1
3,questionable,9,1
4,explicit,9,1
5,child,0,1
6,toddler,0,1
7,hatsune_miku,4,1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text(FILE, encoding="utf-8")
    (tmp_path / "selected_tags.csv").write_text(TAGS, encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_tags_that_the_tagger_does_not_have_are_told() -> None:
    asked = ["validate", "--rules", "rules.yaml", "--vocabulary", "selected_tags.csv"]
    ran = CliRunner().invoke(rules, asked)
    assert ran.exit_code == 0, ran.output
    assert "warning[R2-G002] the tagger has no tag `todler`" in ran.output
    assert "did you mean `toddler`?" in ran.output
    assert "the tagger has no tag `hatsune_miku`" in ran.output  # records hold no tags of characters
    assert "rules.yaml: ok, 1 rule, 0 errors, 2 warnings" in ran.output


def test_a_file_that_is_no_list_of_tags_is_refused(folder: Path) -> None:
    (folder / "selected_tags.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    ran = CliRunner().invoke(rules, ["validate", "--rules", "rules.yaml", "--vocabulary", "selected_tags.csv"])
    assert "selected_tags.csv" in str(ran.exception)
    assert "name and category" in str(ran.exception)
