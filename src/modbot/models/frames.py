"""Which frames of an animation a model is to see."""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

Thumbnail: TypeAlias = NDArray[np.float32]
"""What a frame looks like from afar: its samples in any order, the same of every frame."""

_ODD = 3
"""A frame is odd whose distance to the nearest one is so many times what it usually is."""


def most_different(frames: Iterable[tuple[T, Thumbnail]], limit: int) -> list[T]:
    """The first frame and those that differ most from each other, `limit` together at most, none twice, in their order.

    One pass that holds `limit` frames and the two that are looked at: while one is too many, of the two most alike the
    later goes. A frame that is unlike all others is never one of the two, so a single odd frame among hundreds stays.
    Among many scenes, or in a wide movement, it might be: so the one that is farthest from all that it was compared
    with is spared, if it is so by far more than frames usually are.
    """
    kept: list[_Kept[T]] = []
    nearest: list[float] = []
    for frame, look in _looked_at(frames):
        distances = [look.compare(other.look) for other in kept]
        insort(nearest, look.nearest)
        if 0 not in distances:
            kept.append(_Kept(frame, look, distances))
        del frame  # it may be hundreds of megabytes, which the next one needs while it is decoded
        if len(kept) > limit:
            gone = _most_redundant(kept, usual=nearest[len(nearest) // 2])
            del kept[gone]
            for later in kept[gone:]:
                del later.distances[gone]
    return [each.frame for each in kept]


class _Look:
    """A frame's thumbnail, and how far it is from the `nearest` of those that it was compared with."""

    def __init__(self, thumbnail: Thumbnail) -> None:
        self._thumbnail = thumbnail
        self.nearest = math.inf

    def compare(self, other: _Look) -> float:
        """Their distance, which both remember if they know of none nearer."""
        distance = float(np.linalg.norm(self._thumbnail - other._thumbnail))
        self.nearest = min(self.nearest, distance)
        other.nearest = min(other.nearest, distance)
        return distance


@dataclass(frozen=True)
class _Kept(Generic[T]):
    """A frame that is kept, and its distances to those before it that are."""

    frame: T
    look: _Look
    distances: list[float]


def _looked_at(frames: Iterable[tuple[T, Thumbnail]]) -> Iterator[tuple[T, _Look]]:
    """The frames, each once it was compared with the two before it and the one after it, and that with both.

    With one alone, a frame between an odd one and another scene would pass for odd itself.
    """
    waiting: T | None = None
    looks: deque[_Look] = deque(maxlen=2)
    for frame, thumbnail in frames:
        look = _Look(thumbnail)
        for other in looks:
            look.compare(other)
        if waiting is not None:
            yield waiting, looks[-1]
        waiting = frame
        looks.append(look)
    if waiting is not None:
        yield waiting, looks[-1]


def _most_redundant(kept: list[_Kept[T]], *, usual: float) -> int:
    """The later of the two that are most alike, of equal pairs the first; never frame 0, nor one that is odd.

    `usual`: how far a frame usually is from the nearest.
    """
    later = list(range(1, len(kept)))
    farthest = max(later, key=lambda index: kept[index].look.nearest)
    if len(later) > 1 and kept[farthest].look.nearest > _ODD * usual:
        later.remove(farthest)
    return min(later, key=lambda index: min(kept[index].distances))
