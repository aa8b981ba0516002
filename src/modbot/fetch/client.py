"""From a row of the index to its image in the store, or to the reason why there is none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeGuard, TypeVar

import aiohttp
import msgspec
from aiohttp.resolver import ThreadedResolver
from yarl import URL

import modbot
from modbot.errors import RateLimitError
from modbot.fetch.budget import Answer, Lane, Ticket, read_answer, token_refused
from modbot.fetch.coordinator import Coordinator, Outcome
from modbot.fetch.disk import Disk
from modbot.fetch.hosts import (
    BAD_ROW,
    FAILED,
    FORBIDDEN,
    ForbiddenAddressError,
    HostPolicy,
    LinkError,
    has_lapsed,
    parsed,
)
from modbot.fetch.resolver import GuardedResolver
from modbot.fetch.store import MAX_BYTES, Store, Stored, TooLargeError
from modbot.records.index import DISCORD_CDN_HOSTS, IndexRow, attachment_key
from modbot.records.jsonl import decode_any
from modbot.records.p1 import RecordError
from modbot.words import counted

T = TypeVar("T")

EXPIRED = "expired"
UNAUTHORISED = "unauthorised"
TIMEOUT = "timeout"
TOO_LARGE = "too_large"
NOT_AN_IMAGE = "not_an_image"

DISCORD_API = "https://discord.com/api/v10"
MAX_REDIRECTS = 5
MAX_LIMITED = 30
"""So many 429 in a row for one link, each obeyed, and it is given up."""
MAX_JSON = 4_000_000
MAX_PATIENCE_S = 120.0
"""At most so much of a 5xx's `Retry-After` is waited before another try."""

MAX_BACKOFF_S = 30.0

_CHUNK = 1 << 20
_SMALL_BODY = 65_536
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK, _CLIENT_ERROR, _UNAUTHORISED, _REQUEST_TIMEOUT, _TOO_MANY, _SERVER_ERROR = 200, 400, 401, 408, 429, 500
_GONE = frozenset({403, 404})
_PASSING = frozenset({_REQUEST_TIMEOUT, _TOO_MANY})
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
"""A login or an error page under a status that says all is well: no image calls itself that."""
_BROKEN: tuple[tuple[type[aiohttp.ClientError], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "the name cannot be resolved"),
    (aiohttp.ClientConnectorCertificateError, "TLS failed: the certificate is not accepted"),
    (aiohttp.ClientSSLError, "TLS failed"),
    (aiohttp.ServerDisconnectedError, "the server closed the connection without an answer"),
    (aiohttp.ClientPayloadError, "the transfer broke off"),
    (aiohttp.ClientResponseError, "the answer is no HTTP"),
)
_SCALING_HOSTS = DISCORD_CDN_HOSTS - {"cdn.discordapp.com"}
_SCALED = frozenset({"format", "height", "quality", "width"})
_HEADERS = {
    "User-Agent": f"DiscordBot (modbot, {modbot.__version__})",
    "Accept-Encoding": "identity",  # what is stored is what the server has, and no gzip bomb is unpacked
    "Accept": "*/*",
}


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, between two pieces of an answer, for one request in all."""

    connect: float = 10.0
    read: float = 30.0
    total: float = 300.0


class Counters(msgspec.Struct):
    """Counts of what one fetcher did, under the names that the metrics have."""

    requests: int = 0
    bytes: int = 0
    http_429: int = 0
    http_5xx: int = 0
    http_403: int = 0
    http_404: int = 0
    retries: int = 0
    refreshed: int = 0
    store_hits: int = 0


class _PassingError(LinkError):
    """It may be gone the next time: worth another try, not before `retry_after` seconds."""

    def __init__(self, kind: str, detail: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(kind, detail, status)
        self.retry_after = retry_after or 0.0


class _DoubtError(_PassingError):
    """All of it came, and it is not what the index tells of: asked for once more, and then taken as it is."""


@dataclass
class _Image:
    """One image on its way: its row, its key, how many requests were sent for it, and whether its size was doubted."""

    row: IndexRow
    key: str
    sent: int = 0
    doubted: bool = False


class Fetcher:
    """Fetches images into the store, each once however many ask. An async context manager.

    Args:
        store: where the images go.
        coordinator: the rate budget and the claims, shared with every other fetcher of the run.
        hosts: what may be fetched.
        max_bytes: the size from which an image is `too_large`.
        token: Discord's bot token, for one re-read of a message whose link has expired; None: never.
        discord_api: the base that the token is sent to, and nowhere else.
        attempts: how often a request is tried while the connection breaks, times out or the answer is 5xx.
        backoff: seconds before the first of these retries, at most; doubled for each further one, up to 30.
        clock: Unix seconds, against which a link's expiry is read.
        thorough: a stored image is looked at, not only found: one that is damaged is fetched again.
    """

    def __init__(
        self,
        *,
        store: Store,
        coordinator: Coordinator,
        hosts: HostPolicy,
        max_bytes: int = MAX_BYTES,
        timeouts: Timeouts | None = None,
        token: str | None = None,
        discord_api: str = DISCORD_API,
        attempts: int = 4,
        backoff: float = 0.5,
        clock: Callable[[], float] = time.time,
        thorough: bool = False,
    ) -> None:
        self.counters = Counters()
        self._store = store
        self._coordinator = coordinator
        self._hosts = hosts
        self._max_bytes = max_bytes
        self._timeouts = timeouts or Timeouts()
        self._token = token
        self._api = URL(discord_api)
        self._attempts = attempts
        self._backoff = backoff
        self._clock = clock
        self._find = partial(store.find, thorough=thorough)
        self._disk = Disk()
        self._opened: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # A stand-in for the API may be called localhost; settings let the token go to no other private host.
        local_api = {("localhost", None)} if self._api.host == "localhost" else set()
        names = HostPolicy(self._hosts.allowed | local_api)
        self._opened = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=GuardedResolver(names, ThreadedResolver()), limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=self._timeouts.total, sock_connect=self._timeouts.connect, sock_read=self._timeouts.read
            ),
            headers=_HEADERS,
            auto_decompress=False,
            trust_env=False,
            middlewares=(_send_once,),
            read_bufsize=1 << 18,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._disk:
            await self._session.close()

    async def fetch(self, row: IndexRow) -> Stored | RecordError:
        """The row's image in the store, fetched if it is not there yet, or why there is none.

        Raises:
            ModbotError: what ends the run (disk full, token refused, told to stay away); the rest is an answer.
        """
        try:
            key, work = self._plan(row)
        except LinkError as error:
            return _record(error, attempts=0)
        outcome, ours = await self._once(key, work)
        if outcome.stored is not None:
            self.counters.store_hits += not ours
            return outcome.stored
        if outcome.error is None:
            raise AssertionError(f"an image's outcome is an image or an error: {outcome}")
        return outcome.error

    def _plan(self, row: IndexRow) -> tuple[str, Callable[[], Awaitable[Outcome]]]:
        """The key under which the row's image is fetched once, and how."""
        if row.bad is not None or not row.url:
            raise LinkError(BAD_ROW, row.bad or "the row has no url")
        url = self._hosts.check(row.url)
        try:
            key = row.key
        except ValueError:
            raise LinkError(BAD_ROW, "the url is no link") from None
        if url.scheme == "file":
            return key, partial(self._local, key, url)
        return key, partial(self._image, _Image(row, key), url)

    async def _once(self, key: str, work: Callable[[], Awaitable[Outcome]]) -> tuple[Outcome, bool]:
        """What comes of `work`, done by one claimant in the whole run; and whether that was us."""
        outcome = await self._coordinator.claim(key)
        if outcome is not None:
            return outcome, False
        try:
            outcome = await work()
        finally:
            self._coordinator.settle(key, outcome)
        return outcome, True

    # --- one image ---

    async def _image(self, image: _Image, url: URL) -> Outcome:
        stored = await self._disk.run(self._find, image.key)
        try:
            if stored is not None:
                return Outcome(stored=self._hit(stored))
            return Outcome(stored=await self._download(image, url))
        except LinkError as error:
            return Outcome(error=_record(error, attempts=image.sent))

    async def _download(self, image: _Image, url: URL) -> Stored:
        gone = self._lapsed(url)
        if gone is None:
            try:
                return await self._follow(image, url)
            except LinkError as error:
                if error.kind != EXPIRED:
                    raise
                gone = error
        fresh = await self._fresh_link(image)
        if fresh is None:
            raise gone
        self.counters.refreshed += 1
        return await self._follow(image, fresh)

    def _lapsed(self, url: URL) -> LinkError | None:
        """Why a link need not be tried: its signature's time is past.

        Another host's `ex` may mean anything, so without a token to get a fresh link with, it is tried.
        """
        if not has_lapsed(url, self._clock()) or not (self._token or self._hosts.lane(url).discord):
            return None
        return LinkError(EXPIRED, "the link's signature has expired")

    async def _follow(self, image: _Image, url: URL) -> Stored:
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._exchange(url, self._hosts.lane(url), partial(self._body, image), image=image)
            if isinstance(found, Stored):
                return found
            url = self._hosts.check_onward(found)
        raise LinkError(FAILED, f"more than {MAX_REDIRECTS} redirects")

    async def _body(self, image: _Image, response: aiohttp.ClientResponse) -> Stored | str:
        """The stored image, or where the answer sends us."""
        if response.status in _REDIRECTS:
            return _target(response)
        if response.status != _OK:
            raise LinkError(FAILED, f"the server answered {response.status}", response.status)
        if (response.content_length or 0) > self._max_bytes:
            raise self._too_large()
        if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise LinkError(FAILED, "the server sent it encoded, and was asked not to", response.status)
        if response.content_type in _PAGES:  # not stored: tried again, it may be the image
            raise LinkError(NOT_AN_IMAGE, f"the server sent a web page ({response.content_type})", response.status)
        size = 0
        buffer = bytearray()
        with self._store.receive(image.key, limit=self._max_bytes) as incoming:
            async for chunk in response.content.iter_any():
                size += len(chunk)
                self.counters.bytes += len(chunk)
                buffer += chunk
                if size > self._max_bytes:
                    raise self._too_large()
                if len(buffer) >= _CHUNK:
                    await self._disk.run(incoming.write, buffer)
                    buffer = bytearray()
            _refuse_a_part(image, size, response)
            return await self._disk.run(incoming.finish, buffer)

    async def _local(self, key: str, url: URL) -> Outcome:
        try:
            return Outcome(stored=await self._disk.run(self._copy, key, url))
        except LinkError as error:
            return Outcome(error=_record(error, attempts=0))

    def _copy(self, key: str, url: URL) -> Stored:
        """A local file, by way of the store; a file that was changed is another image."""
        with self._hosts.open_file(url) as file:
            state = os.fstat(file.fileno())
            if state.st_size > self._max_bytes:
                raise self._too_large()
            version = f"{key}#{state.st_size}-{state.st_mtime_ns}"
            if (stored := self._find(version)) is not None:
                return self._hit(stored)
            with self._store.receive(version, limit=self._max_bytes) as incoming:
                try:
                    while chunk := file.read(_CHUNK):
                        incoming.write(chunk)
                except TooLargeError:  # it grows while we read
                    raise self._too_large() from None
                except OSError as error:
                    raise LinkError(FAILED, f"the file cannot be read ({error.strerror})") from None
                return incoming.finish()

    def _hit(self, stored: Stored) -> Stored:
        """A stored image, if it is not too large by now: what a day gives must not hang on an earlier day's limit."""
        if stored.bytes > self._max_bytes:
            raise self._too_large()
        self.counters.store_hits += 1
        return stored

    def _too_large(self) -> LinkError:
        return LinkError(TOO_LARGE, f"more than {self._max_bytes} bytes", None)

    # --- a fresh link ---

    async def _fresh_link(self, image: _Image) -> URL | None:
        """The link that the message has now; None where there is no way to ask, or nothing to be had."""
        row = image.row
        if self._token is None or (message := message_of(row)) is None:
            return None
        outcome, _ = await self._once(f"message:{'/'.join(message)}", partial(self._reread, *message))
        if outcome.error is not None:
            error = outcome.error
            raise LinkError(error.kind, f"the message could not be read again: {error.detail}", error.http_status)
        links = outcome.links or {}
        link = links.get(image.key) or links.get(row.attachment_id or "")
        return None if link is None else self._hosts.check_onward(link)

    async def _reread(self, channel: str, message: str) -> Outcome:
        """The message's links as they are now; none if it is gone."""
        url = self._api / "channels" / channel / "messages" / message
        lane = Lane(f"{url.raw_host}:{url.port}", discord=True, route="GET /channels/messages", major=channel)
        headers = {"Authorization": "Bot " + (self._token or "")}
        try:
            return Outcome(links=_links(await self._exchange(url, lane, _json, headers=headers)))
        except LinkError as error:
            if error.kind == UNAUTHORISED:
                raise token_refused() from None
            if error.kind == EXPIRED:
                return Outcome(links={})
            return Outcome(error=_record(error, attempts=0))

    # --- one request ---

    async def _exchange(
        self,
        url: URL,
        lane: Lane,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
        *,
        image: _Image | None = None,
        headers: dict[str, str] | None = None,
    ) -> T:
        """What `read` makes of the answer; the request is repeated while that can help."""
        limited = failed = 0
        again = False
        while True:
            try:
                return await self._request(url, lane, read, image=image, headers=headers, again=again)
            except _PassingError as error:
                again = True
                if error.status == _TOO_MANY:  # the budget makes everyone wait who has to
                    limited += 1
                    pause = 0.0
                elif isinstance(error, _DoubtError):
                    pause = 0.0
                else:
                    failed += 1
                    pause = max(self._pause(failed), min(error.retry_after, MAX_PATIENCE_S))
                if limited > MAX_LIMITED or failed >= self._attempts:
                    raise
            await asyncio.sleep(pause)

    async def _request(
        self,
        url: URL,
        lane: Lane,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
        *,
        image: _Image | None,
        headers: dict[str, str] | None,
        again: bool,
    ) -> T:
        """One request with one ticket."""
        ticket = await self._admit(lane)
        answer: Answer | None = None
        self.counters.requests += 1
        self.counters.retries += again
        if image is not None:
            image.sent += 1
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                answer = read_answer(response.status, response.headers, wall=self._clock())
                if response.status == _TOO_MANY:
                    body = await _at_most(_SMALL_BODY, response)
                    answer = read_answer(response.status, response.headers, wall=self._clock(), body=body)
                self._count(response.status)
                _raise_for(answer)
                return await read(response)
        except TimeoutError:
            raise _PassingError(TIMEOUT, "the server took too long", _status(answer)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error, answer) from None
        finally:
            self._coordinator.report(ticket, answer)

    async def _admit(self, lane: Lane) -> Ticket:
        try:
            return await self._coordinator.admit(lane)
        except RateLimitError as error:
            if lane.discord:
                raise
            raise LinkError(FAILED, error.what) from None  # one host among many: the run goes on without it

    def _count(self, status: int) -> None:
        if status in {403, 404, _TOO_MANY}:
            name = f"http_{status}"
        elif status >= _SERVER_ERROR:
            name = "http_5xx"
        else:
            return
        setattr(self.counters, name, getattr(self.counters, name) + 1)

    def _pause(self, failures: int) -> float:
        """Seconds before the next try: exponential, with full jitter so that failures that came together part."""
        return random.uniform(0, min(self._backoff * 2.0 ** (failures - 1), MAX_BACKOFF_S))  # noqa: S311 - no secret

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            raise RuntimeError("a Fetcher is used inside `async with`")
        return self._opened


def _record(error: LinkError, *, attempts: int) -> RecordError:
    return RecordError(kind=error.kind, detail=error.detail, http_status=error.status, attempts=attempts)


def _status(answer: Answer | None) -> int | None:
    return None if answer is None else answer.status


def _raise_for(answer: Answer) -> None:
    """Turns a status that gives no content into what it means."""
    status, said = answer.status, f"the server answered {answer.status}"
    if status == _UNAUTHORISED:
        raise LinkError(UNAUTHORISED, said, status)
    if status in _GONE:
        raise LinkError(EXPIRED, said, status)
    if status in _PASSING or status >= _SERVER_ERROR:
        raise _PassingError(FAILED, said, status, answer.retry_after)
    if status >= _CLIENT_ERROR:
        raise LinkError(FAILED, said, status)


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """One request a ticket: left to itself, aiohttp sends anew what a kept connection broke under."""
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _translated(error, None) from None


def _translated(error: aiohttp.ClientError | OSError, answer: Answer | None) -> LinkError:
    """The client's error without its text, which may hold the link."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
    if isinstance(cause, ForbiddenAddressError):
        return LinkError(FORBIDDEN, str(cause))
    number = error.errno if isinstance(error, OSError) else None
    otherwise = f"the connection failed ({os.strerror(number)})" if number else "the connection failed"
    detail = next((text for kind, text in _BROKEN if isinstance(error, kind)), otherwise)
    return _PassingError(FAILED, detail, _status(answer))


def _target(response: aiohttp.ClientResponse) -> str:
    """Where a redirect leads, as a whole link; it is not checked yet."""
    location = response.headers.get("Location")
    if not location:
        raise LinkError(FAILED, "redirected to nowhere", response.status)
    try:
        return str(response.url.join(parsed(location)))
    except ValueError:
        raise LinkError(FAILED, "redirected to what is no link", response.status) from None


def _refuse_a_part(image: _Image, size: int, response: aiohttp.ClientResponse) -> None:
    """Holds the bytes that came against what the server said, and what Discord told of the attachment.

    Raises:
        _PassingError: it is not all of it; or, once, it is not what was told.
    """
    told = _told(image.row, response.url)
    whole = response.content_length
    least = (told or 0) if whole is None else whole  # without a length, a connection that broke looks like the end
    if size < least:
        raise _PassingError(FAILED, f"the transfer broke off after {counted(size, 'byte')}", response.status)
    if size == 0:
        raise _PassingError(FAILED, "the server sent no bytes", response.status)
    if told is not None and size != told and not image.doubted:
        image.doubted = True
        raise _DoubtError(FAILED, f"{counted(size, 'byte')} came, the index tells of {told}", response.status)


def _told(row: IndexRow, url: URL) -> int | None:
    """The size that Discord told of the file itself; None for what it scales, and for embeds and stickers."""
    if (
        row.source not in {None, "attachment", "forward"}
        or url.raw_host in _SCALING_HOSTS
        or _SCALED & url.query.keys()
    ):
        return None
    return row.file_size


async def _at_most(limit: int, response: aiohttp.ClientResponse) -> bytes:
    """The body, or its beginning."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= limit:
            break
    return bytes(body[:limit])


async def _json(response: aiohttp.ClientResponse) -> object:
    try:
        return decode_any(await _at_most(MAX_JSON, response))
    except msgspec.DecodeError:
        raise LinkError(FAILED, "the server's JSON is none", response.status) from None


def _links(message: object) -> dict[str, str]:
    """Every link in a message, by attachment key, and an attachment's by its id as well."""
    found: dict[str, str] = {}
    for value in _parts(message):
        if isinstance(value, dict) and isinstance(value.get("id"), str) and isinstance(value.get("url"), str):
            found.setdefault(value["id"], value["url"])
        elif isinstance(value, str) and value.startswith(("https://", "http://")):
            with contextlib.suppress(ValueError):  # text that only looks like a link
                found.setdefault(attachment_key(value), value)
    return found


def _parts(value: object) -> Iterator[object]:
    """The value and all that is in it: a message nests attachments in forwards, images in embeds."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def message_of(row: IndexRow) -> tuple[str, str] | None:
    """Channel and message that a fresh link can be asked for, if the row has their ids."""
    channel, message = row.channel_id, row.message_id
    return (channel, message) if _is_id(channel) and _is_id(message) else None


def _is_id(text: str | None) -> TypeGuard[str]:
    """A Discord id: digits and nothing else, so that a cell of the index cannot lead the token to another route."""
    return text is not None and text.isascii() and text.isdigit()
