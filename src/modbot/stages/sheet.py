"""CSV that people open in a spreadsheet: every cell one line, no cell a formula, numbers with 4 decimals."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

SEPARATOR = " | "
_FORMULA = frozenset("=+-@")
_BREAKING = frozenset({"Cc", "Zl", "Zp"})
_INVISIBLE = frozenset({*_BREAKING, "Cf", "Zs"})

WriteRow = Callable[[Sequence[str]], object]


def sheet(out: BinaryIO, columns: Sequence[str]) -> WriteRow:
    """Writes the header, and gives what writes a row. UTF-8, LF."""
    write_row = rows(out)
    write_row(columns)
    return write_row


def rows(out: BinaryIO) -> WriteRow:
    """What writes a row, where the header is another's."""

    def write_row(cells: Sequence[str]) -> None:
        # Most rows hold nothing to quote.
        line = ",".join(cells)
        if line.count(",") >= len(cells) or _has_quoted(line):
            line = ",".join(map(_quoted, cells))
        out.write(f"{line}\n".encode())

    return write_row


def _quoted(text: str) -> str:
    """The cell as CSV spells it."""
    if "," not in text and not _has_quoted(text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def _has_quoted(text: str) -> bool:
    return '"' in text or "\n" in text or "\r" in text


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


def numbers(values: Iterable[object]) -> list[str]:
    """Each value as a `number`."""
    return [f"{value:z.4f}" if type(value) is float else number(value) for value in values]


def flag(value: bool) -> str:  # noqa: FBT001 - a formatter of one value
    """`true` or `false`."""
    return "true" if value else "false"
