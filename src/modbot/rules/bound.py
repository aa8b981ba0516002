"""An expression after the check: every name resolved, every call's arguments in place.

This tree is what can be compiled, bounded and explained; nothing else makes it but `bind`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from modbot.rules.issues import Span

GroupFunction = Literal["sum", "max", "min", "any", "count", "topk_sum"]
NumberFunction = Literal["sum", "max", "min", "clamp"]


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal, a threshold, or the 0 of something that is always 0."""

    value: float | str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Rating:
    """`rating.<key>`; `site` where a record that lacks the key is a failure to count, None where it is 0."""

    key: str
    site: int | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Fact:
    """`channel_is_nsfw`, `is_spoiler`, `attachment_count` or one of p2's signals, by the name of the compiled local."""

    name: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Known:
    """Is the image on the hash list?"""

    name: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Feature:
    """The value of the file's n-th feature."""

    index: int
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Score:
    """A tag's score; 0 if absent."""

    tag: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class OfGroup:
    """A number of a group's scores. `arguments`: `gt` for `any` and `count`; `k`, `gt` for `topk_sum`."""

    function: GroupFunction
    group: str
    arguments: tuple[Bound, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class OfNumbers:
    """`sum`, `max`, `min` or `clamp` of numbers."""

    function: NumberFunction
    arguments: tuple[Bound, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class HasClass:
    """Is the detector's class (upper case) among the detections?"""

    name: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class AnyClass:
    """Are there at least `minimum` distinct classes with that prefix and suffix (upper case)?"""

    prefix: str
    suffix: str
    minimum: Bound
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a truth."""

    operand: Bound
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Sign:
    """`+x`, `-x`."""

    operator: Literal["+", "-"]
    operand: Bound
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """Operands of one level; `sites[i]` counts the i-th operator's divisions by zero (None for other operators)."""

    operands: tuple[Bound, ...]
    operators: tuple[str, ...]
    sites: tuple[int | None, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Logic:
    """`and`, `or`: stops at the first operand that decides, and is that operand's value."""

    operator: Literal["and", "or"]
    operands: tuple[Bound, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Failing:
    """What cannot be evaluated, known at load: counted at its site whenever it is met, and 0."""

    site: int
    span: Span = field(compare=False)


Bound: TypeAlias = (
    Constant
    | Rating
    | Fact
    | Known
    | Feature
    | Score
    | OfGroup
    | OfNumbers
    | HasClass
    | AnyClass
    | Not
    | Sign
    | Chain
    | Logic
    | Failing
)


@dataclass(frozen=True, slots=True)
class Site:
    """A place whose failures are counted: of which rule (or `feature:<name>`), of what kind, where in the file."""

    owner: str
    kind: Literal["unknown_name", "failing_call", "division_by_zero", "type_mismatch", "arithmetic"]
    message: str
    line: int
