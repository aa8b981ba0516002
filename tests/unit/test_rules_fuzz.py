"""The rules language against token soup, mutated expressions and files, and whatever was found before."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import rules

TOKENS = re.findall(
    r'^"(.+)"$', (Path(rules.__file__).with_name("rules.dict")).read_text(encoding="utf-8"), re.MULTILINE
)
WORDS = [token.encode().decode("unicode_escape").encode("latin-1").decode() for token in TOKENS]
SEEDS = rules.seeds()
FILES = [seed[1:] for seed in SEEDS if seed[0] % 2 == 1]
EXPRESSIONS = [seed[1:].decode(errors="replace") for seed in SEEDS if seed[0] % 2 == 0]


@pytest.mark.parametrize("path", sorted(rules.FOUND.iterdir()), ids=lambda path: path.name)
def test_what_was_found_before(path: Path) -> None:
    rules.check(path.read_bytes())


def test_there_is_something_to_start_from() -> None:
    assert len(FILES) >= 60
    assert len(EXPRESSIONS) >= 60
    assert "あ" in WORDS
    rules.check(b"")


soup = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=3)), max_size=25).map(" ".join)


@settings(max_examples=100)
@given(soup)
def test_token_soup(text: str) -> None:
    rules.check_expression(text)


@st.composite
def mutated(draw: st.DrawFn, whole: str) -> str:
    """The text with a few stretches of it replaced by a token, by nothing, or by another stretch of it."""
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
        end = min(end, start + 12)
        other = draw(st.integers(0, len(whole)))
        piece = draw(st.one_of(st.just(""), st.sampled_from(WORDS), st.just(whole[other : other + 30])))
        whole = whole[:start] + piece + whole[end:]
    return whole


@settings(max_examples=100)
@given(st.sampled_from(EXPRESSIONS).flatmap(mutated))
def test_mutated_expressions(text: str) -> None:
    rules.check_expression(text)


@settings(max_examples=60)
@given(
    st.sampled_from([file for file in FILES if len(file) < 3_000]).flatmap(
        lambda file: mutated(file.decode("utf-8", "replace"))
    )
)
def test_mutated_files(text: str) -> None:
    rules.check_file(text.encode())
