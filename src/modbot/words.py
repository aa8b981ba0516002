"""How things are told to people, and how what strangers wrote is made fit for that."""

from __future__ import annotations

import unicodedata

_TAB = 4
_SELECTORS = range(0xFE00, 0xFE10)
"""Variation selectors: what they make of the character before, and how wide, terminals do not agree on."""
_SKIN_TONES = range(0x1F3FB, 0x1F400)
"""Some terminals paint the emoji before them; on others they stand beside it."""
_NOT_TO_PRINT = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
"""What moves the cursor, turns the writing round, or is of a width that nobody knows."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def counted(count: int, one: str, more: str | None = None) -> str:
    """`1 record`, `2 records`; `more` where the plural is another: `1 shard matches`, `2 shards match`."""
    return f"{count} {one if count == 1 else more or f'{one}s'}"


def printable(text: str) -> str:
    """One line of text with tabs as spaces, and nothing that moves a terminal's cursor or reverses its writing."""
    return "".join(map(_printable, text))


def printable_lines(text: str) -> str:
    """As `printable`, of several lines, which stay lines."""
    return "\n".join(map(printable, text.split("\n")))


def _printable(char: str) -> str:
    if char == "\t":
        return " " * _TAB
    if ord(char) in _SELECTORS:
        return ""
    if unicodedata.category(char) in _NOT_TO_PRINT or ord(char) in _SKIN_TONES:
        return _REPLACEMENT
    return char
