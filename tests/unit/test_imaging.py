"""Every kind of file gives upright RGB pixels or a DecodeError; what is read in part is marked, in every thread."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import cv2
import imagehash
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, features

from modbot.models import imaging
from modbot.models.imaging import DecodeError, decode, decode_frame
from modbot.models.preparation import Limits

LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}}
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow cannot write AVIF")


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002, ANN401 - as Pillow's save
    out = BytesIO()
    picture.save(out, format=format, **options)
    return out.getvalue()


def scene(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """A drawing without any symmetry."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height), "navy")
    draw = ImageDraw.Draw(picture)
    for _ in range(8):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        draw.ellipse((x, y, x + width / 4, y + height / 5), fill=colour)
    draw.rectangle((0, 0, width // 3, height // 4), fill="red")
    return picture


def pixels(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.asarray(picture).astype(np.int16)


def only(data: bytes) -> Image.Image:
    (frame,) = decode(data).frames
    assert frame.picture.mode == "RGB"
    return frame.picture


def rejected(data: bytes, **options: Any) -> str:  # noqa: ANN401 - handed on
    with pytest.raises(DecodeError) as caught:
        decode(data, **options)
    assert caught.value.detail
    return caught.value.kind


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_file_gives_its_own_pixels(name: str) -> None:
    data = encoded(scene(), name, **LOSSLESS[name])
    decoded = decode(data)
    info = decoded.info
    assert (info.width, info.height, info.format, info.bytes) == (60, 40, name, len(data))
    assert (info.frames, info.truncated) == (1, False)
    assert decoded.frames[0].index == 0
    assert decoded.frames[0].picture.tobytes() == scene().tobytes()


@pytest.mark.parametrize("name", ["JPEG", "GIF", pytest.param("AVIF", marks=needs_avif)])
def test_a_lossy_file_gives_nearly_its_pixels(name: str) -> None:
    decoded = decode(encoded(scene(300, 200), name))
    assert decoded.info.format == name
    assert np.abs(pixels(decoded.frames[0].picture) - pixels(scene(300, 200))).mean() < 6


STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_exif_orientation_is_undone(name: str, orientation: int) -> None:
    turn = STORED_AS[orientation]
    stored = scene() if turn is None else scene().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(stored, name, exif=exif, **LOSSLESS[name]))
    assert (decoded.info.width, decoded.info.height) == (60, 40)
    assert decoded.frames[0].picture.tobytes() == scene().tobytes()


def test_a_rotated_jpeg_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = only(encoded(scene().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95))
    assert picture.size == (60, 40)
    assert np.abs(pixels(picture) - pixels(scene())).mean() < 12


def test_broken_exif_turns_nothing() -> None:
    data = encoded(scene(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\0")
    assert only(data).size == (60, 40)


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_transparency_lies_on_white(name: str) -> None:
    picture = Image.new("RGBA", (2, 1))
    picture.putpixel((0, 0), (200, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 51))
    seen = only(encoded(picture, name, lossless=True, exact=True) if name == "WEBP" else encoded(picture, name))
    assert seen.getpixel((0, 0)) == (255, 255, 255)
    assert seen.getpixel((1, 0)) == (204, 204, 204)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_tall_transparent_picture_is_what_it_would_be_in_one_piece(mode: str) -> None:
    picture = scene(30, 700).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((30, 700)))
    picture = picture.quantize(64) if mode == "P" else picture.convert(mode)
    canvas = Image.new("RGBA", picture.size, "white")
    canvas.alpha_composite(picture.convert("RGBA"))
    assert only(encoded(picture, "PNG")).tobytes() == canvas.convert("RGB").tobytes()


def test_grey_with_alpha_lies_on_white() -> None:
    picture = Image.new("LA", (2, 1), (0, 255))
    picture.putpixel((0, 0), (0, 0))
    assert list(only(encoded(picture, "PNG")).tobytes()) == [255, 255, 255, 0, 0, 0]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"])
def test_a_palette_with_transparency_lies_on_white(transparency: int | bytes) -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.putdata([0, 1, 2])
    seen = only(encoded(picture, "PNG", transparency=transparency))
    assert list(seen.tobytes()) == [255, 0, 0, 255, 255, 255, 0, 0, 255]


def test_a_transparent_colour_of_an_rgb_png_is_white() -> None:
    picture = Image.new("RGB", (2, 1), (10, 20, 30))
    picture.putpixel((1, 0), (1, 2, 3))
    assert list(only(encoded(picture, "PNG", transparency=(10, 20, 30))).tobytes()) == [255, 255, 255, 1, 2, 3]


def test_a_level_of_16_bits_that_is_transparent_lies_on_white() -> None:
    """Its neighbour, which has the same high byte, does not."""
    picture = Image.fromarray(np.array([[300, 301], [40000, 300]], np.uint16))
    grey = [[255, 1], [156, 255]]
    assert np.asarray(only(encoded(picture, "PNG", transparency=300))).tolist() == [
        [[level] * 3 for level in row] for row in grey
    ]


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_16_bits_are_scaled(name: str) -> None:
    samples = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    assert list(only(encoded(Image.fromarray(samples), name)).getchannel(0).tobytes()) == [0, 0, 1, 128, 255]


def test_samples_without_a_fixed_range_are_spread() -> None:
    integers = np.array([[-1000, 0, 1000]], dtype=np.int32)
    assert list(only(encoded(Image.fromarray(integers), "TIFF")).getchannel(0).tobytes()) == [0, 128, 255]
    floats = np.array([[0.0, 0.5, np.nan, 1.0]], dtype=np.float32)
    assert list(only(encoded(Image.fromarray(floats), "TIFF")).getchannel(0).tobytes()) == [0, 128, 0, 255]
    nothing = np.array([[np.nan, np.inf]], dtype=np.float32)
    assert list(only(encoded(Image.fromarray(nothing), "TIFF")).getchannel(0).tobytes()) == [0, 0]
    assert list(only(encoded(Image.fromarray(np.full((1, 2), 7.0, np.float32)), "TIFF")).getchannel(0).tobytes()) == [
        0,
        0,
    ]


def test_cmyk_and_bilevel_become_rgb() -> None:
    red = only(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)).getpixel((8, 8))
    assert isinstance(red, tuple)
    assert red[0] > 245
    assert max(red[1:]) < 10
    assert only(encoded(Image.new("1", (4, 4), 1), "PNG")).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"just text in a file named .png",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(200),
        b"\x1aE\xdf\xa3" + bytes(200),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"%PDF-1.7\n",
        b"RIFF\0\0\0\0AVI LIST",
    ],
    ids=["empty", "text", "svg", "mp4", "webm", "eps", "pdf", "avi"],
)
def test_what_is_no_image_is_said_to_be_none(data: bytes) -> None:
    assert rejected(data) == "not_an_image"


def test_formats_that_are_not_read_are_no_images() -> None:
    assert rejected(encoded(scene(), "PPM")) == "not_an_image"
    assert rejected(encoded(scene(), "ICO")) == "not_an_image"


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_file_cut_in_its_header_is_broken_but_an_image(name: str) -> None:
    assert rejected(encoded(scene(), name)[:12]) == "decode_failed"


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_file_that_ends_early_gives_the_part_that_is_there(name: str) -> None:
    whole = encoded(scene(200, 200), name, interlace=0)
    decoded = decode(whole[: len(whole) * 2 // 3])
    assert decoded.info.truncated
    assert (decoded.info.width, decoded.info.height) == (200, 200)
    seen, wanted = pixels(decoded.frames[0].picture), pixels(decode(whole).frames[0].picture)
    top, bottom = (slice(0, 60), slice(180, 200)) if name != "BMP" else (slice(140, 200), slice(0, 20))
    assert np.abs(seen[top] - wanted[top]).mean() < 1
    assert np.abs(seen[bottom] - wanted[bottom]).mean() > 1
    assert decode_frame(whole[: len(whole) * 2 // 3], 0).tobytes() == decoded.frames[0].picture.tobytes()


def test_a_progressive_jpeg_that_ends_early_is_marked() -> None:
    whole = encoded(scene(200, 200), "JPEG", progressive=True)
    assert decode(whole[: len(whole) // 2]).info.truncated


@pytest.mark.parametrize("name", ["WEBP", pytest.param("AVIF", marks=needs_avif)])
def test_a_file_whose_decoder_wants_all_of_it_is_broken_when_cut(name: str) -> None:
    whole = encoded(scene(200, 200), name)
    assert rejected(whole[: len(whole) * 2 // 3]) == "decode_failed"


def test_threads_do_not_take_anothers_broken_image_for_a_whole_one() -> None:
    whole = encoded(scene(400, 400), "JPEG", quality=95)
    cut = whole[: len(whole) // 2]

    def truncated(i: int) -> bool:
        return decode(whole if i % 4 == 0 else cut).info.truncated

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(truncated, range(240))) == [i % 4 != 0 for i in range(240)]


def bomb_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def test_pixels_are_counted_before_they_are_decoded() -> None:
    assert rejected(bomb_png(60_000, 60_000)) == "too_large"
    assert rejected(bomb_png(9_500, 10_600)) == "too_large"  # Pillow itself would only warn
    canvas = bytearray(encoded(scene(), "GIF"))
    canvas[6:10] = b"\xff\xff\xff\xff"
    assert rejected(bytes(canvas)) == "too_large"
    assert rejected(encoded(scene(), "PNG"), limits=Limits(pixels=60 * 40 - 1)) == "too_large"
    assert decode(encoded(scene(), "PNG"), limits=Limits(pixels=60 * 40)).info.width == 60


def animation(frames: Sequence[Image.Image], name: str) -> bytes:
    options = {"lossless": True} if name == "WEBP" else {}
    return encoded(frames[0], name, save_all=True, append_images=list(frames[1:]), duration=40, **options)


def drifting(count: int) -> list[Image.Image]:
    """Frames that differ from each other a little: a dot that wanders."""
    frames = []
    for i in range(count):
        frame = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(frame).ellipse((i % 50, i % 37, i % 50 + 9, i % 37 + 9), fill="black")
        frames.append(frame)
    return frames


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("odd", [1, 57, 99])
def test_one_odd_frame_in_a_hundred_is_found(name: str, odd: int) -> None:
    frames = drifting(100)
    ImageDraw.Draw(frames[odd]).rectangle((8, 8, 55, 55), fill="red")
    data = animation(frames, name)
    decoded = decode(data, max_frames=4)
    chosen = [frame.index for frame in decoded.frames]
    assert decoded.info.frames == 100
    assert not decoded.info.truncated
    assert len(chosen) == 4
    assert chosen == sorted(chosen)
    assert chosen[0] == 0
    assert odd in chosen
    for frame in decoded.frames:
        assert np.abs(pixels(frame.picture) - pixels(frames[frame.index])).mean() < 2
        assert decode_frame(data, frame.index).tobytes() == frame.picture.tobytes()
    assert [frame.index for frame in decode(data, max_frames=4).frames] == chosen


def test_frames_that_look_alike_are_given_once() -> None:
    first, second = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    decoded = decode(animation([first, second] * 5, "WEBP"), max_frames=5)
    assert [frame.index for frame in decoded.frames] == [0, 1]
    assert decoded.info.frames == 10


def test_pages_of_a_tiff_are_frames() -> None:
    data = encoded(scene(), "TIFF", save_all=True, append_images=[scene(30, 50, seed=1)])
    decoded = decode(data, max_frames=3)
    assert [frame.picture.size for frame in decoded.frames] == [(60, 40), (30, 50)]
    assert (decoded.info.width, decoded.info.height, decoded.info.frames) == (60, 40, 2)


def test_the_further_pictures_of_an_mpo_are_not_shown() -> None:
    data = encoded(scene(), "MPO", save_all=True, append_images=[scene(30, 50, seed=1)])
    decoded = decode(data, max_frames=3)
    assert (decoded.info.format, decoded.info.frames, len(decoded.frames)) == ("MPO", 1, 1)


def test_an_animation_beyond_the_limits_is_read_in_part() -> None:
    data = animation(drifting(20), "GIF")
    for limits in (Limits(frames=5), Limits(animation_pixels=5 * 64 * 64)):
        decoded = decode(data, max_frames=3, limits=limits)
        assert decoded.info.frames == 5
        assert decoded.info.truncated


@pytest.mark.parametrize("name", ["GIF", "PNG"])
def test_an_animation_that_ends_early_gives_the_frames_that_are_there(name: str) -> None:
    data = animation(drifting(40), name)
    decoded = decode(data[: len(data) // 2], max_frames=3)
    assert decoded.info.truncated
    assert 10 < decoded.info.frames < 30
    assert len(decoded.frames) == 3


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_reduced_jpeg_is_told_with_its_own_size(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = scene(1200, 900).filter(ImageFilter.GaussianBlur(6))
    data = encoded(stored, "JPEG", exif=exif, quality=95)
    (frame,) = decode(data, reduced_to=224).frames
    upright = (900, 1200) if orientation == 6 else (1200, 900)
    assert (frame.width, frame.height) == upright
    assert frame.picture.size == (upright[0] // 4, upright[1] // 4)
    info = decode(data, reduced_to=224).info
    assert info == decode(data).info
    assert (info.width, info.height) == upright


@pytest.mark.parametrize("size", [(2003, 1501), (1501, 2003), (1999, 1999)])
def test_a_reduced_jpeg_is_nearly_the_picture_that_a_model_takes(size: tuple[int, int]) -> None:
    data = encoded(scene(*size).filter(ImageFilter.GaussianBlur(3)), "JPEG", quality=95)
    whole = only(data)
    (frame,) = decode(data, reduced_to=336).frames
    assert frame.picture.size == tuple(-(-side // 4) for side in size)
    square = imaging.white_square(frame.picture, 224, of=size)
    assert np.abs(pixels(square) - pixels(imaging.white_square(whole, 224))).max() <= 12
    squeezed = imaging.squeezed_jpeg(frame.picture, size=256, crop=224, of=size)
    difference = np.abs(pixels(squeezed) - pixels(imaging.squeezed_jpeg(whole, size=256, crop=224)))
    assert difference.max() <= 24  # the JPEG that is made of it widens what it is given
    assert difference.mean() <= 1


def test_no_side_is_reduced_below_what_was_asked_for() -> None:
    def sides(width: int, height: int, kind: str = "JPEG") -> tuple[int, int]:
        (frame,) = decode(encoded(scene(width, height), kind), reduced_to=100).frames
        assert (frame.width, frame.height) == (width, height)
        return frame.picture.size

    assert sides(800, 800) == (100, 100)
    assert sides(1600, 799) == (400, 200)
    assert sides(1600, 199) == (1600, 199)
    assert sides(800, 800, "PNG") == (800, 800)


def test_a_frame_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DecodeError, match="no frame 5"):
        decode_frame(animation(drifting(3), "GIF"), 5)


SEEDS = [
    *(encoded(scene(24, 16), name) for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")),
    encoded(scene(24, 16), "TIFF", compression="tiff_lzw"),
    encoded(scene(24, 16).quantize(8), "PNG", transparency=0),
    animation(drifting(4), "GIF"),
    animation(drifting(4), "PNG"),
]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6),
    end=st.none() | st.integers(0, 5000),
)
@example(seed=SEEDS[0], edits=[], end=20)
def test_any_bytes_give_pictures_or_a_decode_error(seed: bytes, edits: list[tuple[int, int]], end: int | None) -> None:
    data = bytearray(seed)
    for position, value in edits:
        data[position % len(data)] = value
    try:
        decoded = decode(bytes(data[:end]), max_frames=3, limits=Limits(pixels=1_000_000))
    except DecodeError as error:
        kind = error.kind
    else:
        assert decoded.frames[0].index == 0
        kind = decoded.frames[0].picture.mode
    assert kind in {"RGB", "not_an_image", "decode_failed", "too_large"}


def test_phash_is_imagehash_of_the_full_picture() -> None:
    assert imaging.phash(scene(300, 200)) == str(imagehash.phash(scene(300, 200)))
    assert len(imaging.phash(Image.new("RGB", (1, 1)))) == 16


def test_a_white_square_pads_first_and_resizes_then() -> None:
    red = Image.new("RGB", (100, 50), "red")
    square = imaging.white_square(red, 50)
    assert [square.getpixel((25, y)) for y in (2, 25, 47)] == [(255, 255, 255), (255, 0, 0), (255, 255, 255)]
    reference = Image.new("RGB", (100, 100), "white")
    reference.paste(red, (0, 25))
    assert square.tobytes() == reference.resize((50, 50), Image.Resampling.BICUBIC).tobytes()
    assert imaging.white_square(Image.new("RGB", (50, 50), "red"), 50).getcolors() == [(2500, (255, 0, 0))]


def padded_then_resized(picture: Image.Image, size: int) -> Image.Image:
    """The plain way, as the authors of the taggers do it."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square.resize((size, size), Image.Resampling.BICUBIC)


def noise(width: int, height: int, seed: int) -> Image.Image:
    """Black and white at random: every weight counts, and resampling overshoots everywhere."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.choice(np.array([0, 255], np.uint8), (height, width, 3)))


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 40) | st.integers(1, 900),
    height=st.integers(1, 40) | st.integers(1, 900),
    size=st.sampled_from([1, 2, 7, 64, 299, 448]),
    seed=st.integers(0, 9),
)
@example(width=1, height=1, size=448, seed=0)
@example(width=1, height=1400, size=448, seed=0)
@example(width=1400, height=1, size=448, seed=0)
@example(width=448, height=447, size=448, seed=0)
@example(width=447, height=448, size=448, seed=0)
@example(width=899, height=900, size=2, seed=0)
@example(width=3, height=2, size=448, seed=0)
def test_a_white_square_is_the_plain_ways(width: int, height: int, size: int, seed: int) -> None:
    picture = noise(width, height, seed)
    ours, plain = imaging.white_square(picture, size), padded_then_resized(picture, size)
    assert ours.tobytes() == plain.tobytes()


@pytest.mark.parametrize("size", [(3000, 2000), (2000, 3000), (4096, 30), (30, 4096)])
def test_a_large_picture_is_squared_the_plain_way(size: tuple[int, int]) -> None:
    picture = noise(*size, seed=1)
    assert imaging.white_square(picture, 448).tobytes() == padded_then_resized(picture, 448).tobytes()


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    size=st.sampled_from([1, 7, 32, 64]),
    seed=st.integers(0, 9),
)
@example(width=3000, height=2000, size=320, seed=0)
@example(width=1500, height=2001, size=320, seed=0)
@example(width=192, height=192, size=32, seed=0)
@example(width=191, height=191, size=32, seed=0)
@example(width=900, height=1, size=32, seed=0)
@example(width=1, height=900, size=32, seed=0)
def test_a_black_corner_is_that_of_the_whole_picture(width: int, height: int, size: int, seed: int) -> None:
    picture = noise(width, height, seed)
    square = np.zeros((max(width, height), max(width, height), 3), np.uint8)
    square[:height, :width] = np.asarray(picture)
    plain = cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
    assert imaging.black_corner(picture, size).tobytes() == plain.tobytes()


def test_a_very_long_picture_is_padded_within_bounds() -> None:
    square = imaging.white_square(Image.new("RGB", (200_000, 100), "black"), 448)
    assert square.size == (448, 448)
    assert square.getpixel((224, 10)) == (255, 255, 255)
    assert imaging.bounded(Image.new("RGB", (200_000, 1))).size == (imaging.LONGEST_SIDE, 1)
