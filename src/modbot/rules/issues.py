"""What is wrong with a rules file, where, and what to do: the issue, its place in the text, and how it is drawn."""

from __future__ import annotations

import difflib
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import msgspec

from modbot.words import printable

Level = Literal["error", "warning"]

EXCERPT_WIDTH = 100
MESSAGE_LENGTH = 500
_JAMO = range(0x1160, 0x1200)
"""Vowels and finals of Korean syllables, which stand in the cell of the consonant before them."""
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


class Span(NamedTuple):
    """A stretch of text: `start` and `end` (exclusive) in characters."""

    start: int
    end: int


class Related(msgspec.Struct, frozen=True, kw_only=True):
    """Another place that an issue is about. Lines and columns count from 1."""

    line: int
    column: int
    message: str
    excerpt: str


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. Lines and columns count characters from 1; `end_column` is the first one behind.

    `excerpt` is the line with the span marked under it, both safe to print. `hint` is the way out.
    An `error` left something out (or stopped everything); with a `warning`, all of the file runs.
    """

    code: str
    level: Level
    file: str
    line: int
    column: int
    end_line: int
    end_column: int
    message: str
    excerpt: str = ""
    hint: str | None = None
    related: tuple[Related, ...] = ()


class Source:
    """A text that has a name, and the lines, columns and excerpts of its spans."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(found.end() for found in _LINE_BREAK.finditer(self.text))]

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of a character, from 1."""
        line = bisect_right(self._starts, offset) - 1
        return line + 1, offset - self._starts[line] + 1

    def excerpt(self, span: Span) -> str:
        """The first line of the span, and a line that marks the span under it."""
        line, _ = self.position(span.start)
        # Of a line that may be the whole file, the surroundings are enough to draw.
        first = max(self._starts[line - 1], span.start - EXCERPT_WIDTH - 1)
        behind = self._starts[line] if line < len(self._starts) else len(self.text)
        text = self.text[first : min(behind, span.start + EXCERPT_WIDTH + 1)].rstrip("\r\n")
        start = min(span.start - first, len(text))
        end = max(start, min(start + span.end - span.start, len(text)))
        return draw(text, start, end)

    def issue(
        self,
        code: str,
        level: Level,
        span: Span,
        message: str,
        *,
        hint: str | None = None,
        related: Iterable[tuple[Span, str]] = (),
    ) -> Issue:
        """An issue about a span of this text."""
        line, column = self.position(span.start)
        end_line, end_column = self.position(max(span.start, span.end))
        return Issue(
            code=code,
            level=level,
            file=self.file,
            line=line,
            column=column,
            end_line=end_line,
            end_column=end_column,
            message=_brief(message),
            excerpt=self.excerpt(span),
            hint=None if hint is None else _brief(hint),
            related=tuple(self._related(other, note) for other, note in related),
        )

    def _related(self, span: Span, message: str) -> Related:
        line, column = self.position(span.start)
        return Related(line=line, column=column, message=_brief(message), excerpt=self.excerpt(span))


def draw(text: str, start: int, end: int) -> str:
    """`text` with its characters `start` to `end` marked by `^` under it; a long line is cut around the mark."""
    first = max(0, min(start - EXCERPT_WIDTH // 3, len(text) - EXCERPT_WIDTH)) if len(text) > EXCERPT_WIDTH else 0
    last = min(len(text), first + EXCERPT_WIDTH)
    before = ("…" if first else "") + printable(text[first:start])
    marked = printable(text[start : min(end, last)])
    after = printable(text[min(end, last) : last]) + ("…" if last < len(text) else "")
    return f"{before}{marked}{after}\n{' ' * display_width(before)}{'^' * max(1, display_width(marked))}"


def _brief(message: str) -> str:
    """A message as it can be printed; one that quotes something endless is cut."""
    shown = printable(message[: MESSAGE_LENGTH + 1])
    return shown if len(shown) <= MESSAGE_LENGTH else f"{shown[:MESSAGE_LENGTH]}…"


def display_width(text: str) -> int:
    """How many columns a terminal gives the text: two to wide characters, none to combining marks."""
    return sum(_width(char) for char in text)


def _width(char: str) -> int:
    if unicodedata.category(char) in {"Mn", "Me"} or ord(char) in _JAMO:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def render(issues: Sequence[Issue]) -> str:
    """The issues as text for a terminal or a log, one paragraph each; empty if there are none."""
    return "\n".join(map(_paragraph, issues))


def _paragraph(issue: Issue) -> str:
    parts = [
        f"{issue.level}[{issue.code}] {issue.message}",
        f"  --> {issue.file}:{issue.line}:{issue.column}",
        _quotation(issue.line, issue.excerpt),
    ]
    for other in issue.related:
        parts += [
            f"  ::: {other.message}, line {other.line}, column {other.column}",
            _quotation(other.line, other.excerpt),
        ]
    if issue.hint:
        parts.append(f"  = {issue.hint}")
    return "\n".join(filter(None, parts)) + "\n"


def _quotation(line: int, excerpt: str) -> str:
    """The excerpt beside its line number; empty where there is none."""
    if not excerpt:
        return ""
    text, marks = excerpt.split("\n", 1)
    gutter = " " * len(str(line))
    return f" {gutter} |\n {line} | {text}\n {gutter} | {marks}"


def did_you_mean(name: str, known: Collection[str], quote: str = "`") -> str | None:
    """A hint that names the closest of the known names; None if none is close."""
    near = sorted(other for other in known if abs(len(other) - len(name)) <= len(name) // 2)
    close = difflib.get_close_matches(name, near, n=1, cutoff=0.6)
    return f"did you mean {quote}{close[0]}{quote}?" if close else None
