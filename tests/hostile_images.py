"""Broken and hostile image files, the same ones every time: real ones of every format mutated, and known nasties."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image, PngImagePlugin

from tests.icc_profiles import ADOBE_RGB, ink, profile

WIDTH, HEIGHT = 96, 64


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002, ANN401 - as Pillow's save
    """The picture as a file."""
    out = BytesIO()
    # A copy: what the JPEG encoder leaves on a picture confuses that of TIFF.
    picture.copy().save(out, format=format, **options)
    return out.getvalue()


@cache
def photograph() -> Image.Image:
    """A part of a real one."""
    with Image.open(Path(skimage.data.__file__).parent / "astronaut.png") as astronaut:
        part = astronaut.convert("RGB").crop((100, 20, 388, 212)).resize((WIDTH, HEIGHT))
    part.info.clear()  # its profile; those that have one are given one
    return part


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@cache
def seeds() -> dict[str, bytes]:
    """Whole files of every format that is read, and of every kind that its decoder treats in a way of its own."""
    picture = photograph()
    turned = [
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        picture.rotate(180),
        picture.convert("L").convert("RGB"),
    ]
    pages: dict[str, Any] = {"save_all": True, "append_images": turned}
    film = pages | {"duration": 40}
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(picture.size))
    deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    return {
        "jpeg": encoded(picture, "JPEG", quality=90),
        "jpeg-progressive": encoded(picture, "JPEG", progressive=True, quality=80),
        "jpeg-grey": encoded(picture.convert("L"), "JPEG"),
        "jpeg-cmyk": encoded(picture.convert("CMYK"), "JPEG", icc_profile=ink()),
        "jpeg-exif-icc": encoded(picture, "JPEG", exif=_turned(6), icc_profile=ADOBE_RGB),
        "mpo": encoded(picture, "MPO", save_all=True, append_images=[turned[0].copy()]),
        "png": encoded(picture, "PNG"),
        "png-alpha": encoded(clear, "PNG", icc_profile=ADOBE_RGB),
        "png-palette": encoded(picture.quantize(32), "PNG", transparency=3),
        "png-16": encoded(Image.fromarray(deep), "PNG"),
        "apng": encoded(picture, "PNG", **film),
        "gif": encoded(picture, "GIF"),
        "gif-film": encoded(picture, "GIF", loop=0, **film),
        "webp": encoded(picture, "WEBP", quality=80, exif=_turned(3)),
        "webp-lossless": encoded(clear, "WEBP", lossless=True),
        "webp-film": encoded(picture, "WEBP", **film),
        "bmp": encoded(picture, "BMP"),
        "bmp-palette": encoded(picture.quantize(16), "BMP"),
        "tiff": encoded(picture, "TIFF"),
        "tiff-lzw": encoded(picture, "TIFF", compression="tiff_lzw"),
        "tiff-jpeg": encoded(picture, "TIFF", compression="jpeg"),
        "tiff-pages": encoded(picture, "TIFF", compression="tiff_adobe_deflate", **pages),
        "avif": encoded(picture, "AVIF", quality=70),
        "avif-film": encoded(picture, "AVIF", **film),
    }


def mutants() -> Iterator[tuple[str, bytes]]:
    """Every seed cut, flipped, spliced, stretched and with another's head, 14 times each."""
    files = seeds()
    names = list(files)
    for number, (name, data) in enumerate(files.items()):
        rng = random.Random(name)  # noqa: S311 - the same every time, and no secret
        other = files[names[(number + 5) % len(names)]]
        for percent in (10, 35, 60, 85, 97):
            yield f"{name}-cut-{percent}", data[: len(data) * percent // 100]
        for count in (1, 8, 64):
            flipped = bytearray(data)
            for _ in range(count):
                flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            yield f"{name}-flipped-{count}", bytes(flipped)
        head = bytearray(data)
        for _ in range(4):
            head[rng.randrange(8, min(len(data), 80))] = rng.randrange(256)
        yield f"{name}-head-scribbled", bytes(head)
        middle, span = len(data) // 2, len(data) // 8
        yield f"{name}-zeroed", data[:middle] + bytes(span) + data[middle + span :]
        yield f"{name}-hole", data[:middle] + data[middle + span :]
        yield f"{name}-doubled", data[:middle] + data[middle - span :]
        yield f"{name}-spliced", data[:middle] + other[len(other) // 2 :]
        yield f"{name}-other-head", other[:24] + data[24:]


def _chunk(kind: bytes, body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return struct.pack(">I", size) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2, pixels: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG of chunks; `pixels` are compressed into its IDAT."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = b"".join(chunks) + _chunk(b"IDAT", zlib.compress(pixels, 9)) + after
    return b"\x89PNG\r\n\x1a\n" + header + body + _chunk(b"IEND", b"")


def tiff(entries: dict[int, tuple[int, int, int]], *, following: int = 0, extra: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory at 8: tag -> (type, count, value); `following` is where the next is."""
    table = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", following) + extra


def _plain_tiff(
    width: int, height: int, *, compression: int = 1, strip: int = 0, size: int = 0
) -> dict[int, tuple[int, int, int]]:
    return {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, compression),
        262: (3, 1, 1),
        273: (4, 1, strip),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, size),
    }


def _deflated_tiff(width: int, height: int) -> bytes:
    strip = zlib.compress(bytes(width * height), 9)
    return tiff(_plain_tiff(width, height, compression=8, strip=122, size=len(strip)), extra=strip)


def gif(width: int, height: int, frames: int, *, delay: int = 0, frame: bytes | None = None) -> bytes:
    """A GIF with so many frames of one pixel each (or `frame`), and the canvas as said."""
    block = b"\x21\xf9\x04\x04" + struct.pack("<H", delay) + b"\0\0"
    block += frame or b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"
    loop = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    head = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return head + loop + block * frames + b";"


def _jpeg_sized(width: int, height: int, name: str = "jpeg") -> bytes:
    data = bytearray(seeds()[name])
    start = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    struct.pack_into(">HH", data, start + 5, height, width)
    return bytes(data)


def _many_scans(count: int) -> bytes:
    """A progressive JPEG of 4096 x 4096 that goes over all its blocks again and again."""
    data = encoded(Image.new("L", (4096, 4096), 128), "JPEG", progressive=True, quality=10)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def _exif(body: bytes) -> bytes:
    data = seeds()["jpeg"]
    segment = b"Exif\0\0" + body
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def _with_profile(icc: bytes) -> bytes:
    return encoded(photograph(), "PNG", icc_profile=icc)


def _webp_canvas(width: int, height: int) -> bytes:
    data = bytearray(seeds()["webp-film"])
    start = data.find(b"VP8X") + 12
    data[start : start + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def _avif_sized(width: int, height: int) -> bytes:
    data = bytearray(seeds()["avif"])
    struct.pack_into(">II", data, data.find(b"ispe") + 8, width, height)
    return bytes(data)


def _text_bomb(kind: bytes) -> bytes:
    bomb = zlib.compress(bytes(80 << 20), 9)
    name = {b"zTXt": b"Comment\0\0", b"iCCP": b"icc\0\0", b"iTXt": b"Comment\0\x01\0\0\0"}[kind]
    return png(1, 1, _chunk(kind, name + bomb), pixels=b"\0\0\0\0")


def _apng(*chunks: bytes, count: int) -> bytes:
    frame = zlib.compress(b"\0\xff\0\0")
    control = struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 0, 0, 0, 0)
    return png(
        1,
        1,
        _chunk(b"acTL", struct.pack(">II", count, 0)),
        _chunk(b"fcTL", control),
        pixels=b"\0\xff\0\0",
        after=b"".join(chunks) or _chunk(b"fdAT", struct.pack(">I", 2) + frame),
    )


def _fctl(width: int, height: int, dispose: int = 0, blend: int = 0) -> bytes:
    return _chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, width, height, 0, 0, 0, 0, dispose, blend))


def _deep_tiff(pages: int) -> bytes:
    """Directories that each name the next, all of one pixel."""
    size = 2 + 12 * 9 + 4
    out = bytearray(b"II*\0" + struct.pack("<I", 8))
    end = 8 + pages * size
    for page in range(pages):
        following = 0 if page == pages - 1 else len(out) + size
        out += tiff(_plain_tiff(1, 1, strip=end, size=1), following=following)[8:]
    return bytes(out) + b"\x80"


def _bmp(
    width: int, height: int, *, bits: int = 24, compression: int = 0, offset: int = 54, body: bytes = b""
) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, offset) + info + body


NASTIES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one-byte": lambda: b"\xff",
    "zeros": lambda: bytes(4096),
    "newlines": lambda: b"\n" * 4096,
    "bomb-png": lambda: png(20_000, 20_000, pixels=bytes(20 << 20)),
    "bomb-png-below-the-limit": lambda: png(9_900, 9_900, pixels=bytes(9_900 * (9_900 * 3 + 1))),
    "bomb-png-grey": lambda: png(60_000, 60_000, bits=1, colour=0, pixels=bytes(1 << 20)),
    "bomb-gif": lambda: gif(65_535, 65_535, 1),
    "bomb-gif-canvas-below-the-limit": lambda: gif(9_900, 9_900, 400),
    "bomb-gif-frame-beyond-its-canvas": lambda: gif(1, 1, 1, frame=b"\x2c\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0"),
    "bomb-webp": lambda: _webp_canvas(16_383, 16_383),
    "bomb-webp-largest": lambda: _webp_canvas(1 << 24, 1 << 24),
    "bomb-tiff": lambda: tiff(_plain_tiff(100_000, 100_000)),
    "bomb-tiff-deflate": lambda: _deflated_tiff(9_900, 9_900),
    "bomb-tiff-4-billion": lambda: tiff(_plain_tiff(0xFFFFFFFF, 0xFFFFFFFF)),
    "bomb-avif": lambda: _avif_sized(60_000, 60_000),
    "bomb-jpeg": lambda: _jpeg_sized(65_500, 65_500),
    "bomb-jpeg-below-the-limit": lambda: _jpeg_sized(9_900, 9_900),
    "bomb-jpeg-progressive": lambda: _jpeg_sized(9_900, 9_900, "jpeg-progressive"),
    "bomb-bmp": lambda: _bmp(2**31 - 1, 2**31 - 1),
    "bmp-negative": lambda: _bmp(-5, -2_147_483_648),
    "bmp-offset-beyond": lambda: _bmp(10, 10, offset=2**31 - 1),
    "bmp-rle-endless": lambda: _bmp(60, 60, bits=8, compression=1, offset=54, body=b"\0\2\xff\xff" * 4000),
    "bmp-bits": lambda: _bmp(10, 10, bits=77),
    "jpeg-no-width": lambda: _jpeg_sized(0, 64),
    "jpeg-no-height": lambda: _jpeg_sized(96, 0),
    "jpeg-many-scans": lambda: _many_scans(3_000),
    "jpeg-65535-markers": lambda: b"\xff\xd8" + b"\xff\xe0\0\2" * 65_535 + seeds()["jpeg"][2:],
    "jpeg-fill-bytes": lambda: b"\xff\xd8" + b"\xff" * (1 << 20) + seeds()["jpeg"][2:],
    "jpeg-segment-of-no-length": lambda: b"\xff\xd8\xff\xe1\0\0" + seeds()["jpeg"][2:],
    "exif-orientation-0": lambda: encoded(photograph(), "JPEG", exif=_turned(0)),
    "exif-orientation-9": lambda: encoded(photograph(), "JPEG", exif=_turned(9)),
    "exif-orientation-99999": lambda: _exif(tiff({0x0112: (4, 1, 99_999)})),
    "exif-orientation-text": lambda: _exif(tiff({0x0112: (2, 4, 0x36363636)})),
    "exif-orientation-rational-by-zero": lambda: _exif(tiff({0x0112: (5, 1, 26)}, extra=bytes(8))),
    "exif-recursive": lambda: _exif(tiff({0x8769: (4, 1, 8), 0xA005: (4, 1, 8)}, following=8)),
    "exif-counts-of-4-billion": lambda: _exif(tiff({0x0112: (3, 0xFFFFFFFF, 8), 0x010E: (2, 0xFFFFFFFF, 8)})),
    "exif-many-entries": lambda: _exif(b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" * 5_000),
    "icc-empty-header": lambda: _with_profile(bytes(128)),
    "icc-cut": lambda: _with_profile(ADOBE_RGB[:200]),
    "icc-huge": lambda: _with_profile(ADOBE_RGB + random.Random(1).randbytes(9 << 20)),  # noqa: S311 - as above
    "icc-of-other-colours": lambda: _with_profile(ink()),
    "icc-4-billion-tags": lambda: _with_profile(ADOBE_RGB[:128] + b"\xff" * 4 + ADOBE_RGB[132:]),
    "icc-tags-beyond": lambda: _with_profile(ADOBE_RGB[:136] + b"\xff\xff\xff\xf0" * 2 + ADOBE_RGB[144:]),
    "icc-curve-of-4-billion": lambda: _with_profile(
        ADOBE_RGB.replace(b"curv\0\0\0\0\0\0\0\1", b"curv\0\0\0\0\xff\xff\xff\xff")
    ),
    "icc-no-matrix": lambda: _with_profile(profile(b"RGB ", {b"wtpt": b"XYZ " + bytes(16)})),
    "text-bomb": lambda: _text_bomb(b"zTXt"),
    "text-bomb-international": lambda: _text_bomb(b"iTXt"),
    "icc-bomb": lambda: _text_bomb(b"iCCP"),
    "png-many-chunks": lambda: png(1, 1, _chunk(b"tEXt", b"a\0b") * 50_000, pixels=b"\0\0\0\0"),
    "png-chunk-of-2-gigabytes": lambda: png(1, 1, _chunk(b"tEXt", b"a\0b", length=2**31 - 1)),
    "png-chunk-of-4-gigabytes": lambda: png(1, 1, _chunk(b"tEXt", b"a\0b", length=2**32 - 1)),
    "png-of-no-width": lambda: png(0, 1),
    "png-palette-missing": lambda: png(4, 4, colour=3, pixels=bytes(20)),
    "png-of-no-colour-type": lambda: png(4, 4, colour=5, pixels=bytes(80)),
    "png-pixels-missing": lambda: png(64, 64),
    "png-pixels-too-many": lambda: png(1, 1, pixels=bytes(50 << 20)),
    "apng-4-billion-frames": lambda: _apng(count=2**32 - 1),
    "apng-no-frames": lambda: _apng(count=0),
    "apng-frame-outside": lambda: _apng(_fctl(2**31 - 1, 2**31 - 1), count=2),
    "apng-frame-of-no-size": lambda: _apng(_fctl(0, 0), count=2),
    "apng-bad-dispose": lambda: _apng(_fctl(1, 1, 99, 99), count=2),
    "apng-order": lambda: _apng(_fctl(1, 1), _fctl(1, 1), count=3),
    "gif-endless": lambda: gif(64, 64, 60_000),
    "gif-no-delay": lambda: gif(64, 64, 200, delay=0),
    "gif-of-no-size": lambda: gif(0, 0, 3),
    "gif-no-frames": lambda: gif(64, 64, 0),
    "gif-code-size": lambda: gif(64, 64, 3, frame=b"\x2c\0\0\0\0\x40\0\x40\0\0\xff\x02\x44\x01\0"),
    "gif-no-pixels": lambda: gif(64, 64, 3, frame=b"\x2c\0\0\0\0\x40\0\x40\0\0\x02\0"),
    "gif-comment-endless": lambda: gif(4, 4, 1)[:-1] + b"\x21\xfe" + (b"\xff" + b"a" * 255) * 20_000,
    "tiff-cycle": lambda: tiff(_plain_tiff(1, 1, strip=122, size=1), following=8, extra=b"\x80"),
    "tiff-many-pages": lambda: _deep_tiff(6_000),
    "tiff-strip-beyond": lambda: tiff(_plain_tiff(64, 64, strip=0x7FFFFFFF, size=0x7FFFFFFF)),
    "tiff-counts-of-4-billion": lambda: tiff(
        _plain_tiff(64, 64) | {273: (4, 0xFFFFFFFF, 8), 279: (4, 0xFFFFFFFF, 8), 320: (3, 0xFFFFFFFF, 8)}
    ),
    "tiff-samples": lambda: tiff(_plain_tiff(64, 64) | {277: (3, 1, 65_535)}),
    "tiff-compression": lambda: tiff(_plain_tiff(64, 64, compression=34_712, strip=122, size=4), extra=b"\0" * 4),
    "tiff-fax": lambda: tiff(
        _plain_tiff(8_000, 8_000, compression=4, strip=122, size=4096) | {258: (3, 1, 1)}, extra=bytes(4096)
    ),
    "avif-brand-only": lambda: b"\0\0\0\x18ftypavif\0\0\0\0avifmif1",
    "webp-size-lie": lambda: seeds()["webp"][:4] + b"\xff\xff\xff\xff" + seeds()["webp"][8:],
    "webp-header-only": lambda: b"RIFF\x04\0\0\0WEBP",
    "polyglot-gif-script": lambda: b"GIF89a/*" + b"\0" * 4 + b"*/=1;<script>alert(1)</script>",
    "polyglot-jpeg-zip": lambda: seeds()["jpeg"] + b"PK\x03\x04" + bytes(100),
    "polyglot-png-html": lambda: seeds()["png"] + b"<html><script>1</script>",
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "icon": lambda: encoded(photograph(), "ICO"),
    "jpeg-2000": lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "heif": lambda: b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100),
    "photoshop": lambda: b"8BPS\0\1" + bytes(100),
    "movie": lambda: b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(200),
    "pcx": lambda: encoded(photograph(), "PCX"),
    "targa": lambda: encoded(photograph(), "TGA"),
    "portable": lambda: b"P6 100000 100000 255\n",
    "text-in-png": lambda: encoded(photograph(), "PNG", pnginfo=_text()),
}
"""Files made to hurt, and ones that are no images at all, by what they are."""


def _text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 500_000, zip=True)
    return info


def hostile_images() -> Iterator[tuple[str, bytes]]:
    """All of them, by name."""
    yield from mutants()
    for name, make in NASTIES.items():
        yield name, make()
