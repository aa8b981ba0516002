"""Decoding in processes of its own, so that a hostile image takes down nothing but itself.

A decoder (`modbot.models.decoder`) is a child of the process that infers. It is asked over a socket for one stored
image at a time and answers with what the record says of it and with the model's input, 8 bits a sample: a few hundred
kilobytes, which a socket moves in a tenth of a millisecond. A decoder that crashes, or takes too long and is killed, is
replaced; its image becomes an error.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import msgspec
import numpy as np

from modbot.errors import ModbotError
from modbot.models.preparation import Pixels, Preparation, PreparedFrame
from modbot.records.p1 import ImageInfo, RecordError

T = TypeVar("T")

COMMAND = (sys.executable, "-P", "-m", "modbot.models.decoder")
"""Starts a decoder. Not even the working directory's modules are its own (-P)."""

START_SECONDS = 60.0
"""How long a decoder may take until it is ready to be asked."""

_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON", "TMPDIR", "VIRTUAL_ENV")
"""What a decoder inherits, by how the names begin: whatever takes it over finds no token there."""


class Bounds(msgspec.Struct, frozen=True):
    """What one image may take: `seconds` of time, and `memory`, bytes of address space of the process that decodes it.

    A picture of 100 million pixels takes 1.3 GB while it is turned upright and put on white.
    """

    seconds: float = 60.0
    memory: int = 3 << 30


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
    """One frame: its number in the file, from 0, its size upright, and the shape of its pixels, which follow."""

    index: int
    width: int
    height: int
    shape: tuple[int, int, int]


class Given(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to a request; `phash` and `info` only to one for an image."""

    frames: list[FrameHead]
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

requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def framed(message: Request | Reply) -> bytes:
    """A message as it goes over the socket: its length, then itself."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH, "big") + body


class PreparedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image as the model takes it: perceptual hash, what the record says of it, and its frames."""

    phash: str
    info: ImageInfo
    frames: list[PreparedFrame]


class Decoders:
    """The decoders of this process: `add` starts some, requests wait until one is free.

    `limit`: how many there will be at most. Every future gives what was prepared, the error that stands for it, or None
    where the stored bytes are not there, or not what their digest says.

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

    def image(
        self, path: Path, sha256: str, preparation: Preparation, *, frames: int
    ) -> Future[PreparedImage | RecordError | None]:
        """The stored image, with at most `frames` of its frames."""
        request = Image(path=str(path), sha256=sha256, frames=frames, preparation=preparation)
        return self._threads.submit(self._ask, request, _image)

    def frame(
        self, path: Path, sha256: str, preparation: Preparation, *, index: int
    ) -> Future[PreparedFrame | RecordError | None]:
        """One frame of the stored image."""
        request = Frame(path=str(path), sha256=sha256, index=index, preparation=preparation)
        return self._threads.submit(self._ask, request, _frame)

    def close(self) -> None:
        """Ends the decoders, once those at work have answered."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().end()

    def _ask(self, request: Request, read: Callable[[Given, Pixels], T]) -> T | RecordError | None:
        try:
            with self._holding(1) as decoder:
                reply, payload = decoder.ask(request)
        except _CrashedError:
            # Perhaps it was the machine's fault (out of memory) or that of the image before: once more, in a new
            # process, while no other decodes.
            with self._alone, self._holding(self._count) as decoder:
                reply, payload = decoder.ask_again(request)
        match reply:
            case Given():
                return read(reply, payload)
            case Refused(error=error):
                return error
            case Gone():
                return None

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
        self._start()

    def ask(self, request: Request) -> tuple[Reply, Pixels]:
        """The reply, and the pixels that follow it.

        Raises:
            _CrashedError: the process ended instead.
            ModbotError: it does not start.
        """
        if self._process.poll() is not None:
            self._start()
        self._await_ready()
        deadline = time.monotonic() + self._bounds.seconds
        try:
            self._socket.settimeout(self._bounds.seconds)
            self._socket.sendall(framed(request))
            length = int.from_bytes(self._receive(LENGTH, deadline), "big")
            reply = _replies.decode(self._receive(length, deadline).data)
            size = sum(prod(frame.shape) for frame in reply.frames) if isinstance(reply, Given) else 0
            return reply, self._receive(size, deadline)
        except TimeoutError:
            self.end()
            detail = f"took longer than {self._bounds.seconds:g} s"
            return Refused(error=RecordError(kind="decode_failed", detail=detail)), _NOTHING
        except (EOFError, ConnectionError):
            self.end()
            raise _CrashedError(self._manner()) from None

    def ask_again(self, request: Request) -> tuple[Reply, Pixels]:
        """As `ask`, in a new process; one that ends as well refuses the image."""
        self.end()
        try:
            return self.ask(request)
        except _CrashedError as error:
            return Refused(error=RecordError(kind="decode_failed", detail=f"the decoder {error}")), _NOTHING

    def end(self) -> None:
        """Ends the process, whatever it is at."""
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _start(self) -> None:
        self._socket, far = socket.socketpair()
        arguments = [str(far.fileno()), str(os.getpid()), str(self._bounds.memory)]
        inherited = {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)}
        with far:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this Python, and numbers
                    [*self._command, *arguments], pass_fds=[far.fileno()], env=inherited, stdin=subprocess.DEVNULL
                )
            except OSError as error:
                self._socket.close()
                raise ModbotError(f"a decoder process cannot be started ({error.strerror})") from error
        self._ready = False

    def _await_ready(self) -> None:
        if self._ready:
            return
        try:
            self._receive(len(READY), time.monotonic() + START_SECONDS)
        except (EOFError, ConnectionError, TimeoutError):
            self.end()
            raise ModbotError(f"a decoder process did not start: it {self._manner()}") from None
        self._ready = True

    def _receive(self, size: int, deadline: float) -> Pixels:
        """The next `size` bytes. Raises EOFError where there are no more, TimeoutError after the deadline."""
        received = np.empty(size, np.uint8)
        rest = received.data
        while rest:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            count = self._socket.recv_into(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        return received

    def _manner(self) -> str:
        """How the process ended."""
        code = self._process.returncode
        return f"crashed (signal {-code})" if code < 0 else f"ended (exit code {code})"


_NOTHING: Pixels = np.empty(0, np.uint8)


def _frames(given: Given, payload: Pixels) -> Iterator[PreparedFrame]:
    start = 0
    for frame in given.frames:
        end = start + prod(frame.shape)
        yield PreparedFrame(frame.index, frame.width, frame.height, payload[start:end].reshape(frame.shape))
        start = end


def _image(given: Given, payload: Pixels) -> PreparedImage:
    if given.phash is None or given.info is None:
        raise AssertionError("a decoder forgot half of its answer")
    return PreparedImage(phash=given.phash, info=given.info, frames=list(_frames(given, payload)))


def _frame(given: Given, payload: Pixels) -> PreparedFrame:
    (frame,) = _frames(given, payload)
    return frame
