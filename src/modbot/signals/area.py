"""How much of an image its boxes cover."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

Box = tuple[float, float, float, float]
"""[x, y, width, height] in pixels."""


def union_area(boxes: Iterable[Box], width: float, height: float) -> float:
    """The area in pixels that the boxes cover together inside an image of that size; overlaps count once.

    What lies outside the image counts nothing.
    """
    clipped = [clip for box in boxes if (clip := _clip(box, width, height))]
    xs = sorted({x for left, _, right, _ in clipped for x in (left, right)})
    return sum(
        (b - a) * _covered((y0, y1) for x0, y0, x1, y1 in clipped if x0 <= a and b <= x1) for a, b in pairwise(xs)
    )


def _clip(box: Box, width: float, height: float) -> tuple[float, float, float, float] | None:
    """The box as left, top, right, bottom inside the image; None if nothing of it is."""
    x, y, w, h = box
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length that the intervals cover together."""
    total, reach = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reach))
        reach = max(reach, end)
    return total
