"""Embedded profiles are followed as a viewer follows them, and ignored where a viewer cannot."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from modbot.models.colour import to_srgb
from modbot.models.imaging import decode
from tests.icc_profiles import ADOBE_RGB, DISPLAY_P3, GREY_LINEAR, SRGB, SRGB_BY_HAND, ink

PATCH = (200, 60, 40)


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002, ANN401 - as Pillow's save
    out = BytesIO()
    picture.save(out, format=format, **options)
    return out.getvalue()


def seen(picture: Image.Image, profile: bytes, format: str = "PNG", **options: Any) -> tuple[int, ...]:  # noqa: A002, ANN401 - as above
    """The first pixel of the decoded file."""
    (frame,) = decode(encoded(picture, format, icc_profile=profile, **options)).frames
    assert frame.picture.mode == "RGB"
    colour = frame.picture.getpixel((0, 0))
    assert isinstance(colour, tuple)
    return colour


def patch(colour: Any = PATCH, mode: str = "RGB") -> Image.Image:  # noqa: ANN401 - whatever the mode takes
    return Image.new(mode, (32, 32), colour)


@pytest.mark.parametrize("profile", [SRGB, SRGB_BY_HAND])
def test_srgb_in_any_spelling_leaves_the_pixels_alone(profile: bytes) -> None:
    assert to_srgb(profile, "RGB") is None
    assert seen(patch(), profile) == PATCH


# Worked out from the primaries and curves of the two spaces, in floating point.
@pytest.mark.parametrize(
    ("profile", "wanted"), [(ADOBE_RGB, (231, 57, 34)), (DISPLAY_P3, (217, 42, 23))], ids=["Adobe RGB", "Display P3"]
)
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_a_wider_space_is_narrowed(
    profile: bytes,
    wanted: tuple[int, ...],
    format: str,  # noqa: A002 - as Pillow's save
    options: dict[str, Any],
) -> None:
    assert seen(patch(), profile, format, **options) == pytest.approx(wanted, abs=3)


def test_a_palette_and_transparency_are_converted_alike() -> None:
    wanted = seen(patch(), ADOBE_RGB)
    assert seen(patch().quantize(2), ADOBE_RGB) == wanted
    assert seen(patch((*PATCH, 255), "RGBA"), ADOBE_RGB) == wanted
    half = seen(patch((*PATCH, 51), "RGBA"), ADOBE_RGB)
    assert half == pytest.approx([channel * 0.2 + 255 * 0.8 for channel in wanted], abs=1)
    assert seen(patch((*PATCH, 0), "RGBA"), ADOBE_RGB) == (255, 255, 255)


def test_a_grey_profile_is_of_grey_images() -> None:
    # Linear light of 64/255 is sRGB's 137.
    assert seen(patch(64, "L"), GREY_LINEAR) == pytest.approx((137, 137, 137), abs=1)
    assert seen(patch((64, 255), "LA"), GREY_LINEAR) == pytest.approx((137, 137, 137), abs=1)
    assert seen(patch(), GREY_LINEAR) == PATCH
    assert seen(patch(64, "L"), ADOBE_RGB) == (64, 64, 64)


def test_samples_of_16_bits_follow_their_profile() -> None:
    samples = Image.fromarray(np.full((4, 4), 64 << 8, np.uint16))
    assert seen(samples, GREY_LINEAR) == pytest.approx((137, 137, 137), abs=1)
    assert seen(samples, ADOBE_RGB) == (64, 64, 64)


def test_of_colours_of_16_bits_the_high_byte_is_followed() -> None:
    """Written by hand: Pillow has no such pictures to write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + b"".join(bytes((sample, 255)) for sample in PATCH)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    for profile, wanted in ((b"", PATCH), (DISPLAY_P3, seen(patch(), DISPLAY_P3))):
        colours = chunk(b"iCCP", b"test\0\0" + zlib.compress(profile)) if profile else b""
        body = header + colours + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
        (frame,) = decode(b"\x89PNG\r\n\x1a\n" + body).frames
        assert frame.picture.getpixel((0, 0)) == wanted


def test_a_picture_that_lies_on_its_side_is_converted_and_turned() -> None:
    left = patch()
    left.paste((10, 200, 90), (0, 16, 32, 32))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (frame,) = decode(encoded(left, "PNG", icc_profile=DISPLAY_P3, exif=exif)).frames
    assert frame.picture.getpixel((31, 0)) == seen(patch(), DISPLAY_P3)
    assert frame.picture.getpixel((0, 0)) == seen(patch((10, 200, 90)), DISPLAY_P3)


def test_inks_without_a_profile_are_plain() -> None:
    (frame,) = decode(encoded(patch((51, 102, 204, 128), "CMYK"), "TIFF")).frames
    wanted = [(255 - ink) * (255 - 128) / 255 for ink in (51, 102, 204)]
    assert frame.picture.getpixel((0, 0)) == pytest.approx(wanted, abs=1)


def test_what_a_png_says_of_colour_without_a_profile_is_not_followed() -> None:
    chunks = PngInfo()
    chunks.add(b"gAMA", struct.pack(">I", 100_000))
    chunks.add(b"cHRM", struct.pack(">8I", *[31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000]))
    chunks.add(b"cICP", bytes([9, 16, 0, 1]))
    data = encoded(patch(), "PNG", pnginfo=chunks)
    assert b"gAMA" in data
    (frame,) = decode(data).frames
    assert frame.picture.getpixel((0, 0)) == PATCH


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_inks_are_what_their_profile_says(format: str) -> None:  # noqa: A002 - as Pillow's save
    """A profile whose inks are grey, whatever their names: naively, full cyan would be no red, all green and blue."""
    options = {"quality": 100} if format == "JPEG" else {}
    red, green, blue = seen(patch((255, 0, 0, 0), "CMYK"), ink(), format, **options)
    assert max(red, green, blue) - min(red, green, blue) <= 2
    assert 20 < red < 240
    naive = seen(patch((255, 0, 0, 0), "CMYK"), SRGB, format, **options)
    assert naive == pytest.approx((0, 255, 255), abs=3)


@pytest.mark.parametrize(
    "profile",
    [b"", b"\0", SRGB[:100], ADOBE_RGB[:-40], b"\0" * 4096, ADOBE_RGB[:12] + b"link" + ADOBE_RGB[16:], bytes(9 << 20)],
    ids=["empty", "one byte", "header cut", "table cut", "zeros", "device link", "huge"],
)
def test_a_profile_that_cannot_be_used_is_ignored(profile: bytes) -> None:
    assert to_srgb(profile, "RGB") is None
    assert seen(patch(), profile, "TIFF") == PATCH


@settings(max_examples=200, deadline=None)
@given(
    profile=st.sampled_from([ADOBE_RGB, GREY_LINEAR, ink()]),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8),
    mode=st.sampled_from(["L", "RGB", "CMYK"]),
)
def test_a_broken_profile_fails_no_image(profile: bytes, edits: list[tuple[int, int]], mode: str) -> None:
    broken = bytearray(profile)
    for position, value in edits:
        broken[position % len(broken)] = value
    seen(Image.new(mode, (4, 4)), bytes(broken), "TIFF")


def test_frames_of_an_animation_are_converted_each() -> None:
    frames = [patch(), patch((10, 200, 90))]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, icc_profile=ADOBE_RGB)
    decoded = decode(data, max_frames=2).frames
    one_by_one = [seen(frame, ADOBE_RGB) for frame in frames]
    assert [frame.picture.getpixel((0, 0)) for frame in decoded] == one_by_one
    assert one_by_one[0] != PATCH
    assert one_by_one[1] != (10, 200, 90)
