from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.records.tags import Group, Patterns, is_pattern, normalise


@pytest.mark.parametrize(
    ("spelled", "normal"),
    [
        ("Long Hair", "long_hair"),
        ("  see-through ", "see_through"),
        ("one - two", "one_two"),
        ("\uff4c\uff4f\uff4c\uff49", "loli"),
        ("あ い\u3000う", "あ_い_う"),
        ("a\t\n-b", "a_b"),
        ("already_normal", "already_normal"),
        ("", ""),
    ],
)
def test_a_tag_has_one_spelling(spelled: str, normal: str) -> None:
    assert normalise(spelled) == normal


@given(st.text(alphabet=st.characters(max_codepoint=0x3100)))
def test_normalising_twice_is_normalising_once(tag: str) -> None:
    once = normalise(tag)
    assert normalise(once) == once


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("*_child", ["female_child", "_child"], ["child", "child_x"]),
        ("blood_?", ["blood_a"], ["blood_", "blood_ab"]),
        ("[ab]c", ["ac", "bc"], ["cc", "[ab]c"]),
        ("[!a]c", ["bc"], ["ac", "c"]),
        ("Severed *", ["severed_head"], ["severed", "x_severed_head"]),
        ("a[b", ["a[b"], ["ab"]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_a_pattern_matches_what_it_says(pattern: str, inside: list[str], outside: list[str]) -> None:
    group = Group([pattern])
    assert all(group.matches(tag) for tag in inside)
    assert not any(group.matches(tag) for tag in outside)


def test_a_group_keeps_its_members_once_and_in_order() -> None:
    group = Group(["B", "a", "b ", "*x"])
    assert group.items == ("b", "a", "*x")
    assert group.literals == {"a", "b"}
    assert group.patterns == ("*x",)
    assert list(group.select(["a", "c", "fox"])) == ["a", "fox"]
    assert group == Group(["b", "a", "*x"])
    assert hash(group) == hash(Group(["b", "a", "*x"]))
    assert group != Group(["a"])


def test_an_empty_group_matches_nothing() -> None:
    assert not Group(()).matches("a")
    assert not Group(()).matches("")


@given(st.lists(st.text("ab*?[!]", max_size=5), max_size=4), st.text("ab[]!", max_size=6))
def test_a_group_is_the_union_of_its_members(patterns: list[str], tag: str) -> None:
    single = [fnmatch.fnmatchcase(tag, p) if is_pattern(p) else tag == p for p in patterns]
    assert Group(patterns).matches(tag) == any(single)


@given(
    st.lists(st.text("aab_*?[!]", max_size=8), min_size=35, max_size=45, unique=True),
    st.lists(st.one_of(st.text("aab_[]!", max_size=10), st.text("ab", min_size=190, max_size=210)), max_size=5),
)
def test_of_many_patterns_the_index_finds_those_that_match(patterns: list[str], tags: list[str]) -> None:
    index = Patterns(patterns)
    for tag in tags:
        assert sorted(index.matching(tag)) == sorted(
            pattern for pattern in patterns if fnmatch.fnmatchcase(tag, pattern)
        )


def test_of_many_patterns_few_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def counting(tag: str, pattern: str) -> bool:
        tried.append(pattern)
        return fnmatch.fnmatchcase(tag, pattern)

    monkeypatch.setattr("modbot.records.tags.fnmatchcase", counting)
    index = Patterns([*(f"*series_{number}_*" for number in range(10_000)), "??", f"*{'x' * 100}*"])
    assert list(index.matching("of_series_77_(character)")) == ["*series_77_*"]
    assert list(index.matching("y" + "x" * 120)) == [f"*{'x' * 100}*"]
    assert list(index.matching("ab")) == ["??"]
    assert len(tried) <= 10


def test_a_hostile_pattern_does_not_run_long() -> None:
    group = Group(["*a" * 30 + "*b", "a*" * 30 + "c"])
    started = time.perf_counter()
    assert not group.matches("a" * 20_000)
    assert time.perf_counter() - started < 2
