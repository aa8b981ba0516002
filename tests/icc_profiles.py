"""ICC profiles, written by hand: the smallest that say what a test needs. Numbers: ICC.1:2010 and the spaces' own."""

from __future__ import annotations

import struct

from PIL import ImageCms

_D50 = (0.9642, 1.0, 0.8249)


def _fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def profile(space: bytes, tags: dict[bytes, bytes], *, device: bytes = b"mntr", connection: bytes = b"XYZ ") -> bytes:
    """A version 2.1 profile: 128 bytes of header, the table of tags, the tags."""
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += padded
    header = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(body), b"\0" * 4, 0x02100000, device, space, connection, b"", b"acsp"
    )
    header += bytes(28) + _fixed(*_D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(*numbers: float) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*numbers)


def _gamma(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def _curve(*samples: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(f">I{len(samples)}H", len(samples), *(round(s * 65535) for s in samples))


def _text(text: bytes) -> bytes:
    return b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(79)


def rgb(red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...], curve: bytes) -> bytes:
    """A matrix profile; the primaries as XYZ, adapted to D50."""
    tags = {b"desc": _text(b"test"), b"wtpt": _xyz(*_D50)}
    tags |= {b"rXYZ": _xyz(*red), b"gXYZ": _xyz(*green), b"bXYZ": _xyz(*blue)}
    return profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def _srgb_light(sample: float) -> float:
    return sample / 12.92 if sample <= 0.04045 else ((sample + 0.055) / 1.055) ** 2.4


_SRGB_CURVE = _curve(*(_srgb_light(i / 1023) for i in range(1024)))

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SRGB_BY_HAND = rgb((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141), _SRGB_CURVE)
ADOBE_RGB = rgb((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457), _gamma(2.199))
DISPLAY_P3 = rgb((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407), _SRGB_CURVE)
GREY_LINEAR = profile(b"GRAY", {b"desc": _text(b"test"), b"wtpt": _xyz(*_D50), b"kTRC": _gamma(1.0)})


def ink() -> bytes:
    """A CMYK profile (a table of two steps an ink, to Lab) by which every ink is a grey that darkens by a fifth."""
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    clut = bytes(value for corner in range(16) for value in (255 - 51 * corner.bit_count(), 128, 128))
    table = b"mft1" + bytes(4) + struct.pack(">BBBx", 4, 3, 2) + identity
    table += bytes(range(256)) * 4 + clut + bytes(range(256)) * 3
    tags = {b"desc": _text(b"test"), b"wtpt": _xyz(*_D50), b"A2B0": table}
    return profile(b"CMYK", tags, device=b"prtr", connection=b"Lab ")
