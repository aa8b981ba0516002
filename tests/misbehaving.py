"""A server that misbehaves on purpose: real HTTP on loopback, by a script for each path, or by chance from a seed.

    with Misbehaving() as server:
        server.on("/a.png", limited(2.0, scope="global", said="date"), image(DATA))
        ...  # the first request for /a.png is answered 429, every later one with DATA
    server.arrivals  # when what was asked for

It runs in a thread of its own, so that a test may start processes and wait for them.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import random
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from types import TracebackType
from typing import Literal, Self

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

Behaviour = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Scope = Literal["user", "global", "shared"]
Said = Literal["header", "body", "both", "date", "missing", "garbage"]

DATA = b"an image, as far as fetching cares" * 100
TOKEN = "bot-token-5ec2e7"  # noqa: S105 - not one
_CHUNK = b"x" * 65_536


@dataclass(frozen=True)
class Arrival:
    """One request: when its headers were there (`time.monotonic`), what it asked for, and which address it came to."""

    at: float
    path: str
    query: str
    headers: Mapping[str, str]
    address: str


class Misbehaving:
    """The server. What no script names is answered by `otherwise`, and `weather` may come before either.

    Args:
        otherwise: what a path without a script does.
        addresses: loopback addresses to listen on, all with one port.
    """

    def __init__(self, otherwise: Behaviour | None = None, *, addresses: Sequence[str] = ("127.0.0.1",)) -> None:
        self.arrivals: list[Arrival] = []
        self.weather: Callable[[web.BaseRequest], Behaviour | None] = lambda _: None
        self.port = 0
        self.otherwise = otherwise or image(DATA)
        self._addresses = addresses
        self._scripts: dict[str, deque[Behaviour]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="misbehaving", daemon=True)
        self._runner: web.ServerRunner | None = None

    def on(self, path: str, *behaviours: Behaviour) -> None:
        """What requests for `path` get: one behaviour after the other, the last for good."""
        self._scripts[path] = deque(behaviours)

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`, as MODBOT_ALLOW_HOSTS takes it."""
        return f"{self._addresses[0]}:{self.port}"

    @property
    def gets(self) -> Counter[str]:
        """How often each path was asked for."""
        return Counter(arrival.path for arrival in self.arrivals)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        for address in self._addresses:
            await web.TCPSite(self._runner, address, self.port).start()
            self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        self.arrivals.append(
            Arrival(time.monotonic(), request.path, request.query_string, dict(request.headers), address)
        )
        return await (self.weather(request) or self._scripted(request))(request)

    def _scripted(self, request: web.BaseRequest) -> Behaviour:
        script = self._scripts.get(request.path)
        if script is None:
            return self.otherwise
        return script.popleft() if len(script) > 1 else script[0]


# --- what a server may do ---


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Behaviour:
    """A plain answer; a header's underscores are hyphens."""

    async def behave(_: web.BaseRequest) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return behave


def image(data: bytes) -> Behaviour:
    return answer(body=data, Content_Type="image/png")


def redirect(location: str, status: int = 302) -> Behaviour:
    return answer(status, Location=location)


def limited(wait: float, *, scope: Scope | None = None, said: Said = "header", status: int = 429) -> Behaviour:
    """Told to wait `wait` seconds: in `Retry-After` (seconds or a date), in the JSON body as Discord does, or not."""

    async def behave(_: web.BaseRequest) -> web.StreamResponse:
        headers: dict[str, str] = {} if scope is None else {"X-RateLimit-Scope": scope}
        told: dict[str, object] = {"message": "You are being rate limited.", "global": scope == "global"}
        if said in {"header", "both"}:
            headers["Retry-After"] = f"{wait:g}"
        if said in {"body", "both"}:
            told["retry_after"] = wait
        if said == "date":
            headers["Retry-After"] = formatdate(time.time() + wait, usegmt=True)
        if said == "garbage":
            headers["Retry-After"] = "soon"
            told["retry_after"] = [wait]
        return web.json_response(told, status=status, headers=headers)

    return behave


def gzip_bomb(size: int) -> Behaviour:
    """`size` zero bytes, packed a thousandfold."""
    return answer(body=gzip.compress(bytes(size)), Content_Encoding="gzip", Content_Type="image/png")


def slow(data: bytes, *, pieces: int, pause: float) -> Behaviour:
    """`data` in some pieces, with a pause before each."""

    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        step = -(-len(data) // pieces)
        for begin in range(0, len(data), step):
            await asyncio.sleep(pause)
            await response.write(data[begin : begin + step])
        return response

    return behave


def silent(seconds: float) -> Behaviour:
    """No answer for so long."""

    async def behave(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response(body=DATA)

    return behave


def wrong_length(data: bytes, claimed: int) -> Behaviour:
    """All of `data` under a `Content-Length` that is not its own; then the connection ends."""
    return raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (claimed, data))


def breaks_off(data: bytes, after: int) -> Behaviour:
    """The first bytes of `data` under its whole length."""
    return wrong_length(data[:after], len(data))


def raw(said: bytes) -> Behaviour:
    """These bytes instead of an answer; then the connection ends."""

    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(said)
        request.transport.close()
        return web.Response()

    return behave


def resets(data: bytes = b"") -> Behaviour:
    """`data` instead of an answer; then a reset, as of a process that was killed."""

    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(data)
        linger = struct.pack("ii", 1, 0)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.transport.abort()
        return web.Response()

    return behave


def endless(begin: bytes, more: bytes = _CHUNK) -> Behaviour:
    """`begin`, then `more` again and again until the other side has had enough."""

    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        transport.write(begin)
        while not transport.is_closing():
            if transport.get_write_buffer_size() < len(more):
                transport.write(more)
            await asyncio.sleep(0.001)
        return web.Response()

    return behave


# --- Discord ---


@dataclass
class _Channel:
    """The window of a route's limit in one channel: when it ends, and what is left in it."""

    ends: float = 0.0
    left: int = 0


@dataclass
class FakeDiscord:
    """Discord as a fetcher meets it: signed links that expire, and the route that reads a message again.

    The route has a limit a channel, `limit` requests in `window` seconds, told in the usual headers and enforced.
    """

    server: Misbehaving
    limit: int = 5
    window: float = 1.0
    messages: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    too_early: list[str] = field(default_factory=list)
    """Paths of requests that came although their route was used up."""
    _channels: dict[str, _Channel] = field(default_factory=dict)

    @property
    def api(self) -> str:
        return self.server.url("/api/v10")

    def post(self, channel: str, message: str, attachments: Mapping[str, bytes]) -> None:
        """A message with attachments, by id."""
        self.messages[channel, message] = dict(attachments)

    def delete(self, channel: str, message: str) -> None:
        del self.messages[channel, message]

    def link(self, channel: str, attachment: str, *, lasts: float = 3_600.0) -> str:
        """A signed link to an attachment, good for `lasts` seconds (negative: it has expired)."""
        path = f"/attachments/{channel}/{attachment}/{attachment}.png"
        ends = f"{int(time.time() + lasts):x}"
        return self.server.url(f"{path}?ex={ends}&is={int(time.time()):x}&hm={_signature(path, ends)}")

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.path.strip("/").split("/"):
            case ["attachments", channel, attachment, _]:
                return self._file(request, channel, attachment)
            case ["api", "v10", "channels", channel, "messages", message] if request.method == "GET":
                return self._message(request, channel, message)
        return web.json_response({"message": "404: Not Found", "code": 0}, status=404)

    def _file(self, request: web.BaseRequest, channel: str, attachment: str) -> web.Response:
        ends = request.query.get("ex", "0")
        signed = hmac.compare_digest(request.query.get("hm", ""), _signature(request.path, ends))
        found = [files[attachment] for (at, _), files in self.messages.items() if at == channel and attachment in files]
        if not signed or int(ends, 16) < time.time() or not found:
            return web.Response(status=404, text="This content is no longer available.")
        return web.Response(body=found[0], content_type="image/png")

    def _message(self, request: web.BaseRequest, channel: str, message: str) -> web.Response:
        if request.headers.get("Authorization") != f"Bot {TOKEN}":
            return web.json_response({"message": "401: Unauthorized", "code": 0}, status=401)
        now, state = time.monotonic(), self._channels.setdefault(channel, _Channel())
        if now >= state.ends:
            state.ends, state.left = now + self.window, self.limit
        rest = state.ends - now
        headers = {"X-RateLimit-Bucket": "80c17d2f203122d936070c88c8d10f33", "X-RateLimit-Limit": str(self.limit)}
        if state.left == 0:
            self.too_early.append(request.path)
            told = {"message": "You are being rate limited.", "retry_after": rest, "global": False}
            headers |= {"X-RateLimit-Scope": "user", "Retry-After": str(int(rest) + 1)}
            return web.json_response(told, status=429, headers=headers)
        state.left -= 1
        headers |= {"X-RateLimit-Remaining": str(state.left), "X-RateLimit-Reset-After": f"{rest:.3f}"}
        files = self.messages.get((channel, message))
        if files is None:
            return web.json_response({"message": "Unknown Message", "code": 10008}, status=404, headers=headers)
        attachments = [
            {"id": name, "filename": f"{name}.png", "size": len(data), "url": self.link(channel, name)}
            for name, data in files.items()
        ]
        return web.json_response({"id": message, "channel_id": channel, "attachments": attachments}, headers=headers)


def _signature(path: str, ends: str) -> str:
    return hmac.digest(b"a secret of the server's", f"{path} {ends}".encode(), hashlib.sha256).hex()


# --- storms ---


TICKET = "X-Ticket"
"""A header in which a test may say which of its requests this is."""


@dataclass(frozen=True)
class Limit:
    """One 429 that was sent: to which request, when, whom it names (None: everything), until when it asks to wait."""

    ticket: str
    at: float
    names: str | None
    until: float


class Storm:
    """`weather` of 429s of every scope and form, and some broken answers, by chance; the same for the same seed.

    Args:
        seconds: how long it lasts, from the first request on.
        chance: of a 429 for each request.
    """

    WAITS = (0.0, 0.1, 0.25, 0.5, 0.8, 1.2, 2.0)
    BROKEN: tuple[Behaviour, ...] = (answer(500), answer(502), answer(503), resets(), breaks_off(DATA, 50))
    MOST_BROKEN = 2
    """So many broken answers a path at most: a fetcher gives a link up after four."""

    def __init__(self, seed: int, seconds: float, *, chance: float = 0.3) -> None:
        self.limits: list[Limit] = []
        self._chance = random.Random(seed)  # noqa: S311 - chance that can be had again
        self._seconds = seconds
        self._limited = chance
        self._ends: float | None = None
        self._broken: Counter[str] = Counter()

    def __call__(self, request: web.BaseRequest) -> Behaviour | None:
        now = time.monotonic()
        self._ends = self._ends or now + self._seconds
        drawn = self._chance.random()
        if self.over:
            return None
        if drawn < self._limited:
            return self._limit(request, now)
        if drawn < self._limited + 0.05 and self._broken[request.path] < self.MOST_BROKEN:
            self._broken[request.path] += 1
            return self._chance.choice(self.BROKEN)
        return None

    @property
    def over(self) -> bool:
        return self._ends is not None and time.monotonic() >= self._ends

    def _limit(self, request: web.BaseRequest, now: float) -> Behaviour:
        scope: Scope | None = self._chance.choice(("user", "global", "shared", None))
        said: Said = self._chance.choice(("header", "body", "both", "date", "missing", "garbage"))
        wait = self._chance.choice(self.WAITS)
        if said == "date":  # a date has whole seconds, rounded down
            until = now + int(time.time() + wait) - time.time()
        else:
            until = now + (wait if said in {"header", "body", "both"} else 0.0)
        names = None if scope in {"global", None} else lane_of(request.path)
        self.limits.append(Limit(request.headers.get(TICKET, ""), now, names, until))
        return limited(wait, scope=scope, said=said)


def lane_of(path: str) -> str:
    """Whom a narrow limit names: the files, or the messages of one channel."""
    parts = path.strip("/").split("/")
    return f"messages of {parts[3]}" if parts[0] == "api" else "files"


# --- names ---


class ChangingDns(AbstractResolver):
    """A resolver whose answer for a name changes from one question to the next, the last for good."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.asked: list[str] = []
        self._answers = {name.replace("_", "."): deque(each) for name, each in answers.items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        left = self._answers[host]
        addresses = left.popleft() if len(left) > 1 else left[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        """Holds nothing."""
