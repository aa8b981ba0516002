"""From a file to the input of a WD14 tagger: modbot's decoding and preparation against the plain way with Pillow.

    python -m bench.preprocess [--rounds 15]

Processor time an image of one process, by format, and how many levels the two differ at most. modbot's is what p1's
decoders and taggers do to an image, but for its hashes: read, decode (as many frames as p1 looks for), prepare, and put
into a batch of float32. The files are made of the sample photographs: large ones enlarged, with the grain of a camera.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.baselines import preprocess_pillow
from modbot.models.decoder import prepare
from modbot.models.imaging import decode
from modbot.models.preparation import WhiteSquare
from modbot.models.sessions import stacked
from samples.pictures import PHOTOGRAPHS

ROUNDS = 15
SIZE = 448
SMALL = 800
FRAMES = 5
ROUND_SECONDS = 0.05
LARGE_BAR, OTHERS_BAR, LEVELS_BAR = 1.15, 0.97, 1
LARGE = "large JPEG"

Way = Callable[[Path], NDArray[np.float32]]


class Result(NamedTuple):
    """Milliseconds an image, plain and modbot's, and the levels between the two at most."""

    plain: float
    ours: float
    levels: float


def plain(file: Path) -> NDArray[np.float32]:
    """The plain way."""
    return preprocess_pillow.preprocess(file, SIZE)


def ours(file: Path) -> NDArray[np.float32]:
    """The way of modbot."""
    (frame,) = decode(file.read_bytes(), max_frames=FRAMES).frames
    return stacked([prepare(frame.picture, WhiteSquare(size=SIZE))])


def photographs() -> dict[str, Image.Image]:
    """Those in colour that are not large, by name; of each its samples alone, without a profile."""
    read = {photograph.name: Image.open(BytesIO(photograph.read())) for photograph in PHOTOGRAPHS}
    return {
        name: Image.fromarray(np.asarray(image))
        for name, image in read.items()
        if image.mode == "RGB" and max(image.size) < SMALL
    }


def enlarged(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at that size, with grain."""
    grain = np.random.default_rng(0).integers(-8, 9, (size[1], size[0], 1), dtype=np.int16)
    samples = np.asarray(picture.resize(size, Image.Resampling.BICUBIC)) + grain
    return Image.fromarray(samples.clip(0, 255).astype(np.uint8))


def with_alpha(picture: Image.Image) -> Image.Image:
    """The picture, ever more transparent towards its edges."""
    faded = picture.convert("RGBA")
    faded.putalpha(Image.radial_gradient("L").resize(picture.size).point(lambda level: 255 - level))
    return faded


def in_16_bits(picture: Image.Image) -> Image.Image:
    """Its grey, of 16 bits."""
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


def lay(folder: Path) -> dict[str, list[Path]]:
    """Writes the files, and gives them by format."""
    small = photographs()
    upright = {name: picture.transpose(Image.Transpose.ROTATE_90) for name, picture in small.items()}
    both = [*small.values(), *upright.values()]
    jpeg: dict[str, Any] = {"format": "JPEG", "quality": 88}
    png: dict[str, Any] = {"format": "PNG"}
    large = [
        enlarged(small["china.jpg"], (4000, 3000)),
        enlarged(upright["china.jpg"], (3000, 4000)),
        enlarged(small["astronaut.png"], (3500, 3500)),
        enlarged(small["flower.jpg"], (4000, 2250)),
    ]
    kinds: dict[str, tuple[list[Image.Image], dict[str, Any]]] = {
        LARGE: (large, jpeg),
        "small JPEG": (both, jpeg),
        "tiny JPEG": ([picture.resize((200, 150)) for picture in both], jpeg),
        "CMYK JPEG": ([picture.convert("CMYK") for picture in both], jpeg),
        "PNG": (both, png),
        "PNG with alpha": ([with_alpha(picture) for picture in both], png),
        "PNG, 16 bits, grey": ([in_16_bits(picture) for picture in both], png),
        "WebP": (both, {"format": "WEBP", "quality": 85}),
        "GIF": ([picture.quantize() for picture in both], {"format": "GIF"}),
    }
    files: dict[str, list[Path]] = {}
    for number, (kind, (pictures, options)) in enumerate(kinds.items()):
        files[kind] = [folder / f"{number}_{index}" for index in range(len(pictures))]
        for file, picture in zip(files[kind], pictures, strict=True):
            picture.save(file, **options)
    return files


def cost(way: Way, files: list[Path], times: int) -> float:
    """Milliseconds of processor time an image."""
    started = process_time()
    for _ in range(times):
        for file in files:
            way(file)
    return (process_time() - started) / (times * len(files)) * 1000


def compare(files: list[Path], rounds: int) -> Result:
    """The two ways in turn, over and over; medians."""
    levels = max(float(np.abs(ours(file) - plain(file)).max()) for file in files)
    times = max(1, round(ROUND_SECONDS * 1000 / len(files) / cost(plain, files, 1)))
    pairs = [(cost(plain, files, times), cost(ours, files, times)) for _ in range(rounds)]
    theirs, own = (statistics.median(each) for each in zip(*pairs, strict=True))
    return Result(theirs, own, levels)


def main() -> int:
    """Prints a line a format; 1: a bar is missed."""
    parser = argparse.ArgumentParser(description="Measure preprocessing against plain Pillow.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    print(f"machine: {platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        for kind, files in lay(Path(folder)).items():
            result = compare(files, given.rounds)
            bar = LARGE_BAR if kind == LARGE else OTHERS_BAR
            ratio = result.plain / result.ours
            met = ratio >= bar and result.levels <= LEVELS_BAR
            missed |= not met
            print(
                f"{kind:<19}plain {result.plain:6.1f} ms, modbot {result.ours:6.1f} ms: {ratio:.2f} x as fast"
                f" (at least {bar}), {result.levels:.0f} levels apart (at most {LEVELS_BAR}){'' if met else '  MISSED'}"
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
