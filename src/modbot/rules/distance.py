"""How far a record is from a rule: which comparisons fail, by how much, and the least that would have to change.

The change that an expression needs to become true:

- of a comparison: the gap between its two sides. One tag, one detection or one attachment more is a gap of 1 where such
  are counted; where the sides are equal and may not be, the gap is 0 (any step is enough).
- of a yes or no (`channel.is_nsfw`, `known.<list>`, `nude.has`): 1, as much as a score can move.
- of `and`: the sum of what its failing parts need, since all of them have to change; a number that several comparisons
  ask for counts once, with its largest gap. Of `or`: the least that one of its parts needs.
- of `not`: what its operand needs to become false, by the same measure (`and` and `or` change places).
- of a feature that is a truth itself: what its own expression needs. Any other number is false at 0 only.
- What no record can change (comparisons of constants, of what could not be evaluated) can never become true.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from modbot.rules import bound
from modbot.rules.evaluate import FAILURES, Evaluation, Value, holds
from modbot.rules.pieces import Piece
from modbot.rules.syntax import COMPARISONS

FLIP = 1.0
"""What a yes or no costs that has to be the other."""

_DECIMALS = 9
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_FLAGS = frozenset({"channel_is_nsfw", "is_spoiler"})


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison that keeps a rule from matching: `subject` is `value`, and `operator` `threshold` is asked for.

    `gap` is how much is lacking. `needed`: whether it belongs to the least change that makes the rule match.
    """

    subject: str
    value: float
    operator: str
    threshold: float
    gap: float
    needed: bool = False


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """How far a rule is from matching. `total` is None where no record can make it match, or it cannot be told."""

    total: float | None
    gaps: tuple[Gap, ...]


_Change = tuple[Gap, ...]


def distance(when: Piece, evaluation: Evaluation, features: Sequence[Piece]) -> Distance:
    """What keeps the expression, which is false, from being true. Parts that were skipped are evaluated for it."""
    walk = _Walk(evaluation, features)
    change = walk.change(when, wanted=True)
    gaps = tuple(msgspec.structs.replace(gap, needed=change is not None and gap in change) for gap in walk.gaps)
    return Distance(total=None if change is None else _cost(change), gaps=gaps)


def _cost(change: _Change) -> float:
    return round(math.fsum(gap.gap for gap in change), _DECIMALS)


class _Walk:
    """Works out each piece once: features that use the ones above them twice would double the work with each."""

    def __init__(self, evaluation: Evaluation, features: Sequence[Piece]) -> None:
        self.gaps: dict[Gap, None] = {}
        self._evaluation = evaluation
        self._features = features
        self._changes: dict[tuple[Piece, bool], _Change | None] = {}
        self._fixed: dict[Piece, bool] = {}

    def change(self, piece: Piece, *, wanted: bool) -> _Change | None:
        """The least change that makes the piece as true as wanted; nothing if it is; None if there is none."""
        if (piece, wanted) not in self._changes:
            self._changes[piece, wanted] = self._change(piece, wanted=wanted)
        return self._changes[piece, wanted]

    def _change(self, piece: Piece, *, wanted: bool) -> _Change | None:
        value = self._value(piece)
        if value is None:
            return None
        if bool(value) == wanted:
            return ()
        match piece.node:
            case bound.Not():
                return self.change(piece.parts[0], wanted=not wanted)
            case bound.Logic(operator=operator):
                return self._logic(piece.parts, all_of=(operator == "and") == wanted, wanted=wanted)
            case bound.Chain(operators=operators) if operators[0] in COMPARISONS:
                return self._links(operators, piece.parts, wanted=wanted)
            case bound.Feature(index=index) if _is_truth(self._features[index]):
                return self.change(self._features[index], wanted=wanted)
            case bound.OfGroup(function="any", group=group):
                peak = max(self._evaluation.record.scores(group), default=0.0)
                return self._threshold(piece, f"max({group})", peak, wanted=wanted)
            case bound.AnyClass(prefix=prefix, suffix=suffix):
                classes = self._evaluation.record.classes
                count = sum(name.startswith(prefix) and name.endswith(suffix) for name in classes)
                return self._threshold(piece, piece.text, count, wanted=wanted)
            case _:
                return self._number(piece, value, wanted=wanted)

    def _value(self, piece: Piece) -> Value | None:
        try:
            return self._evaluation.value(piece)
        except FAILURES:
            return None

    def _logic(self, parts: Sequence[Piece], *, all_of: bool, wanted: bool) -> _Change | None:
        changes = [self.change(part, wanted=wanted) for part in parts]
        return _together(changes) if all_of else _least(changes)

    def _links(self, operators: Sequence[str], parts: Sequence[Piece], *, wanted: bool) -> _Change | None:
        links = zip(parts, operators, parts[1:], strict=False)
        changes = [self._link(left, name, right, wanted=wanted) for left, name, right in links]
        return _together(changes) if wanted else _least(changes)

    def _link(self, left: Piece, name: str, right: Piece, *, wanted: bool) -> _Change | None:
        value, threshold = self._value(left), self._value(right)
        if value is None or threshold is None:
            return None
        if holds(value, name, threshold) == wanted:
            return ()
        needed = name if wanted else _OPPOSITE[name]
        if self._is_fixed(left):
            left, value, threshold, needed = right, threshold, value, _MIRRORED[needed]
        if self._is_fixed(left) or isinstance(value, str) or isinstance(threshold, str):
            return None
        return self._gap(left.text, value, needed, threshold, 0.0 if needed == "!=" else abs(value - threshold))

    def _threshold(self, piece: Piece, subject: str, value: float, *, wanted: bool) -> _Change | None:
        """`any(group, gt=…)` and `nude.any(…, min=…)`: is so much there?"""
        threshold = self._value(piece.parts[0])
        if threshold is None or isinstance(threshold, str) or self._is_fixed(piece):
            return None
        lacking = threshold - value if wanted else value - threshold
        return self._gap(subject, value, ">=" if wanted else "<", threshold, max(0.0, lacking))

    def _number(self, piece: Piece, value: Value, *, wanted: bool) -> _Change | None:
        """A number where a truth is asked for."""
        if self._is_fixed(piece) or isinstance(value, str):
            return None
        if _is_flag(piece):
            return self._gap(piece.text, value, "==", wanted, FLIP)
        return self._gap(piece.text, value, "!=" if wanted else "==", 0.0, 0.0 if wanted else abs(value))

    def _gap(self, subject: str, value: float, operator: str, threshold: float, gap: float) -> _Change | None:
        if not math.isfinite(gap):
            return None
        found = Gap(subject=subject, value=value, operator=operator, threshold=threshold, gap=round(gap, _DECIMALS))
        self.gaps[found] = None
        return (found,)

    def _is_fixed(self, piece: Piece) -> bool:
        """Whether the value is the same for every record."""
        if piece not in self._fixed:
            self._fixed[piece] = self._never_changes(piece)
        return self._fixed[piece]

    def _never_changes(self, piece: Piece) -> bool:
        match piece.node:
            case bound.Constant() | bound.Failing():
                return True
            case bound.Rating() | bound.Fact() | bound.Known() | bound.Score() | bound.HasClass() | bound.AnyClass():
                return False
            case bound.OfGroup(group=group):
                return self._evaluation.is_empty(group)
            case bound.Feature(index=index):
                return self._is_fixed(self._features[index])
            case _:
                return all(map(self._is_fixed, piece.parts))


def _together(changes: Sequence[_Change | None]) -> _Change | None:
    """All of the changes; of the same number asked for twice, the larger gap."""
    largest: dict[tuple[str, bool], Gap] = {}
    for change in changes:
        if change is None:
            return None
        for gap in change:
            key = gap.subject, gap.value < gap.threshold
            if key not in largest or largest[key].gap < gap.gap:
                largest[key] = gap
    return tuple(largest.values())


def _least(changes: Sequence[_Change | None]) -> _Change | None:
    """The cheapest of the changes, the first of equal ones."""
    possible = [change for change in changes if change is not None]
    return min(possible, key=_cost, default=None)


def _is_truth(piece: Piece) -> bool:
    match piece.node:
        case bound.Not() | bound.Logic() | bound.HasClass() | bound.AnyClass() | bound.Known():
            return True
        case bound.OfGroup(function=function):
            return function == "any"
        case bound.Chain(operators=operators):
            return operators[0] in COMPARISONS
        case bound.Fact(name=name):
            return name in _FLAGS
        case _:
            return False


def _is_flag(piece: Piece) -> bool:
    match piece.node:
        case bound.Known() | bound.HasClass():
            return True
        case bound.Fact(name=name):
            return name in _FLAGS
        case _:
            return False
