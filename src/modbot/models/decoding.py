"""Decoding in processes of its own, so that a hostile image takes down nothing but itself.

A decoder (`modbot.models.decoder`) is a child of the process that infers. It is asked over a socket for one stored
image at a time and answers with what the record says of it and with the model's input, 8 bits a sample: a few hundred
kilobytes, which a socket moves in a tenth of a millisecond. A decoder that crashes, or takes too long and is killed, is
replaced; its image becomes an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated

import msgspec
import numpy as np

from modbot.errors import ModbotError
from modbot.models.decoder_process import COMMAND, MEMORY, started
from modbot.models.preparation import Pixels, Preparation, PreparedFrame
from modbot.records.p1 import ImageInfo, RecordError

START_SECONDS = 60.0
"""How long a decoder may take until it is ready to be asked."""


class Bounds(msgspec.Struct, frozen=True):
    """What one image may take: `seconds` of time, and `memory`, bytes of address space of the process that decodes it.

    Pictures of 100 million pixels took up to 8 s.
    """

    seconds: float = 60.0
    memory: int = MEMORY


DEFAULT_BOUNDS = Bounds()


class Image(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks for the image stored at `path` under the digest `sha256`, and its `frames` most different frames."""

    path: str
    sha256: str
    frames: int
    preparation: Preparation


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks for the frame `index` alone."""

    path: str
    sha256: str
    index: int
    preparation: Preparation


Request = Image | Frame


class FrameHead(msgspec.Struct, frozen=True):
    """One frame, whose pixels follow: its number in the file, from 0, and its size upright."""

    index: int
    width: int
    height: int


class Given(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The picture that was asked for; `phash` and `info` only to a request for an image."""

    frames: Annotated[list[FrameHead], msgspec.Meta(min_length=1)]
    phash: str | None = None
    info: ImageInfo | None = None


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """There is no picture, for this reason."""

    error: RecordError


class Gone(msgspec.Struct, frozen=True, tag=True):
    """There are no such bytes."""


Reply = Given | Refused | Gone

LENGTH = 4
READY = b"\0" * LENGTH
"""What a decoder says when it can be asked."""

_LONGEST = 1 << 20
"""Bytes of a reply without its pixels, at most: what a decoder says is believed only so far."""

requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def framed(message: Request | Reply) -> bytes:
    """A message as it goes over the socket: its length, then itself."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH, "big") + body


class PreparedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image as the model takes it: its frames and, unless a single one was asked for, hash and what is known of it.

    `phash` is the perceptual hash, `info` what the record says of the image.
    """

    frames: list[PreparedFrame]
    phash: str | None
    info: ImageInfo | None


Answer = PreparedImage | RecordError | None
"""What was prepared; the error that stands for it; None: no such bytes are stored, or not what their digest says."""


class Decoders:
    """The decoders of this process: `add` starts some, requests wait until one is free.

    `limit`: how many there will be at most.

    Raises:
        ModbotError: from `add` and the futures: a decoder does not start.
    """

    def __init__(self, limit: int, *, bounds: Bounds = DEFAULT_BOUNDS, command: Sequence[str] = COMMAND) -> None:
        self._limit = limit
        self._bounds = bounds
        self._command = command
        self._threads = ThreadPoolExecutor(limit, thread_name_prefix="decode")
        self._idle: SimpleQueue[_Decoder] = SimpleQueue()
        self._count = 0
        self._alone = threading.Lock()

    def add(self, count: int) -> int:
        """Starts decoders until there are `count`, at most the limit, and gives their number; awaits none's readiness.

        Call it from a thread that lives as long as they are to: on Linux a process ends with the thread that started
        it.
        """
        with self._alone:
            while self._count < min(count, self._limit):
                self._idle.put(_Decoder(self._command, self._bounds))
                self._count += 1
            return self._count

    def image(self, path: Path, sha256: str, preparation: Preparation, *, frames: int) -> Future[Answer]:
        """The image stored at `path` under the digest, and at most `frames` of its frames."""
        request = Image(path=str(path), sha256=sha256, frames=frames, preparation=preparation)
        return self._threads.submit(self._ask, request)

    def frame(self, path: Path, sha256: str, preparation: Preparation, *, index: int) -> Future[Answer]:
        """One frame of the stored image."""
        request = Frame(path=str(path), sha256=sha256, index=index, preparation=preparation)
        return self._threads.submit(self._ask, request)

    def close(self) -> None:
        """Ends the decoders, once those at work have answered."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().end()

    def _ask(self, request: Request) -> Answer:
        try:
            with self._holding(1) as decoder:
                return decoder.ask(request)
        except _CrashedError:
            # Perhaps it was the machine's fault (out of memory) or that of the image before: once more, in a new
            # process, while no other decodes.
            with self._alone, self._holding(self._count) as decoder:
                return decoder.ask_again(request)

    @contextmanager
    def _holding(self, count: int) -> Iterator[_Decoder]:
        """A decoder, out of `count` that are free and kept from other work meanwhile."""
        held = [self._idle.get() for _ in range(count)]
        try:
            yield held[0]
        finally:
            for decoder in held:
                self._idle.put(decoder)


class _CrashedError(Exception):
    """The decoder ended in the middle of its work; the text says how."""


class _Decoder:
    """One decoder: a child process, started anew when it has ended."""

    def __init__(self, command: Sequence[str], bounds: Bounds) -> None:
        self._command = command
        self._bounds = bounds
        self._process = started(command, bounds.memory)

    def ask(self, request: Request) -> Answer:
        """The answer to a request.

        Raises:
            _CrashedError: the process ended instead.
            ModbotError: it does not start.
        """
        if not self._process.lives:
            self.end()
            self._process = started(self._command, self._bounds.memory)
        self._await_ready()
        deadline = time.monotonic() + self._bounds.seconds
        try:
            self._process.socket.settimeout(self._bounds.seconds)
            self._process.socket.sendall(framed(request))
            length = int.from_bytes(self._receive(LENGTH, deadline), "big")
            reply = _replies.decode(self._receive(min(length, _LONGEST), deadline).data)
            return self._answer(request, reply, deadline)
        except TimeoutError:
            self.end()
            return _failed(f"took longer than {self._bounds.seconds:g} s")
        except (EOFError, ConnectionError, msgspec.DecodeError):
            self._process.end(patience=1)
            raise _CrashedError(self._process.manner()) from None

    def ask_again(self, request: Request) -> Answer:
        """As `ask`, in a new process; that it ends as well is an answer."""
        self.end()
        try:
            return self.ask(request)
        except _CrashedError as error:
            return _failed(f"the decoder {error}")

    def end(self) -> None:
        """Ends the process, whatever it is at."""
        self._process.end()

    def _await_ready(self) -> None:
        if self._process.ready:
            return
        try:
            self._receive(len(READY), time.monotonic() + START_SECONDS)
        except (EOFError, ConnectionError):
            self._process.end(patience=1)
            raise ModbotError(f"a decoder process did not start: it {self._process.manner()}") from None
        except TimeoutError:
            self._process.end()
            raise ModbotError(f"a decoder process did not start within {START_SECONDS:g} s") from None
        self._process.ready = True

    def _receive(self, size: int, deadline: float) -> Pixels:
        """The next `size` bytes. Raises EOFError where there are no more, TimeoutError after the deadline."""
        received = np.empty(size, np.uint8)
        rest = received.data
        while rest:
            self._process.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            count = self._process.socket.recv_into(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        return received

    def _answer(self, request: Request, reply: Reply, deadline: float) -> Answer:
        """The reply and, if it is a picture, the pixels that follow it."""
        match reply:
            case Refused(error=error):
                return error
            case Gone():
                return None
        side = request.preparation.side
        heads = reply.frames[: request.frames if isinstance(request, Image) else 1]
        pixels = self._receive(len(heads) * side * side * 3, deadline).reshape(-1, side, side, 3)
        frames = [
            PreparedFrame(head.index, head.width, head.height, own) for head, own in zip(heads, pixels, strict=True)
        ]
        return PreparedImage(frames=frames, phash=reply.phash, info=reply.info)


def _failed(detail: str) -> RecordError:
    return RecordError(kind="decode_failed", detail=detail)
