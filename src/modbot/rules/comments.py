"""What a `#` takes from an expression, and whether a person may have meant it.

YAML ends a plain text before ` #`. In text that is folded or in quotes `#` stands for itself, and begins a comment of
the expression, which goes on to the end of the line: YAML makes one line of several there, so that it takes them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from modbot.rules import syntax
from modbot.rules.bind import Finding
from modbot.rules.document import Places, Scalar, span
from modbot.rules.issues import Span

CODE = "R2-C001"
QUOTED = 60
"""So much of a comment is repeated in a hint."""
BELOW_BAR = "write the expression below `|`, where a comment ends with its line"

_BEHIND = re.compile(r"[ \t]+(#[^\r\n]*)")
_LINE = re.compile(r"[^\r\n]+")
_JOINT = re.compile(r"&&|\|\||\b(?:and|or)\b")
_NO_WORDS = frozenset({"&&", "||", "!", "(", *syntax.COMPARISONS})
"""What prose does not hold: `# nude or bathing` is a remark, `# or nude > 0.5` is none."""


def taken(text: str, node: Scalar, places: Places) -> list[Span]:
    """The comments, `#` included, that YAML and the language leave out of the expression in the scalar."""
    found = [places.span(each) for each in syntax.comments(node.value)]
    if not node.style and (behind := _BEHIND.match(text, span(node).end)):
        found.append(Span(*behind.span(1)))
    # An escape sequence can make a `#`, too, but not by mistake.
    return [each for each in found if text.startswith("#", each.start)]


def doubts(text: str, comments: Sequence[Span]) -> Iterator[Finding]:
    """Of an expression that can be parsed: the comments that may have been meant as a part of it."""
    for comment in comments:
        own, *further = (Span(*line.span()) for line in _LINE.finditer(text, *comment))
        hidden = [line for line in further if not _is_remark(_text(text, line))]
        if hidden:
            at = hidden[0].end - len(_text(text, hidden[0]).lstrip())
            message = "this is not part of the expression: the `#` above hides the rest of folded or quoted text"
            yield Finding(CODE, Span(at, hidden[-1].end), message, BELOW_BAR, remark=True)
        elif not _has_own_line(text, own) and _goes_on(_text(text, own)[1:]):
            message = "this is not part of the expression: `#` begins a comment"
            hint = "remove the `#` if it belongs to the expression; else put the comment on a line of its own"
            yield Finding(CODE, own, message, hint, remark=True)


def blamed(text: str, at: Span, comments: Sequence[Span]) -> str | None:
    """A hint, where the mistake at this place can come of a comment: next to it something lacks, or half a quote."""
    marked = _text(text, at)
    for comment in comments:
        left_out = _text(text, comment)
        cut_quote = marked in {'"', "'"} and marked in left_out
        between = text[min(at.end, comment.end) : max(at.start, comment.start)]
        if cut_quote or (not between.strip() and (at.end <= comment.start or not marked)):
            shown = " ".join(left_out.split())
            shown = shown if len(shown) <= QUOTED else f"{shown[:QUOTED]}…"
            way_out = "put quotes around the whole of the expression" if cut_quote else "remove the `#` if it is none"
            return f"`{shown}` is taken as a comment: {BELOW_BAR if len(left_out.splitlines()) > 1 else way_out}"
    return None


def _text(text: str, part: Span) -> str:
    return text[part.start : part.end]


def _is_remark(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _has_own_line(text: str, comment: Span) -> bool:
    at = comment.start
    while at and text[at - 1] in " \t":
        at -= 1
    return not at or text[at - 1] in "\r\n"


def _goes_on(comment: str) -> bool:
    """Whether the text of a comment reads like a condition that goes on with the one before it."""
    if not _JOINT.search(comment):
        return False
    leading = _JOINT.match(comment.lstrip())
    try:
        syntax.parse(comment.lstrip()[leading.end() :] if leading else comment)
    except syntax.ExpressionError:
        return False
    return not _NO_WORDS.isdisjoint(token.text for token in syntax.tokens(comment))
