"""The plain way from a file to the input of a WD14 tagger, with Pillow: as the models' authors publish it.

Transparency is put on white only where there is some: what their own page does for every picture (to RGBA and back)
would only slow this down. A grey PNG of 16 bits, which Pillow cuts off at 255, is scaled first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def preprocess(file: Path, size: int) -> NDArray[np.float32]:
    """The input, [1, size, size, 3], BGR, 0 to 255."""
    with Image.open(file) as image:
        picture = _rgb(image)
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    if side != size:
        square = square.resize((size, size), Image.Resampling.BICUBIC)
    samples = np.asarray(square, dtype=np.float32)
    return np.ascontiguousarray(samples[np.newaxis, :, :, ::-1])


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")
