"""Colours as a viewer shows them: what an embedded ICC profile says, in sRGB."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from io import BytesIO
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageCms

ToSrgb: TypeAlias = Callable[[Image.Image], Image.Image]
"""An image of the mode that it was made for becomes RGB."""

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
# Device links, abstract and named colours say nothing of what a picture's numbers mean.
_CLASSES = frozenset({"mntr", "scnr", "prtr", "spac"})

_LARGEST = 8 << 20
"""Bytes of a profile, at most; those of printing presses have 0.5 to 3 MB."""

_UNSEEN = 2
"""Profiles that move no sample by more levels are sRGB in one of its many spellings, and cost nothing."""

_STEPS = np.linspace(0, 255, 9).astype(np.uint8)


@lru_cache(maxsize=16)
def to_srgb(profile: bytes, mode: str) -> ToSrgb | None:
    """What turns images of the mode (`L`, `RGB`, `CMYK`) with that profile to sRGB.

    None where there is nothing to turn: the profile is sRGB itself, cannot be read, or is of no such images. A viewer
    ignores what it cannot use, and so do we.
    """
    if len(profile) > _LARGEST:
        return None
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode] or source.profile.device_class not in _CLASSES:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        convert = partial(_converted, transform=transform)
        return None if mode != "CMYK" and _does_nothing(convert, mode) else convert
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _converted(image: Image.Image, *, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    return transform.apply(image)


def _does_nothing(convert: ToSrgb, mode: str) -> bool:
    """Whether a grid of colours stays what it is."""
    if mode == "L":
        grid = Image.fromarray(np.arange(256, dtype=np.uint8)[np.newaxis])
    else:
        grid = Image.fromarray(np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS), axis=-1).reshape(1, -1, 3))
    moved = np.asarray(convert(grid), np.int16) - np.asarray(grid.convert("RGB"), np.int16)
    return bool(np.abs(moved).max() <= _UNSEEN)
