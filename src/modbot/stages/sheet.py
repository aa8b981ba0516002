"""CSV that people open in a spreadsheet: every cell one line, no cell a formula, numbers with 4 decimals."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

SEPARATOR = " | "
_FORMULA = frozenset("=+-@")
_BREAKING = frozenset({"Cc", "Zl", "Zp"})
_INVISIBLE = frozenset({*_BREAKING, "Cf", "Zs"})

WriteRow = Callable[[Sequence[str]], object]


@contextmanager
def sheet(out: BinaryIO, columns: Sequence[str]) -> Iterator[WriteRow]:
    """Writes the header, and gives what writes a row. UTF-8, LF; `out` stays open."""
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    try:
        write_quoted = csv.writer(text, lineterminator="\n").writerow

        def write_row(cells: Sequence[str]) -> None:
            # Most rows hold nothing to quote, and csv looks at every character to find that out.
            line = ",".join(cells)
            if line.count(",") < len(cells) and '"' not in line and "\n" not in line and "\r" not in line:
                text.write(f"{line}\n")
            else:
                write_quoted(cells)

        write_row(columns)
        yield write_row
    finally:
        text.detach()


def cell(text: str | None) -> str:
    """The text as a cell: line breaks and control characters as spaces, and an apostrophe before a formula.

    A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@` (some also the full-width forms, some behind white
    space); behind an apostrophe it is the text that it shows. None is empty.
    """
    if not text:
        return ""
    if text[0].isalnum() and text.isprintable():
        return text
    line = "".join(" " if unicodedata.category(char) in _BREAKING else char for char in text)
    return f"'{line}" if _begins_formula(line) else line


def _begins_formula(line: str) -> bool:
    first = next((char for char in line if unicodedata.category(char) not in _INVISIBLE), "")
    return unicodedata.normalize("NFKC", first)[:1] in _FORMULA


def joined(parts: Iterable[str]) -> str:
    """The parts as one cell."""
    return cell(SEPARATOR.join(parts))


def number(value: object) -> str:
    """A number with 4 decimals, never `-0.0000`; empty for None and for what is no number."""
    return f"{value:z.4f}" if isinstance(value, (int, float)) else ""


def flag(value: bool) -> str:  # noqa: FBT001 - a formatter of one value
    """`true` or `false`."""
    return "true" if value else "false"
