"""What the language's functions and operators come to, for the compiled rules and for those that are explained."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence

from modbot.records.tags import Group, total


def finite(value: float) -> float:
    """The value as a feature's float. Raises an `ArithmeticError` if it is not finite."""
    number = float(value)
    if not math.isfinite(number):
        raise OverflowError("not finite")
    return number


def peak_of_exposed(detections: Sequence[tuple[str, float]]) -> float:
    """The largest score of a class that is EXPOSED; 0 of none."""
    return max((score for name, score in detections if name.upper().endswith("_EXPOSED")), default=0.0)


def clamp(x: float, low: float, high: float) -> float:
    """`x` between the two bounds, in whatever order they come."""
    if low > high:
        low, high = high, low
    return min(max(x, low), high)


def min_of_group(scores: Sequence[float], group: Group, tags: Mapping[str, float]) -> float:
    """The least score of a group's tags; 0 where one that the group names is absent."""
    lowest = min(scores, default=0.0)
    return lowest if group.literals <= tags.keys() else min(lowest, 0.0)


def at_least(scores: Sequence[float], threshold: float) -> int:
    """How many of the scores reach the threshold."""
    return sum(score >= threshold for score in scores)


def top(scores: Sequence[float], k: float, threshold: float | None = None) -> float:
    """The sum of the `k` largest scores (of those that reach the threshold); 0 for `k` below 1."""
    count = int(k)
    if count <= 0:
        return 0.0
    return total(heapq.nlargest(count, scores if threshold is None else [s for s in scores if s >= threshold]))


def any_class(classes: Mapping[str, float], prefix: str, suffix: str, minimum: float) -> bool:
    """Whether there are so many distinct classes with that prefix and suffix."""
    return sum(name.startswith(prefix) and name.endswith(suffix) for name in classes) >= minimum


def product(
    fail: Callable[[int], float], operators: Sequence[str], sites: Sequence[int | None], value: float, *others: float
) -> float:
    """Products and quotients, left to right; where a divisor with a site is 0, what `fail` gives."""
    for operator, site, other in zip(operators, sites, others, strict=True):
        if operator == "*":
            value *= other
        else:
            value = fail(site) if site is not None and not other else value / other
    return value


def show(value: float | str, conversion: str, spec: str) -> str:
    """A placeholder's value as text; one that the format does not fit is shown plainly."""
    shown = repr(value) if conversion == "r" else value
    try:
        return format(shown, spec)
    except (ValueError, TypeError, OverflowError):
        return str(shown)
