"""Bytes into pixels: decoding as a viewer shows a picture, and the resampling that the models ask for.

The one place that touches Pillow and imagehash; OpenCV is loaded only where its resampling is asked for. Whatever the
bytes are, `decode` gives pictures or a `DecodeError`; no warning leaves, no program is started, and no more pixels are
decoded than the limits allow. Nothing is printed but what libtiff itself says of a broken TIFF on stderr: Pillow has no
switch for that.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TypeAlias, TypeVar

import imagehash
import numpy as np
from numpy.typing import NDArray
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

from modbot.models.preparation import Pixels
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

_BAND = 256

LONGEST_SIDE = 8192
"""Beyond this a picture is shrunk before it is padded to a square, which would need more memory than the picture."""

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


@dataclass(frozen=True)
class Frame:
    """One frame: its number in the file, from 0, and its picture."""

    index: int
    picture: Picture


@dataclass(frozen=True)
class Decoded:
    """What a file holds: `frames` in the order of the file, frame 0 always among them."""

    info: ImageInfo
    frames: list[Frame]


def decode(data: bytes, *, max_frames: int = 1, limits: Limits = DEFAULT_LIMITS) -> Decoded:
    """The image in `data`: upright, RGB, transparency on white.

    Of an animation, frame 0 and those that differ most from each other, `max_frames` together at most. A file that
    ends early gives what is there, and `info.truncated`.

    Raises:
        DecodeError: no picture can be had from these bytes.
    """

    def read(reading: _Reading) -> Decoded:
        frames = _most_different(reading, max_frames)
        width, height = frames[0].picture.size
        info = ImageInfo(
            width=width,
            height=height,
            format=reading.format,
            bytes=len(data),
            frames=reading.count,
            truncated=reading.partial,
        )
        return Decoded(info, frames)

    return _strict_then_lenient(data, limits, read)


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


def bounded(picture: Picture) -> Picture:
    """The picture, its longer side at most LONGEST_SIDE."""
    longest = max(picture.size)
    if longest <= LONGEST_SIDE:
        return picture
    width, height = (max(1, round(side * LONGEST_SIDE / longest)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def white_square(picture: Picture, size: int) -> Picture:
    """The picture in the middle of a white square, bicubic to `size` x `size`: padded first, then resized.

    The order matters: resized before padding, pixels at the border differ by up to 187 levels.
    """
    picture = bounded(picture)
    side = max(picture.size)
    square = picture
    if picture.width != picture.height:
        square = Image.new("RGB", (side, side), "white")
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square if side == size else square.resize((size, size), Image.Resampling.BICUBIC)


def black_corner(picture: Picture, size: int) -> Pixels:
    """The picture with black to its right and below it, to a square, bilinear to `size` x `size`.

    The bilinear of OpenCV: Pillow's blurs first where it shrinks, and is another picture.
    """
    import cv2

    pixels = np.asarray(bounded(picture))
    side = max(pixels.shape[:2])
    square = np.zeros((side, side, 3), dtype=np.uint8)
    square[: pixels.shape[0], : pixels.shape[1]] = pixels
    return np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def squeezed_jpeg(picture: Picture, *, size: int, crop: int) -> Picture:
    """The picture squeezed to `size` x `size` (bilinear), its middle `crop` x `crop` saved as JPEG and read again.

    A model that was trained on JPEGs scores their artefacts, too.
    """
    start = (size - crop) // 2
    small = picture.resize((size, size), Image.Resampling.BILINEAR).crop((start, start, start + crop, start + crop))
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

    def __init__(self, data: bytes, limits: Limits, *, lenient: bool) -> None:
        self._image = _open(data, limits.pixels)
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
            try:
                picture = self._render()
            except DecodeError:
                if not (self._lenient and self.count):
                    raise
                return
            yield Frame(self.count, picture)
            self.count += 1

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
            self.partial |= self.format in _COUNTED
            return False
        except DecodeError:
            if not self._lenient:
                raise
            return False
        return True

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


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """The file's header. Nothing is decoded yet."""
    try:
        with _pillow_errors():
            image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
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


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; what cannot be read turns nothing, as in a viewer."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - the parser raises whatever broken metadata provokes
        return 1


def _rgb_on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # The high byte, as Pillow itself reads the colour samples of a 16 bit file.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in {"I", "F"}:
        image = _stretched(image)
    if image.has_transparency_data:
        return _flattened(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _flattened(image: Image.Image) -> Image.Image:
    """The image on white, band by band: whole, the steps in between would need three times its memory."""
    flat = Image.new("RGB", image.size)
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height))).convert("RGBA")
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


def _most_different(frames: Iterable[Frame], limit: int) -> list[Frame]:
    """Frame 0 and those that differ most from each other, `limit` together at most, none twice.

    One pass that holds `limit` frames: while one is too many, of the two most alike the later goes. A frame that is
    unlike all others is never one of the two, so a single odd frame among hundreds stays.
    """
    kept: list[tuple[Frame, NDArray[np.float32]]] = []
    for frame in frames:
        thumbnail = np.asarray(frame.picture.resize((32, 32), Image.Resampling.BOX), dtype=np.float32).ravel()
        distances = [float(np.square(thumbnail - other).sum()) for _, other in kept]
        if kept and min(distances) == 0:
            continue
        kept.append((frame, thumbnail))
        if len(kept) > limit:
            del kept[_most_redundant([thumb for _, thumb in kept])]
    return [frame for frame, _ in kept]


def _most_redundant(thumbnails: list[NDArray[np.float32]]) -> int:
    """The later of the two that are most alike; of equal pairs the first."""
    pairs = ((i, j) for j in range(len(thumbnails)) for i in range(j))
    return min(pairs, key=lambda pair: float(np.square(thumbnails[pair[0]] - thumbnails[pair[1]]).sum()))[1]


def _strict_then_lenient(data: bytes, limits: Limits, read: Callable[[_Reading], T]) -> T:
    """What `read` makes of the file; of a broken one, what it makes of the part that can be had."""
    with _quiet:
        try:
            return read(_Reading(data, limits, lenient=False))
        except DecodeError as error:
            if error.kind != "decode_failed":
                raise
            strict = error
        with _lenience():
            try:
                return read(_Reading(data, limits, lenient=True))
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
    except (Image.DecompressionBombError, MemoryError) as error:
        raise DecodeError("too_large", str(error) or "it does not fit into memory") from error
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
