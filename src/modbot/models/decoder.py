"""The process that decodes: what `modbot.models.decoding` starts, and talks to.

    python -P -m modbot.models.decoder SOCKET PARENT MEMORY

Bytes in, prepared pixels out, one image after the other, until the other end of the socket closes. It loads no model,
writes no file and knows no secret.
"""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from modbot.files.processes import end_with, give_large_blocks_back
from modbot.models import imaging
from modbot.models.decoding import (
    LENGTH,
    READY,
    Frame,
    FrameHead,
    Given,
    Gone,
    Image,
    Refused,
    Reply,
    Request,
    framed,
    requests,
)
from modbot.models.preparation import BlackCorner, Pixels, Preparation, SqueezedJpeg, WhiteSquare
from modbot.records.p1 import RecordError

Answer = Callable[[Request], tuple[Reply, list[Pixels]]]
"""The reply to a request, and the pixels of its frames."""


def prepare(picture: imaging.Picture, how: Preparation, *, of: tuple[int, int] | None = None) -> Pixels:
    """The picture as a model takes it; `of`: the size from which it was reduced while it was decoded, if it was."""
    match how:
        case WhiteSquare(size=size):
            return imaging.bgr(imaging.white_square(picture, size, of=of))
        case SqueezedJpeg(size=size, crop=crop):
            return imaging.bgr(imaging.squeezed_jpeg(picture, size=size, crop=crop, of=of))
        case BlackCorner(size=size):
            return imaging.black_corner(picture, size)


def answer(request: Request) -> tuple[Reply, list[Pixels]]:
    """Reads, verifies, decodes and prepares what is asked for. Whatever the bytes do to Python, there is an answer."""
    try:
        data = Path(request.path).read_bytes()
    except OSError:
        return Gone(), []
    if hashlib.sha256(data).hexdigest() != request.sha256:
        return Gone(), []
    try:
        return _image(data, request) if isinstance(request, Image) else _frame(data, request)
    except imaging.DecodeError as error:
        return Refused(error=RecordError(kind=error.kind, detail=error.detail)), []
    except MemoryError:
        return Refused(error=RecordError(kind="too_large", detail="it does not fit into memory")), []
    except Exception as error:  # noqa: BLE001 - one image must not take its shard with it; it is a record that says so
        detail = f"{type(error).__name__}: {error}".partition("\n")[0]
        return Refused(error=RecordError(kind="decode_failed", detail=detail)), []


def _image(data: bytes, request: Image) -> tuple[Reply, list[Pixels]]:
    how = request.preparation
    decoded = imaging.decode(data, max_frames=request.frames, reduced_to=how.reduced_to)
    pixels = [prepare(frame.picture, how, of=(frame.width, frame.height)) for frame in decoded.frames]
    heads = [FrameHead(frame.index, frame.width, frame.height) for frame in decoded.frames]
    return Given(frames=heads, phash=imaging.phash(decoded.frames[0].picture), info=decoded.info), pixels


def _frame(data: bytes, request: Frame) -> tuple[Reply, list[Pixels]]:
    picture = imaging.decode_frame(data, request.index)
    pixels = prepare(picture, request.preparation)
    return Given(frames=[FrameHead(request.index, picture.width, picture.height)]), [pixels]


def _mute_libraries() -> None:
    """Leaves stderr to Python: libtiff writes there what is wrong with a file, and Pillow has no switch for it."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)


def serve(answer: Answer = answer) -> None:
    """The life of a decoder: a request, its answer, the next request."""
    descriptor, parent, memory = map(int, sys.argv[1:])
    # Whoever ends a run ends the process that asked; this one follows, and must not seem to have crashed before.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_with(parent)
    give_large_blocks_back()
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # What a crash leaves would be the size of a picture, and nobody would look at it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # An asker that is gone, at whatever moment, waits for no answer.
    with suppress(ConnectionError), socket.socket(fileno=descriptor) as asker, asker.makefile("rb") as asked:
        _mute_libraries()
        imaging.warm_up()
        asker.sendall(READY)
        while length := asked.read(LENGTH):
            reply, pixels = answer(requests.decode(asked.read(int.from_bytes(length, "big"))))
            asker.sendall(framed(reply))
            for each in pixels:
                asker.sendall(each.data)


if __name__ == "__main__":
    serve()
