"""The sample images: photographs that installed packages carry, and drawings made here.

Photographs are read where their package was installed (the `demo` extra) and never copied into the repository;
docs/licences.md names the licence of each. The drawings are the odd formats that a day of Discord brings.
The same Pillow gives the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

LARGEST = "panorama.jpg"
"""The 6000 x 4000 one: the slowest to fetch and decode."""


@dataclass(frozen=True)
class Photograph:
    """One photograph inside an installed package: its file there, its licence, whom to credit."""

    package: str
    path: str
    licence: str
    credit: str

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def read(self) -> bytes:
        """The file's bytes. Raises SystemExit with the way out where the package or the file is missing."""
        try:
            return Path(str(distribution(self.package).locate_file(self.path))).read_bytes()
        except (PackageNotFoundError, FileNotFoundError):
            raise SystemExit(
                f"samples: the photograph {self.name} comes with the package {self.package}, which is not installed.\n"
                "Run `make setup`, or install the demo extra: pip install -e '.[demo]'"
            ) from None


def _skimage(name: str, licence: str, credit: str) -> Photograph:
    return Photograph("scikit-image", f"skimage/data/{name}", licence, credit)


def _sklearn(name: str, credit: str) -> Photograph:
    return Photograph("scikit-learn", f"sklearn/datasets/images/{name}", "CC BY 2.0", credit)


PHOTOGRAPHS = (
    _skimage("astronaut.png", "public domain", "NASA, Great Images database"),
    _skimage("brick.png", "CC0", "CC0Textures, Bricks25"),
    _skimage("camera.png", "CC0", "Lav Varshney"),
    _skimage("cell.png", "CC0", "Paul Müller and others, doi.org/10.1364/OE.26.010729"),
    _skimage("chelsea.png", "CC0", "Stefan van der Walt"),
    _skimage("clock_motion.png", "public domain", "Stefan van der Walt"),
    _skimage("coffee.png", "CC0", "Rachel Michetti, courtesy of Pikolo Espresso Bar"),
    _skimage("coins.png", "no known copyright restrictions", "Brooklyn Museum Collection"),
    _skimage("grass.png", "CC0", "linolafett, DeviantArt"),
    _skimage("gravel.png", "CC0", "CC0Textures, Gravel04"),
    _skimage("hubble_deep_field.jpg", "public domain", "NASA"),
    _skimage("retina.jpg", "CC0", "Mikael Häggström, Wikimedia Commons"),
    _skimage("rocket.jpg", "public domain", "SpaceX"),
    _sklearn("china.jpg", "danielbuechele, flickr.com/photos/danielbuechele"),
    _sklearn("flower.jpg", "vultilion, flickr.com/photos/vultilion"),
    Photograph("mahotas", "mahotas/demos/data/luispedro.jpg", "MIT", "Luis Pedro Coelho"),
)

Colour = tuple[int, int, int]
_NIGHT: Colour = (18, 24, 58)
_SKY: Colour = (126, 190, 232)
_SUN: Colour = (250, 204, 84)
_SAIL: Colour = (246, 240, 228)
_HULL: Colour = (150, 54, 44)
_SEA: Colour = (34, 92, 140)
_HILL: Colour = (88, 136, 78)
_LEAF: Colour = (46, 104, 66)


def drawings(*, with_largest: bool = True) -> dict[str, bytes]:
    """The drawings by file name, among them a cut-off JPEG and a text that calls itself a PNG."""
    harbour = _harbour(640, 480)
    made = {
        "harbour.jpg": _encode(harbour, "JPEG", quality=92),
        "harbour_resent.jpg": _encode(harbour, "JPEG", quality=84),
        "sticker.png": _encode(_fish(), "PNG"),
        "pixel_art.png": _encode(_invader(), "PNG"),
        "depth_map.png": _encode(_depth_map(), "PNG"),
        "lanterns.webp": _encode(_lanterns(), "WEBP", quality=85),
        "spinner.gif": _animation("GIF", [_spinner(turn, 8) for turn in range(8)]),
        "wave.webp": _animation("WEBP", [_wave(turn, 6) for turn in range(6)]),
        "print_ready.jpg": _encode(_tiles().convert("CMYK"), "JPEG", quality=90),
        "holiday.jpg": _rotated_by_exif(_harbour(480, 360, sky=_NIGHT)),
        "dot.png": _encode(Image.new("RGB", (1, 1), _SUN), "PNG"),
        "cut_off.jpg": _cut_off(_encode(_tiles(), "JPEG", quality=90)),
        "notes.png": b"This is a text file that calls itself a picture.\n",
    }
    if with_largest:
        made[LARGEST] = _encode(_harbour(6000, 4000, sky=(236, 160, 120)), "JPEG", quality=80)
    return made


def pictures(*, with_largest: bool = True) -> dict[str, bytes]:
    """Every sample file by name. `with_largest=False` leaves the 6000 x 4000 one out, for tests in a hurry."""
    return {photo.name: photo.read() for photo in PHOTOGRAPHS} | drawings(with_largest=with_largest)


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's own options
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _animation(kind: str, frames: list[Image.Image]) -> bytes:
    return _encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=120, loop=0)


def _rotated_by_exif(upright: Image.Image) -> bytes:
    """A JPEG that lies on its side, with the EXIF orientation (6) that sets it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encode(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)


def _cut_off(jpeg: bytes) -> bytes:
    return jpeg[: len(jpeg) * 3 // 5]


def _harbour(width: int, height: int, sky: Colour = _SKY) -> Image.Image:
    image = Image.new("RGB", (width, height), sky)
    draw = ImageDraw.Draw(image)

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x * width, y * height) for x, y in points]

    draw.ellipse(at((0.70, 0.10), (0.84, 0.10 + 0.14 * width / height)), fill=_SUN)
    draw.polygon(at((0, 0.62), (0.22, 0.34), (0.42, 0.62)), fill=_HILL)
    draw.polygon(at((0.26, 0.62), (0.50, 0.42), (0.76, 0.62)), fill=_LEAF)
    draw.rectangle(at((0, 0.62), (1, 1)), fill=_SEA)
    draw.polygon(at((0.52, 0.72), (0.52, 0.28), (0.74, 0.68)), fill=_SAIL)
    draw.polygon(at((0.40, 0.72), (0.80, 0.72), (0.72, 0.84), (0.48, 0.84)), fill=_HULL)
    for row in range(5):
        draw.line(at((0.05 + 0.1 * row, 0.88 + 0.02 * row), (0.35 + 0.1 * row, 0.88 + 0.02 * row)), _SKY, height // 120)
    return image


def _fish() -> Image.Image:
    image = Image.new("RGBA", (320, 320), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.polygon([(60, 160), (10, 100), (10, 220)], fill=(240, 120, 60, 255))
    draw.ellipse((50, 80, 300, 240), fill=(240, 140, 70, 255), outline=(120, 50, 20, 255), width=6)
    for x in range(110, 230, 40):
        draw.arc((x, 100, x + 40, 220), 270, 90, fill=(255, 220, 180, 128), width=8)
    draw.ellipse((240, 130, 264, 154), fill=(20, 20, 30, 255))
    return image


def _invader() -> Image.Image:
    rows = ("..1..1..", "...22...", "..2222..", ".232232.", "22222222", "2.2222.2", "2.2..2.2", "...44...")
    image = Image.new("P", (8, 8))
    image.putpalette([*(12, 12, 28), *(240, 200, 60), *(90, 200, 120), *(240, 240, 240), *(200, 70, 90)])
    image.putdata([0 if cell == "." else int(cell) for row in rows for cell in row])
    return image.resize((256, 256), Image.Resampling.NEAREST)


def _depth_map() -> Image.Image:
    """16 bit grey: a slope with a pit, from 0 to 65535."""
    side = 256
    samples = bytearray()
    for y in range(side):
        for x in range(side):
            pit = math.exp(-((x - 170) ** 2 + (y - 90) ** 2) / 1800)
            samples += round(65535 * (x + y) / (2 * side - 2) * (1 - pit)).to_bytes(2, "little")
    return Image.frombytes("I;16", (side, side), bytes(samples))


def _lanterns() -> Image.Image:
    image = Image.new("RGB", (600, 400), _NIGHT)
    draw = ImageDraw.Draw(image)
    for i in range(6):
        x, y = 60 + 95 * i, 120 + 60 * (i % 3)
        draw.line((x, 0, x, y), (90, 80, 70), 3)
        draw.ellipse((x - 34, y, x + 34, y + 90), fill=(226, 84 + 16 * i, 56))
        draw.rectangle((x - 18, y - 6, x + 18, y + 4), fill=(60, 40, 30))
        draw.rectangle((x - 18, y + 86, x + 18, y + 96), fill=(60, 40, 30))
    return image


def _tiles() -> Image.Image:
    image = Image.new("RGB", (480, 480), _SAIL)
    draw = ImageDraw.Draw(image)
    for row in range(6):
        for column in range(6):
            left, top = 80 * column, 80 * row
            colour = (_HULL, _SEA, _LEAF, _SUN)[(row * 3 + column * 5) % 4]
            draw.pieslice(
                (left + 4, top + 4, left + 76, top + 76), 90 * (row + column), 90 * (row + column) + 270, colour
            )
    return image


def _spinner(turn: int, turns: int) -> Image.Image:
    image = Image.new("RGB", (200, 200), _SAIL)
    draw = ImageDraw.Draw(image)
    for i in range(turns):
        angle = 2 * math.pi * i / turns
        x, y = 100 + 66 * math.cos(angle), 100 + 66 * math.sin(angle)
        shade = 40 + 200 * ((i - turn) % turns) // turns
        draw.ellipse((x - 18, y - 18, x + 18, y + 18), fill=(shade, shade, 230))
    return image


def _wave(turn: int, turns: int) -> Image.Image:
    image = Image.new("RGB", (320, 200), _SKY)
    draw = ImageDraw.Draw(image)
    crest = [(x, 100 + 36 * math.sin(2 * math.pi * (x / 160 + turn / turns))) for x in range(321)]
    draw.polygon([(0, 200), *crest, (320, 200)], fill=_SEA)
    draw.ellipse((250, 20, 290, 60), fill=_SUN)
    return image
