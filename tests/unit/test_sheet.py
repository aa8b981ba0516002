from __future__ import annotations

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.stages.sheet import cell, joined, number, sheet

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ""),
        ("", ""),
        ("plain text", "plain text"),
        ("山田", "山田"),
        ("https://x.example/?a=1", "https://x.example/?a=1"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\uff1d1", "'\uff1d1"),
        ("\uff0b1", "'\uff0b1"),
        ("\uff0d1", "'\uff0d1"),
        ("\uff20x", "'\uff20x"),
        ("\t=1", "' =1"),
        ("\r\n=1", "'  =1"),
        ("  =1", "'  =1"),
        ("\u200b=1", "'\u200b=1"),
        ("\ufeff=1", "'\ufeff=1"),
        ("a\nb\tc", "a b c"),
        ("a\u2028b", "a b"),
        ("'=1", "'=1"),
        ("1=1", "1=1"),
    ],
)
def test_a_cell_is_one_line_and_no_formula(text: str | None, expected: str) -> None:
    assert cell(text) == expected


@given(TEXT)
def test_no_text_begins_a_formula_and_every_text_reads_the_same(text: str) -> None:
    made = cell(text)
    first = next((char for char in made if unicodedata.category(char) not in {"Cc", "Cf", "Zs", "Zl", "Zp"}), "")
    assert unicodedata.normalize("NFKC", first)[:1] not in {*"=+-@"}
    assert len(made.splitlines()) <= 1
    spaced = "".join(" " if unicodedata.category(char) in {"Cc", "Zl", "Zp"} else char for char in text)
    assert made.removeprefix("'") == spaced.removeprefix("'")


@given(st.lists(st.lists(st.text("a,\"\n ;'"), min_size=2, max_size=4)))
def test_rows_are_those_of_the_csv_module(rows: list[list[str]]) -> None:
    out, expected = io.BytesIO(), io.StringIO(newline="")
    write_row = sheet(out, ["a", "b"])
    for row in rows:
        write_row(row)
    csv.writer(expected, lineterminator="\n").writerows([["a", "b"], *rows])
    assert out.getvalue().decode() == expected.getvalue()


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2)))
def test_what_is_written_is_read_back(rows: list[list[str]]) -> None:
    out = io.BytesIO()
    write_row = sheet(out, ["a", "b"])
    for row in rows:
        write_row([cell(text) for text in row])
    back = list(csv.reader(io.StringIO(out.getvalue().decode(), newline="")))
    assert back == [["a", "b"], *([cell(text) for text in row] for row in rows)]
    assert b"\r" not in out.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.12345, "0.1235"), (-0.00001, "0.0000"), (-1.5, "-1.5000"), (3, "3.0000"), (None, ""), ("x", "")],
)
def test_numbers_have_four_decimals(value: object, expected: str) -> None:
    assert number(value) == expected


def test_a_joined_cell_is_inert_as_a_whole() -> None:
    assert joined(["=a", "=b"]) == "'=a | =b"
    assert joined([]) == ""
