"""Reasons: text with `{EXPR}`, `{EXPR:FORMAT}`, `{EXPR!r}` in it; `{{` and `}}` are braces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from modbot.rules.bound import Bound
from modbot.rules.issues import Span
from modbot.rules.syntax import ExpressionError

Conversion = Literal["", "r"]


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A value, how it is converted and formatted."""

    value: Bound
    conversion: Conversion
    format: str


Reason: TypeAlias = tuple[str | Placeholder, ...]


class Hole(NamedTuple):
    """A placeholder before the check; `span` is the expression's in the reason."""

    expression: str
    span: Span
    conversion: Conversion
    format: str


_FORMAT = re.compile(r"(?:.?[<>=^])?[-+ ]?z?#?0?(?P<width>\d{0,2})[,_]?(?:\.(?P<precision>\d{1,2}))?[bdeEfFgGosxX%]?")
MAX_LENGTH = 4_000
_QUOTED = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", re.DOTALL)
_CONVERSION = re.compile(r"""(?P<before>\b\w+|[)"'])\s*!\s*(?P<kind>[a-z])\s*$""")
_OPENING, _CLOSING = "([{", ")]}"


def split(text: str) -> list[str | Hole]:
    """The reason's pieces. Raises `ExpressionError` for a brace that is not closed, or an empty placeholder."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(Span(0, len(text)), f"the reason has more than {MAX_LENGTH} characters")
    pieces: list[str | Hole] = []
    plain: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char in "{}" and text[at : at + 2] == char * 2:
            plain.append(char)
            at += 2
        elif char == "}":
            raise ExpressionError(Span(at, at + 1), "a `}` that closes nothing", "write `}}` for a brace")
        elif char == "{":
            hole, at = _hole(text, at)
            pieces += ["".join(plain), hole]
            plain.clear()
        else:
            plain.append(char)
            at += 1
    return [piece for piece in (*pieces, "".join(plain)) if piece]


def _hole(text: str, start: int) -> tuple[Hole, int]:
    """The placeholder whose `{` stands at `start`, and where the text goes on behind it."""
    depth, colon, at = 0, None, start + 1
    while at < len(text):
        char = text[at]
        if colon is None and (quoted := _QUOTED.match(text, at)):
            at = quoted.end()
            continue
        if char == "}" and depth == 0:
            return _finished(text, start, at if colon is None else colon, at), at + 1
        if colon is None:
            depth += (char in _OPENING) - (char in _CLOSING)
            colon = at if char == ":" and depth == 0 else None
        at += 1
    raise ExpressionError(Span(start, start + 1), "the placeholder is not closed", "add `}`, or write `{{` for a brace")


def _finished(text: str, start: int, stop: int, end: int) -> Hole:
    expression = text[start + 1 : stop]
    conversion: Conversion = ""
    found = _CONVERSION.search(expression)
    if found and found["before"] not in {"and", "or", "not"}:
        if found["kind"] != "r":
            span = Span(start + 1 + found.end("before"), stop)
            raise ExpressionError(span, f"there is no conversion `!{found['kind']}`", "`!r` is the only one")
        conversion, expression = "r", expression[: found.end("before")]
    if not expression.strip():
        raise ExpressionError(Span(start, end + 1), "the placeholder is empty", "write `{{}}` for braces")
    wanted = text[stop + 1 : end]
    return Hole(expression, Span(start + 1, start + 1 + len(expression)), conversion, _usable(wanted))


def _usable(wanted: str) -> str:
    """The format if it is one and gives a short text; else none, which is plain text."""
    return wanted if _FORMAT.fullmatch(wanted) else ""
