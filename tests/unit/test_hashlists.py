from __future__ import annotations

from pathlib import Path

import pytest

from modbot.errors import InputError
from modbot.records.evidence import Evidence
from modbot.stages.hashlists import HashLists, load_hashlists

SHA = "ab" * 32


def load(tmp_path: Path, text: str) -> HashLists:
    path = tmp_path / "hashlists.yaml"
    path.write_text(text)
    return load_hashlists(path)


def test_no_file_is_no_list(tmp_path: Path) -> None:
    assert load_hashlists(tmp_path / "none.yaml").of(Evidence(sha256=SHA)) == frozenset()


def test_images_are_known_by_content_or_by_look(tmp_path: Path) -> None:
    lists = load(tmp_path, f"a: {{sha256: [{SHA.upper()}]}}\nb: {{phash: ['0000000000000000'], distance: 2}}\n")
    assert lists.of(Evidence(sha256=SHA)) == {"a"}
    assert lists.of(Evidence(phash="0000000000000003")) == {"b"}
    assert lists.of(Evidence(phash="0000000000000007")) == frozenset()
    assert lists.of(Evidence(sha256=SHA, phash="8000000000000000")) == {"a", "b"}
    assert lists.of(Evidence(phash="no hash")) == frozenset()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a]", "the file is no map"),
        ("a: [x]", "a is no map of"),
        ("a: {md5: [x]}", "a is no map of"),
        ("a: {sha256: x}", "a.sha256 is no list"),
        ("a: {sha256: [12]}", "a.sha256 item 1 is no such hash"),
        ("a: {phash: ['00000000000000000']}", "a.phash item 1"),
        ("a: {distance: 65}", "a.distance"),
        ("a: {distance: true}", "a.distance"),
        ("a: [", "no YAML"),
        ("\x00", "no YAML"),
        ("a: !!bool maybe", "no YAML"),
        ("a: !!int ''", "no YAML"),
        ("a: !!timestamp now", "no YAML"),
        ("a: {distance: 1" + ":1" * 300 + ".5}", "no YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=r"hashlists\.yaml") as refused:
        load(tmp_path, text)
    assert said in str(refused.value)
