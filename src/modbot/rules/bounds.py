"""Between what bounds an expression's value can lie, given what the models can see: which rules cannot match."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

from modbot.rules import bound
from modbot.rules.bound import Bound
from modbot.rules.compile import Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the models can see: tags or none, which ratings can be above 0, whether a detector may run."""

    tags: bool = True
    ratings: frozenset[str] = frozenset({"general", "sensitive", "questionable", "explicit"})
    detector: bool = True


class Range(NamedTuple):
    """Every value lies in `low` .. `high`."""

    low: float
    high: float


_ZERO = Range(0.0, 0.0)
_TRUTH = Range(0.0, 1.0)
_COUNT = Range(0.0, math.inf)
_ANY = Range(-math.inf, math.inf)
_TEXT = Range(0.0, 1.0)
_DETECTED = {"exposure_score", "exposure_peak", "nudity_area_ratio", "nudity_box_count"}


def can_match(program: Program, capabilities: Capabilities) -> list[str]:
    """The ids of the rules whose `when` is false whatever the scores are."""
    ranges = _Ranges(capabilities)
    for feature in program.features:
        ranges.features.append(ranges.of(feature.value))
    return [rule.id for rule in program.rules if ranges.of(rule.when) == _ZERO]


class _Ranges:
    def __init__(self, capabilities: Capabilities) -> None:
        self._can = capabilities
        self.features: list[Range] = []

    def of(self, node: Bound) -> Range:
        match node:
            case bound.Constant(value=value):
                number = float(bool(value) if isinstance(value, str) else value)
                return Range(number, number)
            case bound.Rating(key=key):
                return _TRUTH if key in self._can.ratings else _ZERO if node.site is None else _ANY
            case bound.Fact(name=name):
                return self._fact(name)
            case bound.Known():
                return _TRUTH
            case bound.Feature(index=index):
                return self.features[index]
            case bound.Score():
                return _TRUTH if self._can.tags else _ZERO
            case bound.OfGroup():
                return self._of_group(node)
            case bound.OfNumbers():
                return self._of_numbers(node.function, [self.of(argument) for argument in node.arguments])
            case bound.HasClass():
                return _TRUTH if self._can.detector else _ZERO
            case bound.AnyClass(minimum=minimum):
                return _compared(_COUNT if self._can.detector else _ZERO, ">=", self.of(minimum))
            case bound.Not(operand=operand):
                return _negated(self.of(operand))
            case bound.Sign(operator=operator, operand=operand):
                inner = self.of(operand)
                return inner if operator == "+" else Range(-inner.high, -inner.low)
            case bound.Chain():
                return self._chain(node)
            case bound.Logic():
                return self._logic(node)
            case bound.Failing():
                return _ZERO

    def _fact(self, name: str) -> Range:
        if name in _DETECTED and not self._can.detector:
            return _ZERO
        if name == "nsfw_general_sum" and not self._can.tags:
            return _ZERO
        if name in {"attachment_count", "nudity_box_count", "nsfw_general_sum", "placement_risk_pre"}:
            return _COUNT
        return Range(-1.0, 1.0) if name == "nsfw_margin" else _TRUTH

    def _of_group(self, node: bound.OfGroup) -> Range:
        if node.function == "any":
            # An absent tag never counts, however low the threshold.
            return _compared(_TRUTH, ">=", self.of(node.arguments[0])) if self._can.tags else _ZERO
        if not self._can.tags:
            return _ZERO
        return _TRUTH if node.function in {"max", "min"} else _COUNT

    def _of_numbers(self, function: str, parts: Sequence[Range]) -> Range:
        match function:
            case "sum":
                return reduce(lambda left, right: _calculated(left, "+", right), parts)
            case "max":
                return Range(max(part.low for part in parts), max(part.high for part in parts))
            case "min":
                return Range(min(part.low for part in parts), min(part.high for part in parts))
            case _:
                return _clamped(*parts)

    def _chain(self, node: bound.Chain) -> Range:
        parts = [self.of(operand) for operand in node.operands]
        if any(isinstance(operand, bound.Constant) and isinstance(operand.value, str) for operand in node.operands):
            return _TEXT
        if node.operators[0] in {"+", "-", "*", "/"}:
            value = parts[0]
            for operator, part in zip(node.operators, parts[1:], strict=True):
                value = _calculated(value, operator, part)
            return value
        links = [_compared(*link) for link in zip(parts, node.operators, parts[1:], strict=False)]
        return Range(min(link.low for link in links), min(link.high for link in links))

    def _logic(self, node: bound.Logic) -> Range:
        parts = [self.of(operand) for operand in node.operands]
        if node.operator == "and":
            return _ZERO if _ZERO in parts else _hull(parts)
        return _hull([part for part in parts if part != _ZERO] or [_ZERO])


def _hull(parts: Sequence[Range]) -> Range:
    return Range(min(part.low for part in parts), max(part.high for part in parts))


def _clamped(value: Range, low: Range, high: Range) -> Range:
    bounds = _hull([low, high])
    if low.low == low.high and high.low == high.high:
        return Range(*(min(max(end, bounds.low), bounds.high) for end in value))
    return bounds


def _negated(value: Range) -> Range:
    if value == _ZERO:
        return Range(1.0, 1.0)
    return _ZERO if value.low > 0 or value.high < 0 else _TRUTH


def _compared(left: Range, operator: str, right: Range) -> Range:
    match operator:
        case ">" | ">=":
            return _compared(right, "<" if operator == ">" else "<=", left)
        case "<":
            never, always = left.low >= right.high, left.high < right.low
        case "<=":
            never, always = left.low > right.high, left.high <= right.low
        case _:
            apart = left.high < right.low or right.high < left.low
            same = left == right and left.low == left.high
            never, always = (apart, same) if operator == "==" else (same, apart)
    return _ZERO if never else Range(1.0, 1.0) if always else _TRUTH


def _calculated(left: Range, operator: str, right: Range) -> Range:
    match operator:
        case "+":
            ends = [left.low + right.low, left.high + right.high]
        case "-":
            ends = [left.low - right.high, left.high - right.low]
        case "*":
            ends = [a * b for a in left for b in right]
        case _:
            if _ZERO in {left, right}:
                return _ZERO
            return _ANY
    return _ANY if any(math.isnan(end) for end in ends) else Range(min(ends), max(ends))
