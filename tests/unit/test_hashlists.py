from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.errors import InputError
from modbot.records.evidence import Evidence
from modbot.stages.hashlists import HashList, HashLists, load_hashlists

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


@given(data=st.data(), distance=st.integers(0, 64))
def test_whoever_is_near_enough_is_found_and_nobody_else(data: st.DataObject, distance: int) -> None:
    known = data.draw(st.lists(st.integers(0, 2**64 - 1), max_size=20))
    flipped = data.draw(st.sets(st.integers(0, 63), max_size=min(64, distance + 2)))
    asked = (data.draw(st.sampled_from(known)) if known else 0) ^ sum(1 << bit for bit in flipped)
    found = HashList(phash=tuple(known), distance=distance).holds(Evidence(phash=f"{asked:016x}"))
    assert found == any((asked ^ other).bit_count() <= distance for other in known)


def test_a_long_list_is_not_gone_through_for_every_image() -> None:
    """Counted, not timed: of 20,000 hashes at most one in a hundred is looked at."""
    known, asked = np.split(np.random.default_rng(1).integers(0, 2**64, 20_050, np.uint64), [20_000])
    listed = HashList(phash=tuple(known.tolist()), distance=4)
    looked_at = [sum(1 for _ in listed._candidates(bits)) for bits in asked.tolist()]
    assert sum(looked_at) / len(looked_at) < 200


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
