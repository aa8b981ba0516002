"""A checked expression beside its text: what every part of it is called in the file."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from modbot.rules import bound
from modbot.rules.bound import Bound
from modbot.rules.issues import Span
from modbot.rules.syntax import tokens


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A node, its text (one line, comments left out), and its operands in order. Two of the same text are two."""

    node: Bound
    text: str
    parts: tuple[Piece, ...]

    @property
    def is_named(self) -> bool:
        """Whether the text does not tell the value by itself: everything but literals, and what was left out."""
        return not isinstance(self.node, bound.Constant) or self.text.replace(".", "").isidentifier()


def pieces(node: Bound, text: str) -> Piece:
    """The tree of an expression that was checked, and of which `text` is the source."""
    return _pieces(node, _Source(text))


def _pieces(node: Bound, source: _Source) -> Piece:
    parts = tuple(_pieces(operand, source) for operand in operands(node))
    return Piece(node, source.of(node.span), parts)


def operands(node: Bound) -> Iterator[Bound]:
    """What the node is made of, in the order in which it is evaluated."""
    match node:
        case bound.Not(operand=operand) | bound.Sign(operand=operand):
            yield operand
        case bound.Chain(operands=inner) | bound.Logic(operands=inner):
            yield from inner
        case bound.OfGroup(arguments=inner) | bound.OfNumbers(arguments=inner):
            yield from inner
        case bound.AnyClass(minimum=minimum):
            yield minimum


class _Source:
    def __init__(self, text: str) -> None:
        self._tokens = [token for token in tokens(text) if token.kind != "end"]
        self._starts = [token.span.start for token in self._tokens]

    def of(self, span: Span) -> str:
        """The text of a span, its parentheses completed: a node's span leaves out those around its outer operands."""
        first, last = bisect_left(self._starts, span.start), bisect_left(self._starts, span.end)
        depth = lowest = 0
        for token in self._tokens[first:last]:
            depth += (token.text == "(") - (token.text == ")")
            lowest = min(lowest, depth)
        return self._joined(first + lowest, last + depth - lowest)

    def _joined(self, first: int, last: int) -> str:
        taken = self._tokens[first:last]
        return "".join(
            (" " if place and taken[place - 1].span.end < token.span.start else "") + token.text
            for place, token in enumerate(taken)
        )
