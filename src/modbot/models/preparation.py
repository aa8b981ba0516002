"""How much is decoded, and what becomes of a picture before a model sees it, as plain values.

They travel to the process that decodes; who only plans needs no library of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
"""A prepared picture, [side, side, 3], 0 to 255. How the channels are ordered is the preparation's to say."""


@dataclass(frozen=True)
class Limits:
    """How much is decoded of one file.

    `pixels` bounds one frame (beyond: `too_large`), checked against the header before anything is decoded.
    `frames` and `animation_pixels` (all frames together) bound an animation: what lies beyond is not looked at, and
    the image counts as read in part (`truncated`).
    """

    pixels: int = 100_000_000
    frames: int = 5_000
    animation_pixels: int = 1_000_000_000


DEFAULT_LIMITS = Limits()


class WhiteSquare(msgspec.Struct, frozen=True, tag=True):
    """In the middle of a white square, bicubic to `size` x `size`, BGR: what WD14 taggers take.

    `fast`: a large JPEG may be decoded to a part of its size.
    """

    size: int
    fast: bool = False

    @property
    def side(self) -> int:
        """Width and height of the prepared picture."""
        return self.size

    @property
    def reduced_to(self) -> int | None:
        """Down to how many pixels a side the picture may be reduced while it is decoded; None: not at all."""
        return _reduced_to(self.size) if self.fast else None


class SqueezedJpeg(msgspec.Struct, frozen=True, tag=True):
    """Squeezed to `size` x `size`, its middle `crop` x `crop` saved as JPEG and read again, BGR: open_nsfw's."""

    size: int
    crop: int
    fast: bool = False

    @property
    def side(self) -> int:
        return self.crop

    @property
    def reduced_to(self) -> int | None:
        return _reduced_to(self.size) if self.fast else None


class BlackCorner(msgspec.Struct, frozen=True, tag=True):
    """With black to its right and below it, to a square, bilinear to `size` x `size`, BGR: what NudeNet takes."""

    size: int

    @property
    def side(self) -> int:
        return self.size

    @property
    def reduced_to(self) -> None:
        """Its bilinear picks single pixels, and would pick others."""
        return None


def _reduced_to(size: int) -> int:
    """Half as much again as the model takes: with less, sharp edges differ by tens of levels instead of a few."""
    return size * 3 // 2


Preparation: TypeAlias = WhiteSquare | SqueezedJpeg | BlackCorner


class PreparedFrame(msgspec.Struct, frozen=True):
    """A frame as a model takes it: its number in the file, its width and height upright, and the prepared pixels."""

    index: int
    width: int
    height: int
    pixels: Pixels
