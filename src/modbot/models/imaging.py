"""Bytes into pixels: decoding as a viewer shows a picture, and the resampling that the models ask for.

The one place that touches Pillow and imagehash; OpenCV is loaded only where its resampling is asked for. Whatever the
bytes are, `decode` gives pictures or a `DecodeError`; no warning leaves, no program is started, and no more pixels are
decoded than the limits allow. Nothing is printed but what libtiff itself says of a broken TIFF on stderr: Pillow has no
switch for that, but a decoder's process has (`modbot.models.decoder`).
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import count, islice
from typing import TypeAlias, TypeVar

import imagehash
import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from modbot.models.colour import ToSrgb, to_srgb
from modbot.models.frames import Thumbnail, most_different
from modbot.models.preparation import DEFAULT_LIMITS, Limits, Pixels
from modbot.records.p1 import ImageInfo

Picture: TypeAlias = Image.Image
"""An RGB picture, as a viewer shows it."""

T = TypeVar("T")

# Naming the plugins keeps Pillow from importing all of its forty, and from offering those that start a program (EPS).
_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    GifImagePlugin.GifImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    AvifImagePlugin.AvifImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)
"""The formats that are read, by Pillow's names. A JPEG that holds several pictures is reported as `MPO`."""

# Formats whose further frames a viewer shows; the further pictures of an MPO are depth and gain maps.
_WITH_FRAMES = frozenset({"GIF", "WEBP", "PNG", "TIFF", "AVIF"})
# Formats whose header says how many frames follow, so that missing ones are noticed.
_COUNTED = frozenset({"WEBP", "PNG", "AVIF"})

_GIF_TRAILER = ord(";")
_TIFF_PIECES = (
    (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.STRIPBYTECOUNTS),
    (TiffImagePlugin.TILEOFFSETS, TiffImagePlugin.TILEBYTECOUNTS),
)

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*")
_EXIF_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What a profile has to be of; every other mode's is of RGB.
_MODES = {"1": "L", "L": "L", "LA": "L", "La": "L", "CMYK": "CMYK"}
_ON_THEIR_SIDE = frozenset(_EXIF_TURNS[orientation] for orientation in (5, 6, 7, 8))

_BAND = 256
"""Rows that are worked on at once where a whole picture would need memory for steps in between."""

_FAR_LARGER = 6
"""A picture that many times as large as it is to be has so few rows that are read that they are taken one by one."""

LONGEST_SIDE = 8192
"""Beyond this a picture is shrunk before it is padded to a square, which would need more memory than the picture."""

# Pictures that are made by machines carry how they were made, which can be more than the megabyte that Pillow allows.
PngImagePlugin.MAX_TEXT_CHUNK = 16 << 20
logging.getLogger("PIL").addHandler(logging.NullHandler())


class DecodeError(Exception):
    """The bytes give no picture. `kind` is `not_an_image`, `decode_failed` or `too_large`; `detail` says why."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True)
class Frame:
    """One frame: its number in the file, from 0, its picture, and its size in pixels, upright.

    The picture is smaller than that where a reduced one was asked for.
    """

    index: int
    picture: Picture
    width: int
    height: int


@dataclass(frozen=True)
class Decoded:
    """What a file holds: `frames` in the order of the file, frame 0 always among them."""

    info: ImageInfo
    frames: list[Frame]


def decode(
    data: bytes, *, max_frames: int = 1, reduced_to: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> Decoded:
    """The image in `data`: upright, in sRGB, transparency on white.

    Of an animation, frame 0 and those that differ most from each other, `max_frames` together at most. A file that
    ends early gives what is there, and `info.truncated`. With `reduced_to`, a JPEG is decoded to a half, a quarter or
    an eighth of its size, as long as both sides keep so many pixels: faster, and not quite the same picture.

    Raises:
        DecodeError: no picture can be had from these bytes.
    """

    def read(reading: _Reading) -> Decoded:
        frames = _chosen(reading, max_frames)
        info = ImageInfo(
            width=frames[0].width,
            height=frames[0].height,
            format=reading.format,
            bytes=len(data),
            frames=reading.count,
            truncated=reading.partial,
        )
        return Decoded(info, frames)

    return _strict_then_lenient(data, limits, read, reduced_to=reduced_to)


def decode_frame(data: bytes, index: int, *, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Frame `index` alone, with the pixels that `decode` gives it.

    Raises:
        DecodeError: no picture can be had from these bytes, or they hold no such frame.
    """

    def read(reading: _Reading) -> Picture:
        for frame in reading:
            if frame.index == index:
                return frame.picture
        raise DecodeError("decode_failed", f"there is no frame {index} in this file of {reading.count}")

    return _strict_then_lenient(data, limits, read)


def phash(picture: Picture) -> str:
    """The 64-bit perceptual hash of the full picture, 16 hex digits."""
    return str(imagehash.phash(picture))


def warm_up() -> None:
    """Loads what the first hash would load (SciPy), while nobody waits for it."""
    phash(Image.new("RGB", (1, 1)))


def bounded(picture: Picture) -> Picture:
    """The picture, its longer side at most LONGEST_SIDE."""
    longest = max(picture.size)
    if longest <= LONGEST_SIDE:
        return picture
    width, height = (max(1, round(side * LONGEST_SIDE / longest)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def white_square(picture: Picture, size: int, *, of: tuple[int, int] | None = None) -> Picture:
    """The picture in the middle of a white square, bicubic to `size` x `size`: as padded first, then resized.

    The order matters: resized before padding, pixels at the border differ by up to 187 levels. But the large square is
    never made. Pillow resizes horizontally, rounds, and resizes vertically; white stays white under either. `of`: the
    width and height from which the picture was reduced while it was decoded, if it was.
    """
    if of is not None and of != picture.size:
        return _reduced_on_white(picture, size, *of)
    picture = bounded(picture)
    width, height = picture.size
    if width < height:
        return _columns_on_white(picture, size)
    if width > height:
        rows = picture.resize((size, height), Image.Resampling.BICUBIC)
        picture = Image.new("RGB", (size, width), "white")
        picture.paste(rows, (0, (width - height) // 2))
    return picture if picture.size == (size, size) else picture.resize((size, size), Image.Resampling.BICUBIC)


def _columns_on_white(picture: Picture, size: int) -> Picture:
    """`white_square` of a picture that is higher than wide: only the columns in which it can be seen are made."""
    width, side = picture.size
    left = (side - width) // 2
    # A bicubic sample sees two samples to each side, or as many times two as it shrinks them. Padding beyond that of
    # the last that sees the picture is left out, by whole samples on both scales that Pillow's 32 bits hold exactly.
    sees = math.ceil(2 * max(1.0, side / size))
    step = size // (size & -size)
    first = max(0, left - 2 * sees - 1) * size // side // step * step
    last = min(size, -(-((left + width + 2 * sees + 1) * size // side + 1) // step) * step)
    start, end = first * side / size, last * side / size
    origin, until = math.floor(start), math.ceil(end)
    columns = Image.new("RGB", (last - first, side))
    for top in range(0, side, _BAND):
        rows = min(_BAND, side - top)
        padded = Image.new("RGB", (until - origin, rows), "white")
        padded.paste(picture.crop((0, top, width, top + rows)), (left - origin, 0))
        box = (start - origin, 0, end - origin, rows)
        columns.paste(padded.resize((last - first, rows), Image.Resampling.BICUBIC, box=box), (0, top))
    square = Image.new("RGB", (size, size), "white")
    square.paste(columns.resize((last - first, size), Image.Resampling.BICUBIC), (first, 0))
    return square


def _reduced_on_white(picture: Picture, size: int, width: int, height: int) -> Picture:
    """`white_square` of a reduced picture: its padding is that of the whole one, to the fraction of a pixel."""
    side, scale = max(width, height), round(width / picture.width)
    left, top = (side - width) // 2 / scale, (side - height) // 2 / scale
    x, y = math.ceil(left) - left, math.ceil(top) - top
    box = (x, y, x + side / scale, y + side / scale)
    padded = Image.new("RGB", (math.ceil(box[2]), math.ceil(box[3])), "white")
    # Of the last row or column of a side that is padded, only a part may be picture.
    seen = Image.new("L", picture.size, 255)
    right, bottom = picture.width - 1, picture.height - 1
    if width > height:
        seen.paste(round(255 * (height / scale - bottom)), (0, bottom, *picture.size))
    elif width < height:
        seen.paste(round(255 * (width / scale - right)), (right, 0, *picture.size))
    padded.paste(picture, (math.ceil(left), math.ceil(top)), seen)
    return padded.resize((size, size), Image.Resampling.BICUBIC, box=box)


def bgr(picture: Picture) -> Pixels:
    """The picture's samples, [height, width, 3], blue first. Pillow reorders them far faster than numpy."""
    return np.frombuffer(picture.tobytes("raw", "BGR"), np.uint8).reshape(picture.height, picture.width, 3)


def black_corner(picture: Picture, size: int) -> Pixels:
    """The picture with black to its right and below it, to a square, bilinear to `size` x `size`; blue first.

    The bilinear of OpenCV: Pillow's blurs first where it shrinks, and is another picture.
    """
    import cv2

    picture = bounded(picture)
    side = max(picture.size)
    square = np.zeros((side, side, 3), dtype=np.uint8)
    if side < _FAR_LARGER * size:
        square[: picture.height, : picture.width] = bgr(picture)
    else:
        for top in _rows_read(picture.height, side / size):
            rows = bgr(picture.crop((0, top, picture.width, min(top + 2, picture.height))))
            square[top : top + len(rows), : picture.width] = rows
    return np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _rows_read(height: int, scale: float) -> Iterator[int]:
    """The first of the two rows that OpenCV's bilinear reads for each row that it makes, down to `height`."""
    for row in count():
        top = math.floor((row + 0.5) * scale - 0.5)
        if top >= height:
            return
        yield top


def squeezed_jpeg(picture: Picture, *, size: int, crop: int, of: tuple[int, int] | None = None) -> Picture:
    """The picture squeezed to `size` x `size` (bilinear), its middle `crop` x `crop` saved as JPEG and read again.

    A model that was trained on JPEGs scores their artefacts, too. `of`: as for `white_square`.
    """
    width, height = of or picture.size
    scale = round(width / picture.width)
    small = picture.resize((size, size), Image.Resampling.BILINEAR, box=(0, 0, width / scale, height / scale))
    start = (size - crop) // 2
    small = small.crop((start, start, start + crop, start + crop))
    jpeg = BytesIO()
    small.save(jpeg, format="JPEG")
    with Image.open(jpeg, formats=("JPEG",)) as again:
        again.load()
        return again


class _Reading:
    """One pass over the frames of one file, in their order.

    `count` is how many frames were read so far, `partial` whether something could not be, or was beyond the limits.
    A lenient reading takes what a broken file gives; a strict one raises.
    """

    def __init__(self, data: bytes, limits: Limits, *, lenient: bool, reduced_to: int | None = None) -> None:
        self._data = BytesIO(data)
        self._image = _open(self._data, limits.pixels)
        self._reduced_from: tuple[int, int] | None = None
        if reduced_to is not None and isinstance(self._image, JpegImagePlugin.JpegImageFile):
            self._reduced_from = self._image.size
            self._image.draft(None, (reduced_to, reduced_to))
        self._limits = limits
        self._lenient = lenient
        self._turn: Image.Transpose | None = None
        self.format = self._image.format or ""
        self.count = 0
        self.partial = lenient

    def __iter__(self) -> Iterator[Frame]:
        """The frames.

        Raises:
            DecodeError: a frame is broken; in a lenient reading, the first one.
        """
        pixels = 0
        while self.count == 0 or self._advance():
            _check_size(self._image, self._limits.pixels)
            pixels += self._image.width * self._image.height
            if self.count and (self.count >= self._limits.frames or pixels > self._limits.animation_pixels):
                self.partial = True
                return
            self.partial |= self.format == "TIFF" and _reaches_beyond(self._image, len(self._data.getbuffer()))
            try:
                picture = self._render()
            except DecodeError:
                if not (self._lenient and self.count):
                    raise
                return
            yield Frame(self.count, picture, *self._upright_size(picture))
            self.count += 1

    def _upright_size(self, picture: Picture) -> tuple[int, int]:
        if self._reduced_from is None:
            return picture.size
        width, height = self._reduced_from
        return (height, width) if self._turn in _ON_THEIR_SIDE else (width, height)

    def _frames_follow(self) -> bool:
        if self.format in _COUNTED:
            return self.count < int(getattr(self._image, "n_frames", 1))
        return self.format in _WITH_FRAMES

    def _advance(self) -> bool:
        """Goes to the next frame, if there is one."""
        if not self._frames_follow():
            return False
        try:
            with _pillow_errors():
                self._image.seek(self.count)
        except EOFError:
            self.partial |= self.format in _COUNTED or (self.format == "GIF" and not self._at_trailer())
            return False
        except DecodeError:
            if not self._lenient:
                raise
            return False
        return True

    def _at_trailer(self) -> bool:
        """Whether what was read last says that the GIF ends here, and not only its bytes."""
        return self._data.getbuffer()[self._data.tell() - 1] == _GIF_TRAILER

    def _render(self) -> Picture:
        with _pillow_errors(eof="the frame ends early"):
            self._image.load()
            if self.count == 0:
                self._turn = _EXIF_TURNS.get(_orientation(self._image))
            picture = _rgb_on_white(self._image)
            if self._turn is not None:
                return picture.transpose(self._turn)
            # The next frame is drawn over this one's memory.
            return picture.copy() if picture is self._image and self._frames_follow() else picture


def _open(file: BytesIO, max_pixels: int) -> Image.Image:
    """The file's header. Nothing is decoded yet."""
    try:
        with _pillow_errors():
            image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        data = file.getvalue()
        if _looks_like_image(data):
            raise DecodeError("decode_failed", "the file begins as an image, but its header is broken") from None
        detail = "the file is empty" if not data else f"none of the formats that are read ({', '.join(FORMATS)})"
        raise DecodeError("not_an_image", detail) from None
    _check_size(image, max_pixels)
    return image


def _looks_like_image(data: bytes) -> bool:
    boxed = (data[:4], data[8:12]) == (b"RIFF", b"WEBP") or data[4:12] in {b"ftypavif", b"ftypavis"}
    return boxed or data.startswith(_SIGNATURES)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height} pixels"
        raise DecodeError("too_large", f"{size} are more than the {max_pixels:,} that are decoded")


def _reaches_beyond(image: Image.Image, size: int) -> bool:
    """Whether a strip or tile of the TIFF page ends beyond the file; its decoders may fill in what they miss."""
    tags = getattr(image, "tag_v2", {})
    try:
        return any(
            offset + count > size
            for offsets, counts in _TIFF_PIECES
            for offset, count in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
        )
    except (TypeError, ValueError, SyntaxError):
        return True


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; what cannot be read turns nothing, as in a viewer."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - the parser raises whatever broken metadata provokes
        return 1


def _rgb_on_white(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        # The high byte, as Pillow itself reads the colour samples of a 16 bit file; the level that is transparent is
        # told by both.
        levels = np.asarray(image)
        grey = (levels >> 8).astype(np.uint8)
        if (transparent := image.info.get("transparency")) is not None:
            grey[levels == transparent] = 255
        image = Image.fromarray(grey)
    elif image.mode in {"I", "F"}:
        image = _stretched(image)
    mode = _MODES.get(image.mode, "RGB")
    convert = to_srgb(profile, mode) if isinstance(profile, bytes) else None
    if image.has_transparency_data:
        return _flattened(image, mode, convert)
    if convert is not None:
        return convert(image if image.mode == mode else image.convert(mode))
    return image if image.mode == "RGB" else image.convert("RGB")


def _flattened(image: Image.Image, mode: str, convert: ToSrgb | None) -> Image.Image:
    """The image on white, band by band: whole, the steps in between would need three times its memory."""
    flat = Image.new("RGB", image.size)
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height))).convert("RGBA")
        if convert is not None:
            alpha = band.getchannel("A")
            band = convert(band.convert(mode))
            band.putalpha(alpha)
        canvas = Image.new("RGBA", band.size, "white")
        canvas.alpha_composite(band)
        flat.paste(canvas.convert("RGB"), (0, top))
    return flat


def _stretched(image: Image.Image) -> Image.Image:
    """Samples of no fixed range (32 bit integers, floats) spread over 0..255; what is not finite is black."""
    samples = np.asarray(image, dtype=np.float64)
    finite = np.isfinite(samples)
    if not finite.any():
        return Image.new("L", image.size)
    low, high = np.min(samples[finite]), np.max(samples[finite])
    spread = np.where(finite, samples - low, 0.0) * (255.0 / (high - low) if high > low else 0.0)
    return Image.fromarray(np.rint(spread).astype(np.uint8))


def _chosen(frames: Iterable[Frame], limit: int) -> list[Frame]:
    """As `most_different`; a frame that is alone is not looked at, which would cost a fifth of its decoding."""
    frames = iter(frames)
    first = deque(islice(frames, 2))
    if len(first) == 1:
        return [*first]
    return most_different(((frame, _thumbnail(frame.picture)) for frame in _emptied(first, frames)), limit)


def _emptied(first: deque[Frame], frames: Iterator[Frame]) -> Iterator[Frame]:
    """The first frames and the others, none of them held once it is given."""
    while first:
        yield first.popleft()
    yield from frames


def _thumbnail(picture: Picture) -> Thumbnail:
    return np.asarray(picture.resize((32, 32), Image.Resampling.BOX), dtype=np.float32).ravel()


def _strict_then_lenient(
    data: bytes, limits: Limits, read: Callable[[_Reading], T], *, reduced_to: int | None = None
) -> T:
    """What `read` makes of the file; of a broken one, what it makes of the part that can be had."""
    with _quiet:
        try:
            return read(_Reading(data, limits, lenient=False, reduced_to=reduced_to))
        except DecodeError as error:
            if error.kind != "decode_failed":
                raise
            strict = error
        with _lenience():
            try:
                return read(_Reading(data, limits, lenient=True, reduced_to=reduced_to))
            except DecodeError as error:
                raise (error if error.kind == "too_large" else strict) from None


@contextmanager
def _pillow_errors(*, eof: str | None = None) -> Iterator[None]:
    """Turns whatever the bytes provoke in Pillow into a DecodeError; the end of the frames is one only with `eof`."""
    try:
        yield
    except (DecodeError, UnidentifiedImageError):
        raise
    except EOFError as error:
        if eof is None:
            raise
        raise DecodeError("decode_failed", eof) from error
    except Image.DecompressionBombError as error:
        raise DecodeError("too_large", "its header claims far more pixels than are decoded") from error
    except MemoryError as error:
        raise DecodeError("too_large", "it does not fit into memory") from error
    except Exception as error:
        raise DecodeError("decode_failed", f"{error}".partition("\n")[0] or type(error).__name__) from error


class _PerThread(threading.local):
    """Pillow's switch for reading broken files, with a value of its own in every thread.

    Pillow has one switch for the process and only ever asks whether it is true. Switched for all, it would let
    another thread's broken image pass for a whole one.
    """

    on = False

    def __bool__(self) -> bool:
        return self.on


_lenient = _PerThread()
ImageFile.LOAD_TRUNCATED_IMAGES = _lenient  # type: ignore[assignment]  # read as a truth value only


@contextmanager
def _lenience() -> Iterator[None]:
    _lenient.on = True
    try:
        yield
    finally:
        _lenient.on = False


class _Quiet:
    """Silences Pillow's warnings while any thread decodes: what they say of an image stands in its record.

    The filters of `warnings` belong to the process and are restored by the last to leave; entered by every thread for
    itself, `catch_warnings` would restore them in the wrong order.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.close()


_quiet = _Quiet()
