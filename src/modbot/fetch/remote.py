"""The coordinator across processes: msgpack frames over a Unix socket in a folder that only this user can enter.

The parent runs `serve`, each worker a `RemoteCoordinator`. What a worker held is free when its connection ends; a
worker whose parent is gone cannot go on.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future as ThreadFuture
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from modbot.errors import BusyError, InterruptedRunError, ModbotError, RateLimitError, StorageError
from modbot.fetch.budget import Answer, Lane, Ticket
from modbot.fetch.coordinator import LocalCoordinator, Outcome, handed
from modbot.files.atomic import storage_errors
from modbot.files.processes import lives, owner

T = TypeVar("T")


class _Claim(msgspec.Struct, tag=True):
    id: int
    key: str


class _Admit(msgspec.Struct, tag=True):
    id: int
    lane: Lane


class _Settle(msgspec.Struct, tag=True):
    key: str
    outcome: Outcome | None


class _Report(msgspec.Struct, tag=True):
    ticket: Ticket
    answer: Answer | None


class _Claimed(msgspec.Struct, tag=True):
    id: int
    value: Outcome | None


class _Admitted(msgspec.Struct, tag=True):
    id: int
    value: Ticket


class _Refused(msgspec.Struct, tag=True):
    id: int
    kind: str
    what: str
    where: str | None
    remedy: str | None


_Request = _Claim | _Admit | _Settle | _Report
_Reply = _Claimed | _Admitted | _Refused
_REFUSALS: dict[str, type[ModbotError]] = {
    kind.__name__: kind for kind in (BusyError, RateLimitError, StorageError, ModbotError)
}
_LENGTH = 4
_AT_MOST = 65_536
_SOCKET = "run.sock"
_FOLDER = re.compile(r"modbot-(\w+\.\d+\.\w+)-\w+", re.ASCII)
"""The folder of a run's socket: whose it is, and chance."""
_SOCKET_PATH_BYTES = 103
"""So long a socket's path may be on every system; on Linux 107."""
_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[_Request] = msgspec.msgpack.Decoder(_Request)
_replies: msgspec.msgpack.Decoder[_Reply] = msgspec.msgpack.Decoder(_Reply)


def _frame(message: _Request | _Reply) -> bytes:
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH, "big") + body


async def _frames(reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[T]) -> AsyncIterator[T]:
    """The messages until the other side closes, or is gone in the middle of one."""
    buffer = bytearray()
    while data := await _piece(reader):
        buffer += data
        begin = 0
        while (body := begin + _LENGTH) <= len(buffer):
            end = body + int.from_bytes(buffer[begin:body], "big")
            if end > len(buffer):
                break
            yield decoder.decode(buffer[body:end])
            begin = end
        del buffer[:begin]


async def _piece(reader: asyncio.StreamReader) -> bytes:
    """What has come meanwhile; nothing at the end, of whatever kind."""
    try:
        return await reader.read(_AT_MOST)
    except ConnectionError:
        return b""


class _Outbox:
    """The way to the other side. What is said in one turn of the loop goes out in one write: writes are what costs."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._unsent: list[bytes] = []

    @property
    def closed(self) -> bool:
        return self._writer.is_closing()

    def say(self, message: _Request | _Reply) -> None:
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(_frame(message))

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._unsent:
            self._writer.write(b"".join(self._unsent))
            self._unsent.clear()


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancels the tasks and waits for them; what else went wrong in them is raised."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


@contextmanager
def serve(coordinator: LocalCoordinator) -> Iterator[Path]:
    """Serves the coordinator to other processes while the block runs; gives the socket's path.

    It runs in a loop of its own, in a thread: meanwhile nothing else may use the coordinator, and its
    `on_adjustment` is called from that thread.
    """
    folder = _socket_folder()
    path = folder / _SOCKET
    started: ThreadFuture[Callable[[], object]] = ThreadFuture()
    ended: ThreadFuture[None] = ThreadFuture()

    def run() -> None:
        try:
            asyncio.run(_serve(coordinator, path, started))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
            (ended if started.done() else started).set_exception(error)
        else:
            ended.set_result(None)

    thread = threading.Thread(target=run, name="modbot-coordinator", daemon=True)
    thread.start()
    try:
        stop = started.result()
        try:
            yield path
        finally:
            stop()
            ended.result()
    finally:
        thread.join()
        shutil.rmtree(folder)


def _socket_folder() -> Path:
    """A new folder for this user alone: where temporary files go or, where a socket's path would be too long, in /tmp.

    Raises:
        StorageError: there can be none.
    """
    with storage_errors("TMPDIR"):
        folder = _new_folder(tempfile.gettempdir())
        if len(os.fsencode(folder / _SOCKET)) > _SOCKET_PATH_BYTES:
            folder.rmdir()
            folder = _new_folder("/tmp")  # noqa: S108 - a new one, which only this user can enter
        return folder


def _new_folder(place: str) -> Path:
    _sweep(place)
    return Path(tempfile.mkdtemp(prefix=f"modbot-{owner()}-", dir=place))


def _sweep(place: str) -> None:
    """Removes the folders of this user's runs that were killed."""
    with os.scandir(place) as folders:
        dead = [each for each in folders if (name := _FOLDER.fullmatch(each.name)) and lives(name[1]) is False]
    for folder in dead:
        with suppress(OSError):  # another run sweeps as well; and what cannot be removed is in nobody's way
            state = folder.stat(follow_symlinks=False)
            if stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid():
                (Path(folder) / _SOCKET).unlink(missing_ok=True)
                Path(folder).rmdir()


async def _serve(coordinator: LocalCoordinator, path: Path, started: ThreadFuture[Callable[[], object]]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    workers: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = loop.create_task(_Worker(coordinator, _Outbox(writer)).attend(reader))
        workers.add(task)
        task.add_done_callback(workers.discard)

    async with coordinator, await asyncio.start_unix_server(connected, path):
        started.set_result(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        await _end(workers)


class _Worker:
    """The parent's end of one connection: what the worker holds, and its calls that wait."""

    def __init__(self, coordinator: LocalCoordinator, outbox: _Outbox) -> None:
        self._coordinator = coordinator
        self._outbox = outbox
        self._claims: set[str] = set()
        self._tickets: dict[int, Ticket] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def attend(self, reader: asyncio.StreamReader) -> None:
        """Serves the worker until it is gone; then frees what it held."""
        try:
            async for request in _frames(reader, _requests):
                self._take(request)
        finally:
            try:
                await _end(self._calls)
            finally:
                self._free()
                self._outbox.close()

    def _take(self, request: _Request) -> None:
        match request:
            case _Settle(key, outcome):
                self._claims.remove(key)
                self._coordinator.settle(key, outcome)
            case _Report(ticket, answer):
                del self._tickets[ticket.id]
                self._coordinator.report(ticket, answer)
            case _Claim() | _Admit():
                task = asyncio.get_running_loop().create_task(self._call(request))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)

    async def _call(self, request: _Claim | _Admit) -> None:
        reply: _Reply
        try:
            if isinstance(request, _Claim):
                reply = _Claimed(request.id, await self._claim(request.key))
            else:
                reply = _Admitted(request.id, await self._admit(request.lane))
        except Exception as error:  # noqa: BLE001 - the worker waits: whatever it is, it is to know
            reply = _refused(request.id, error)
        self._outbox.say(reply)

    async def _claim(self, key: str) -> Outcome | None:
        outcome = await self._coordinator.claim(key)
        if outcome is None:
            self._claims.add(key)
        return outcome

    async def _admit(self, lane: Lane) -> Ticket:
        ticket = await self._coordinator.admit(lane)
        self._tickets[ticket.id] = ticket
        return ticket

    def _free(self) -> None:
        for key in self._claims:
            self._coordinator.settle(key, None)
        for ticket in self._tickets.values():
            self._coordinator.report(ticket, None)


class RemoteCoordinator:
    """A worker's end: a `Coordinator` whose calls go to the parent. An async context manager.

    Raises:
        InterruptedRunError: from entering and from every method, once the parent is gone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls = 0
        self._pending: dict[int, tuple[asyncio.Future[Any], Callable[[Any], None]]] = {}
        self._outbox: _Outbox | None = None
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise _parent_gone() from error
        self._outbox = _Outbox(writer)
        self._listener = asyncio.get_running_loop().create_task(self._listen(reader))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._outbox is not None and self._listener is not None:
            self._outbox.close()
            await _end({self._listener})

    async def claim(self, key: str) -> Outcome | None:
        def give_back(outcome: Outcome | None) -> None:
            if outcome is None:
                self.settle(key, None)

        return await self._call(lambda number: _Claim(number, key), give_back)

    def settle(self, key: str, outcome: Outcome | None) -> None:
        self._send(_Settle(key, outcome))

    async def admit(self, lane: Lane) -> Ticket:
        def give_back(ticket: Ticket) -> None:
            self.report(ticket, None)

        while True:
            ticket = await self._call(lambda number: _Admit(number, lane), give_back)
            if time.monotonic() < ticket.until:  # one clock for all processes of a machine
                return ticket
            give_back(ticket)  # we were held up: others have been let go meanwhile

    def report(self, ticket: Ticket, answer: Answer | None) -> None:
        self._send(_Report(ticket, answer))

    def _call(self, request: Callable[[int], _Request], give_back: Callable[[T], None]) -> Awaitable[T]:
        self._calls += 1
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._send(request(self._calls))
        self._pending[self._calls] = (future, give_back)
        return handed(future, give_back)

    def _send(self, message: _Request) -> None:
        if self._outbox is None or self._outbox.closed or self._listener is None or self._listener.done():
            raise _parent_gone()
        self._outbox.say(message)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            async for reply in _frames(reader, _replies):
                self._take(reply)
        finally:
            for future, _ in self._pending.values():
                if not future.done():
                    future.set_exception(_parent_gone())
            self._pending.clear()

    def _take(self, reply: _Reply) -> None:
        future, give_back = self._pending.pop(reply.id)
        if isinstance(reply, _Refused):
            if not future.done():
                future.set_exception(_REFUSALS[reply.kind](reply.what, where=reply.where, remedy=reply.remedy))
        elif future.done():  # its caller was cancelled meanwhile
            give_back(reply.value)
        else:
            future.set_result(reply.value)


def _refused(number: int, error: Exception) -> _Refused:
    """The error as the worker is to raise it; one that is no refusal is a defect of the parent's, told by its name."""
    if isinstance(error, ModbotError) and type(error).__name__ in _REFUSALS:
        return _Refused(number, type(error).__name__, error.what, error.where, error.remedy)
    what = f"the process that leads this run failed ({type(error).__name__}: {error})"
    return _Refused(number, ModbotError.__name__, what, None, None)


def _parent_gone() -> InterruptedRunError:
    return InterruptedRunError(
        "the process that leads this run is gone", remedy="Run the same command again: what was finished is kept."
    )
