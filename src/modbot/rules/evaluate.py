"""One record's evaluation by the tree: what the compiled rules do, with the value of every part kept."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from modbot.records.tags import Group, total
from modbot.rules import bound, calculate, names
from modbot.rules.bound import Site
from modbot.rules.compile import RefusedError
from modbot.rules.facts import Facts
from modbot.rules.pieces import Piece
from modbot.rules.syntax import COMPARISONS

Value: TypeAlias = float | str

FAILURES = (ArithmeticError, ValueError, RefusedError)
"""What ends the evaluation of a rule or a feature, and makes it 0."""

_OPERATORS: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Record:
    """What a record brings: its facts, and the scores of each group's tags."""

    def __init__(self, facts: Facts, scores: Mapping[str, Sequence[tuple[str, float]]]) -> None:
        self.facts = facts
        self.tags_of = scores
        self.classes = {name.upper(): score for name, score in facts.detections}
        self._exposure_peak = calculate.peak_of_exposed(facts.detections)

    def fact(self, name: str) -> float:
        """The number that the compiled rules keep under that name."""
        if name in names.XSIGNALS:
            return self.facts.xsignals.get(name, 0.0)
        if name == names.EXPOSURE_PEAK:
            return self._exposure_peak
        value: float = getattr(self.facts, name)
        return value

    def scores(self, group: str) -> list[float]:
        """The scores of the group's tags."""
        return [score for _, score in self.tags_of[group]]


class Evaluation:
    """Evaluates pieces on one record; keeps what each came to (`values`) and what could not be (`problems`).

    `features` are the values of the features so far. A part that was never asked for is in neither.
    """

    def __init__(self, record: Record, groups: Mapping[str, Group], sites: Sequence[Site], *, strict: bool) -> None:
        self.record = record
        self.values: dict[Piece, Value] = {}
        self.problems: dict[Piece, str] = {}
        self.features: list[float] = []
        self._groups = groups
        self._sites = sites
        self._strict = strict

    def value(self, piece: Piece) -> Value:
        """The piece's value. Raises one of `FAILURES`."""
        if piece not in self.values:
            self.values[piece] = self._value(piece)
        return self.values[piece]

    def number(self, piece: Piece) -> float:
        """The value of a piece that the check found to be a number."""
        value = self.value(piece)
        if isinstance(value, str):
            raise TypeError(f"{piece.text} is text")
        return value

    def is_empty(self, group: str) -> bool:
        """Whether the group names no tag."""
        return not self._groups[group].items

    def _fail(self, piece: Piece, site: int) -> float:
        self.problems[piece] = self._sites[site].message
        if self._strict:
            raise RefusedError(site)
        return 0

    def _value(self, piece: Piece) -> Value:
        record, facts, parts = self.record, self.record.facts, piece.parts
        match piece.node:
            case bound.Constant(value=value):
                return value
            case bound.Rating(key=key, site=site):
                if site is not None and key not in facts.rating:
                    return self._fail(piece, site)
                return facts.rating.get(key, 0.0)
            case bound.Fact(name=name):
                return record.fact(name)
            case bound.Known(name=name):
                return name in facts.known
            case bound.Feature(index=index):
                return self.features[index]
            case bound.Score(tag=tag):
                return facts.tags.get(tag, 0.0)
            case bound.OfGroup():
                return self._of_group(piece.node, [self.number(part) for part in parts])
            case bound.OfNumbers(function="sum"):
                return self._in_turn("+" * (len(parts) - 1), parts)
            case bound.OfNumbers(function="clamp"):
                return calculate.clamp(*(self.number(part) for part in parts))
            case bound.OfNumbers(function="max"):
                return max([self.number(part) for part in parts])
            case bound.OfNumbers():
                return min([self.number(part) for part in parts])
            case bound.HasClass(name=name):
                return name in record.classes
            case bound.AnyClass(prefix=prefix, suffix=suffix):
                return calculate.any_class(record.classes, prefix, suffix, self.number(parts[0]))
            case bound.Not():
                return not self.value(parts[0])
            case bound.Sign(operator=sign):
                return -self.number(parts[0]) if sign == "-" else +self.number(parts[0])
            case bound.Chain():
                return self._chain(piece, piece.node)
            case bound.Logic(operator=logic):
                return self._logic(logic == "and", parts)
            case bound.Failing(site=site):
                return self._fail(piece, site)

    def _logic(self, both: bool, parts: Sequence[Piece]) -> Value:  # noqa: FBT001 - `and`, else `or`
        value: Value = both
        for part in parts:
            value = self.value(part)
            if bool(value) != both:
                break
        return value

    def _chain(self, piece: Piece, node: bound.Chain) -> Value:
        if node.operators[0] in COMPARISONS:
            return self._compared(node.operators, piece.parts)
        if any(site is not None for site in node.sites):
            numbers = [self.number(part) for part in piece.parts]
            return calculate.product(lambda site: self._fail(piece, site), node.operators, node.sites, *numbers)
        return self._in_turn(node.operators, piece.parts)

    def _compared(self, operators: Sequence[str], parts: Sequence[Piece]) -> bool:
        left = self.value(parts[0])
        for name, part in zip(operators, parts[1:], strict=True):
            right = self.value(part)
            if not holds(left, name, right):
                return False
            left = right
        return True

    def _in_turn(self, operators: Sequence[str], parts: Sequence[Piece]) -> Value:
        value = self.value(parts[0])
        for name, part in zip(operators, parts[1:], strict=True):
            # `+` of two texts joins them; the check lets no other text come here.
            value = _OPERATORS[name](value, self.value(part))  # type: ignore[arg-type]
        return value

    def _of_group(self, node: bound.OfGroup, arguments: Sequence[float]) -> float:
        scores = self.record.scores(node.group)
        match node.function:
            case "sum":
                return total(scores)
            case "max":
                return max(scores, default=0.0)
            case "min":
                return calculate.min_of_group(scores, self._groups[node.group], self.record.facts.tags)
            case "any":
                return max(scores, default=-math.inf) >= arguments[0]
            case "count":
                return calculate.at_least(scores, arguments[0])
            case "topk_sum":
                return calculate.top(scores, *arguments)


def holds(left: Value, name: str, right: Value) -> bool:
    """Whether the comparison is true."""
    return bool(_OPERATORS[name](left, right))  # type: ignore[arg-type] # two texts are compared as well
