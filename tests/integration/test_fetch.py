"""Fetching over real HTTP on loopback: what servers do, and what comes of it."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.resolver import ThreadedResolver

from modbot.errors import InputError, RateLimitError, StorageError
from modbot.fetch import client as module
from modbot.fetch.client import Fetcher, Timeouts
from modbot.fetch.coordinator import LocalCoordinator
from modbot.fetch.hosts import HostPolicy
from modbot.fetch.remote import serve
from modbot.fetch.store import Store, Stored
from modbot.records.index import IndexRow
from modbot.records.p1 import ERROR_KINDS, RecordError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DATA = b"an image, as far as fetching cares" * 100
STORED = Stored(hashlib.sha256(DATA).hexdigest(), len(DATA))
QUICK = Timeouts(connect=0.3, read=0.3, total=0.6)
SECRET = "bot-token-5ec2e7"  # noqa: S105 - not one


class Server:
    """A server whose paths each have a handler; the others hand out DATA. It keeps every request it got."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.requests: list[tuple[float, web.Request]] = []
        self.port = 0

    def on(self, path: str) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            self.handlers[path] = handler
            return handler

        return register

    def answers(self, path: str, *answers: int | dict[str, Any]) -> None:
        """One after the other, the last for good: a status, or arguments of `web.Response`."""
        left = list(answers)

        async def handle(_: web.Request) -> web.StreamResponse:
            answer = left.pop(0) if len(left) > 1 else left[0]
            return web.Response(**({"status": answer} if isinstance(answer, int) else answer))

        self.handlers[path] = handle

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def paths(self) -> list[str]:
        return [request.path for _, request in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((time.monotonic(), request))
        handler = self.handlers.get(request.path)
        return web.Response(body=DATA) if handler is None else await handler(request)


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()


class World:
    """One server, one store, one coordinator, and fetchers."""

    def __init__(self, server: Server, coordinator: LocalCoordinator, folder: Path, stack: AsyncExitStack) -> None:
        self.server = server
        self.coordinator = coordinator
        self.folder = folder
        self.store = Store(folder)
        self._stack = stack

    async def fetcher(self, **options: Any) -> Fetcher:  # noqa: ANN401 - a Fetcher's options
        settings: dict[str, Any] = {
            "store": self.store,
            "coordinator": self.coordinator,
            "hosts": HostPolicy.of([f"127.0.0.1:{self.server.port}"]),
            "backoff": 0.01,
            "discord_api": self.server.url("/api/v10"),
        }
        return await self._stack.enter_async_context(Fetcher(**(settings | options)))

    def row(self, path: str, **cells: Any) -> IndexRow:  # noqa: ANN401 - a row's cells
        return IndexRow(row=0, url=self.server.url(path), **cells)


def play(folder: Path, scene: Callable[[World], Coroutine[None, None, None]]) -> None:
    async def work() -> None:
        async with (
            asyncio.timeout(30),
            serving() as server,
            LocalCoordinator(qps=math.inf, concurrency=8) as coordinator,
            AsyncExitStack() as stack,
        ):
            await scene(World(server, coordinator, folder, stack))

    asyncio.run(work())


def failed(result: Stored | RecordError, kind: str, status: int | None = None, attempts: int | None = None) -> None:
    assert isinstance(result, RecordError), result
    assert result.kind == kind
    assert result.kind in ERROR_KINDS
    assert result.http_status == status
    assert "\n" not in result.detail
    if attempts is not None:
        assert result.attempts == attempts


def test_an_image_is_fetched_once_and_then_found(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        fetcher = await world.fetcher()
        assert [await fetcher.fetch(world.row("/a")) for _ in range(3)] == [STORED] * 3
        assert world.store.read(STORED.sha256) == DATA
        assert world.server.paths == ["/a"]
        assert fetcher.counters.requests == 1
        assert fetcher.counters.bytes == len(DATA)
        assert fetcher.counters.store_hits == 2
        request = world.server.requests[0][1]
        assert request.method == "GET"
        assert request.headers["Accept-Encoding"] == "identity"
        assert "modbot" in request.headers["User-Agent"]
        assert "Authorization" not in request.headers

    play(tmp_path, scene)


def test_a_stored_image_that_is_damaged_is_fetched_again(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        fetcher = await world.fetcher()
        await fetcher.fetch(world.row("/a"))
        world.store.path(STORED.sha256).write_bytes(b"bit rot")
        assert await fetcher.fetch(world.row("/a")) == STORED
        assert world.server.paths == ["/a", "/a"]
        assert world.store.read(STORED.sha256) == DATA

    play(tmp_path, scene)


def test_a_stored_image_that_turns_out_damaged_is_fetched_again(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        fetcher = await world.fetcher()
        await fetcher.fetch(world.row("/a"))
        world.store.path(STORED.sha256).write_bytes(bytes(len(DATA)))
        assert await fetcher.fetch(world.row("/a")) == STORED  # of the right size, and not looked at more closely
        with pytest.raises(InputError, match="damaged"):
            world.store.read(STORED.sha256)
        assert await fetcher.fetch(world.row("/a")) == STORED
        assert world.server.paths == ["/a", "/a"]
        assert world.store.read(STORED.sha256) == DATA

    play(tmp_path, scene)


def test_one_attachment_under_two_signatures_is_one_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modbot.records.index.DISCORD_CDN_HOSTS", frozenset({"127.0.0.1"}))

    async def scene(world: World) -> None:
        @world.server.on("/attachments/1/2/a.png")
        async def slowly(_: web.Request) -> web.Response:
            await asyncio.sleep(0.1)
            return web.Response(body=DATA)

        fetchers = [await world.fetcher() for _ in range(2)]
        rows = [world.row(f"/attachments/1/2/a.png?ex=ffffffff&is=1&hm={i}") for i in range(6)]
        results = await asyncio.gather(*(fetchers[i % 2].fetch(row) for i, row in enumerate(rows)))
        assert results == [STORED] * 6
        assert len(world.server.paths) == 1
        assert sum(f.counters.store_hits for f in fetchers) == 5

    play(tmp_path, scene)


def test_the_same_failure_for_every_row_of_an_attachment(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/gone", 404)
        fetcher = await world.fetcher()
        results = [await fetcher.fetch(world.row("/gone")) for _ in range(2)]
        assert results[0] == results[1]
        failed(results[0], "expired", 404, attempts=1)
        assert world.server.paths == ["/gone"]

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("status", "kind", "attempts"),
    [
        (401, "unauthorised", 1),
        (403, "expired", 1),
        (404, "expired", 1),
        (410, "fetch_failed", 1),
        (204, "fetch_failed", 1),
        (500, "fetch_failed", 4),
        (503, "fetch_failed", 4),
        (408, "fetch_failed", 4),
    ],
)
def test_what_a_status_means(tmp_path: Path, status: int, kind: str, attempts: int) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/a", status)
        fetcher = await world.fetcher()
        failed(await fetcher.fetch(world.row("/a")), kind, status, attempts)
        assert len(world.server.paths) == attempts == fetcher.counters.requests
        assert fetcher.counters.retries == attempts - 1

    play(tmp_path, scene)


def test_a_server_that_recovers(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/a", 503, {"status": 502}, {"body": DATA})
        fetcher = await world.fetcher()
        assert await fetcher.fetch(world.row("/a")) == STORED
        assert fetcher.counters.http_5xx == 2
        assert fetcher.counters.retries == 2
        assert world.coordinator.adjustments == []  # it is ill, not overrun

    play(tmp_path, scene)


def test_the_pause_between_tries_grows_with_full_jitter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return 0.0

    monkeypatch.setattr("modbot.fetch.client.random.uniform", draw)

    async def scene(world: World) -> None:
        world.server.answers("/a", 503)
        await (await world.fetcher(attempts=8, backoff=0.5)).fetch(world.row("/a"))

    play(tmp_path, scene)
    assert drawn == [(0, high) for high in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)]


def test_a_503_that_says_when_is_obeyed(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/a", {"status": 503, "headers": {"Retry-After": "0.3"}}, {"body": DATA})
        assert await (await world.fetcher()).fetch(world.row("/a")) == STORED
        (first, _), (second, _) = world.server.requests
        assert second - first >= 0.3

    play(tmp_path, scene)


@pytest.mark.parametrize(
    "answer",
    [
        {"headers": {"Retry-After": "0.4"}},
        {"body": b'{"retry_after": 0.4, "global": true}', "headers": {"Retry-After": "0"}},
        {"headers": {"Retry-After": "0.4", "X-RateLimit-Scope": "shared"}},
    ],
)
def test_after_a_429_nothing_is_sent_before_its_time(tmp_path: Path, answer: dict[str, Any]) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/limited", {"status": 429, **answer}, {"body": DATA})
        fetcher = await world.fetcher()

        async def other() -> None:
            await asyncio.sleep(0.1)
            await fetcher.fetch(world.row("/other"))

        result, _ = await asyncio.gather(fetcher.fetch(world.row("/limited")), other())
        assert result == STORED
        times = [at for at, _ in world.server.requests]
        assert min(times[1:]) - times[0] >= 0.4
        assert fetcher.counters.http_429 == 1
        [adjustment] = world.coordinator.adjustments
        assert (adjustment.cause, adjustment.status, adjustment.after.qps) == ("http_429", 429, 4.0)

    play(tmp_path, scene)


def test_a_429_does_not_use_up_the_attempts_but_has_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LIMITED", 2)

    async def scene(world: World) -> None:
        limited = {"status": 429, "headers": {"Retry-After": "0"}}
        world.server.answers("/a", limited, limited, {"body": DATA})
        world.server.answers("/never", limited)
        fetcher = await world.fetcher(attempts=1)
        assert await fetcher.fetch(world.row("/a")) == STORED
        failed(await fetcher.fetch(world.row("/never")), "fetch_failed", 429, attempts=3)

    play(tmp_path, scene)


@pytest.mark.parametrize("wait", ["4000", "99999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_one_host_that_asks_to_stay_away_for_hours_fails_alone(tmp_path: Path, wait: str) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/a", {"status": 429, "headers": {"Retry-After": wait}})
        fetcher = await world.fetcher()
        for path, attempts in (("/a", 1), ("/b", 0)):
            result = await fetcher.fetch(world.row(path))
            failed(result, "fetch_failed", None, attempts)
            assert isinstance(result, RecordError)
            told = result.detail.removeprefix(f"127.0.0.1:{world.server.port} asks to be left alone until ")
            assert 3_600 < datetime.fromisoformat(told).timestamp() - time.time() <= 86_400

    play(tmp_path, scene)


def test_discord_asking_to_stay_away_for_hours_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modbot.fetch.hosts.DISCORD_CDN_HOSTS", frozenset({"127.0.0.1"}))

    async def scene(world: World) -> None:
        world.server.answers("/a", {"status": 429, "headers": {"Retry-After": "4000"}})
        fetcher = await world.fetcher()
        for path in ("/a", "/b"):
            with pytest.raises(RateLimitError, match=r"discord asks to be left alone until .*\n.*same command again"):
                await fetcher.fetch(world.row(path))
        assert world.server.paths == ["/a"]

    play(tmp_path, scene)


def test_slow_servers_time_out(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        @world.server.on("/silent")
        async def silent(_: web.Request) -> web.Response:
            await asyncio.sleep(5)
            return web.Response()

        @world.server.on("/drip")
        async def drip(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": "100"})
            await response.prepare(request)
            for _ in range(100):
                await response.write(b"x")
                await asyncio.sleep(0.1)
            return response

        fetcher = await world.fetcher(timeouts=QUICK, attempts=2)
        silent_result, drip_result = await asyncio.gather(
            fetcher.fetch(world.row("/silent")), fetcher.fetch(world.row("/drip"))
        )
        failed(silent_result, "timeout", None, attempts=2)
        failed(drip_result, "timeout", 200, attempts=2)
        assert not list(world.folder.rglob("*.tmp"))

    play(tmp_path, scene)


def test_transfers_that_break_off_are_tried_again(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        def breaks_once(path: str, length: dict[str, str]) -> None:
            state = {"broken": False}

            @world.server.on(path)
            async def handle(request: web.Request) -> web.StreamResponse:
                if state["broken"]:
                    return web.Response(body=DATA)
                state["broken"] = True
                response = web.StreamResponse(headers=length)
                if not length:
                    response.force_close()
                    request._keep_alive = False
                await response.prepare(request)
                await response.write(DATA[:100])
                assert request.transport is not None
                request.transport.close()
                return response

        breaks_once("/short", {"Content-Length": str(len(DATA))})
        breaks_once("/chunked", {})
        fetcher = await world.fetcher()
        assert await fetcher.fetch(world.row("/short")) == STORED
        assert await fetcher.fetch(world.row("/chunked")) == STORED
        assert fetcher.counters.retries == 2
        assert not list(world.folder.rglob("*.tmp"))

    play(tmp_path, scene)


def test_without_a_length_the_index_says_what_is_whole(tmp_path: Path) -> None:
    """A body that ends with the connection looks whole wherever it breaks."""

    async def scene(world: World) -> None:
        async def until_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + DATA[:100])
            await writer.drain()
            writer.close()

        raw = await asyncio.start_server(until_close, "127.0.0.1", 0)
        async with raw:
            port = raw.sockets[0].getsockname()[1]
            fetcher = await world.fetcher(hosts=HostPolicy.of([f"127.0.0.1:{port}"]), attempts=2)
            link = f"http://127.0.0.1:{port}/a"
            result = await fetcher.fetch(IndexRow(row=0, url=link + "1", source="attachment", file_size=len(DATA)))
            failed(result, "fetch_failed", 200, attempts=2)
            for source, size in (("attachment", 100), ("embed_image", 999)):
                whole = await fetcher.fetch(IndexRow(row=0, url=f"{link}{size}", source=source, file_size=size))
                assert isinstance(whole, Stored)
                assert whole.bytes == 100

    play(tmp_path, scene)


def test_what_differs_from_the_index_is_asked_for_once_more_and_then_taken(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/first", {"body": DATA[:50]}, {"body": DATA})
        fetcher = await world.fetcher()
        size = len(DATA)
        assert await fetcher.fetch(world.row("/first", source="attachment", file_size=size)) == STORED
        assert await fetcher.fetch(world.row("/always", file_size=size + 1)) == STORED
        assert world.server.paths == ["/first", "/first", "/always", "/always"]
        assert fetcher.counters.retries == 2
        world.server.requests.clear()
        for number, row in enumerate(
            (
                world.row("/embed", source="embed_image", file_size=1),
                world.row("/scaled?width=100&height=50", source="attachment", file_size=1),
                world.row("/right", source="forward", file_size=size),
            ),
            start=1,
        ):
            assert await fetcher.fetch(row) == STORED
            assert len(world.server.paths) == number

    play(tmp_path, scene)


def test_a_doubt_is_no_failed_attempt(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        fetcher = await world.fetcher(attempts=1)
        assert await fetcher.fetch(world.row("/a", file_size=5)) == STORED

    play(tmp_path, scene)


def test_what_is_stored_and_larger_than_the_limit_of_today_is_too_large(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        assert await (await world.fetcher()).fetch(world.row("/a")) == STORED
        stricter = await world.fetcher(max_bytes=len(DATA) - 1)
        failed(await stricter.fetch(world.row("/a")), "too_large", attempts=0)
        assert stricter.counters.store_hits == 0
        assert world.server.paths == ["/a"]

    play(tmp_path, scene)


def test_a_thorough_fetcher_looks_at_what_is_stored(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        fetcher = await world.fetcher(thorough=True)
        assert [await fetcher.fetch(world.row("/a")) for _ in range(2)] == [STORED] * 2
        assert fetcher.counters.store_hits == 1
        world.store.path(STORED.sha256).write_bytes(bytes(len(DATA)))
        assert await fetcher.fetch(world.row("/a")) == STORED
        assert world.store.read(STORED.sha256) == DATA
        assert world.server.paths == ["/a", "/a"]

    play(tmp_path, scene)


def test_a_retry_that_never_came_about_is_not_counted(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/a", {"status": 429, "headers": {"Retry-After": "4000"}})
        fetcher = await world.fetcher()
        failed(await fetcher.fetch(world.row("/a")), "fetch_failed", None, attempts=1)
        assert (fetcher.counters.requests, fetcher.counters.http_429, fetcher.counters.retries) == (1, 1, 0)

    play(tmp_path, scene)


def test_a_host_that_limits_forever_costs_bounded_time_and_no_other_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modbot.fetch.budget.FOREIGN_PATIENCE_S", 0.5)

    async def scene(world: World) -> None:
        async with serving() as other:
            limited = {"status": 429, "headers": {"Retry-After": "0"}}
            for number in range(20):
                world.server.answers(f"/{number}", limited)
            hosts = HostPolicy.of([f"127.0.0.1:{world.server.port}", f"127.0.0.1:{other.port}"])
            fetcher = await world.fetcher(hosts=hosts)
            links = [base.url(f"/{number}") for number in range(20) for base in (world.server, other)]
            results = await asyncio.gather(*(fetcher.fetch(IndexRow(row=0, url=link)) for link in links))
            assert results[1::2] == [STORED] * 20
            for result in results[::2]:
                failed(result, "fetch_failed")
            assert any(
                "given up for this run" in result.detail for result in results if isinstance(result, RecordError)
            )
            assert len(world.server.paths) < 20 + 31
            assert {a.host for a in world.coordinator.adjustments} == {f"127.0.0.1:{world.server.port}"}

    play(tmp_path, scene)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff" * 100,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://[::1]@\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 Odd\r\nRetry-After: \xff\r\nContent-Length: 9\r\n\r\n[",
        b'HTTP/1.1 429 Odd\r\nRetry-After: 0\r\nContent-Length: 9\r\n\r\n{"a":"\xff"}',
    ],
)
def test_whatever_a_server_says_ends_as_a_record(tmp_path: Path, answer: bytes) -> None:
    async def scene(world: World) -> None:
        async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        raw = await asyncio.start_server(say, "127.0.0.1", 0)
        async with raw:
            port = raw.sockets[0].getsockname()[1]
            hosts = HostPolicy.of([f"127.0.0.1:{port}"])
            fetcher = await world.fetcher(hosts=hosts, attempts=1, timeouts=QUICK)
            result = await fetcher.fetch(IndexRow(row=0, url=f"http://127.0.0.1:{port}/a?hm=5ec2e7"))
        assert isinstance(result, RecordError)
        assert result.kind in {"fetch_failed", "forbidden_host", "timeout"}
        assert "5ec2e7" not in result.detail
        assert "Error" not in result.detail

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_LIMITED", 0)
        play(tmp_path, scene)


def test_a_connection_that_fails_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object) -> list[dict[str, Any]]:
        raise OSError(socket.EAI_NONAME, "Name or service not known")

    async def scene(world: World) -> None:
        monkeypatch.setattr(ThreadedResolver, "resolve", unknown)

        @world.server.on("/closes")
        async def closes(request: web.Request) -> web.Response:
            assert request.transport is not None
            request.transport.close()
            return web.Response()

        @world.server.on("/resets")
        async def resets(request: web.Request) -> web.Response:
            assert request.transport is not None
            opened = request.transport.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.transport.abort()
            return web.Response()

        fetcher = await world.fetcher(hosts=HostPolicy.of(["127.0.0.1", "images.invalid"]), attempts=2)
        for link, detail in {
            "http://127.0.0.1:9/a": "the connection failed (Connection refused)",
            "http://images.invalid/a": "the name cannot be resolved",
            world.server.url("/a").replace("http:", "https:"): "TLS failed",
            world.server.url("/closes"): "the server closed the connection without an answer",
            world.server.url("/resets"): "the connection failed (Connection reset by peer)",
        }.items():
            result = await fetcher.fetch(IndexRow(row=0, url=link))
            failed(result, "fetch_failed", None, attempts=2)
            assert isinstance(result, RecordError)
            assert result.detail == detail

    play(tmp_path, scene)


def test_too_large_by_its_word_and_by_its_deed(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        @world.server.on("/endless")
        async def endless(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b"x" * 65_536)

        world.server.answers("/long", {"body": b"x" * 3_000_001})
        world.server.answers("/just", {"body": b"x" * 3_000_000})
        fetcher = await world.fetcher(max_bytes=3_000_000)
        failed(await fetcher.fetch(world.row("/long")), "too_large", None, attempts=1)
        failed(await fetcher.fetch(world.row("/endless")), "too_large", None, attempts=1)
        assert fetcher.counters.bytes < 3_600_000
        assert isinstance(await fetcher.fetch(world.row("/just")), Stored)
        assert not list(world.folder.rglob("*.tmp"))

    play(tmp_path, scene)


def test_what_is_sent_encoded_is_refused_and_never_unpacked(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        bomb = gzip.compress(bytes(20_000_000))
        world.server.answers("/bomb", {"body": bomb, "headers": {"Content-Encoding": "gzip"}})
        world.server.answers("/plain", {"body": DATA, "headers": {"Content-Encoding": "identity"}})
        fetcher = await world.fetcher(max_bytes=100_000)
        failed(await fetcher.fetch(world.row("/bomb")), "fetch_failed", 200, attempts=1)
        assert fetcher.counters.bytes == 0
        assert await fetcher.fetch(world.row("/plain")) == STORED

    play(tmp_path, scene)


def test_redirects_are_followed_hop_by_hop(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/a", {"status": 302, "headers": {"Location": "/b?x=1"}})
        world.server.answers("/b", {"status": 307, "headers": {"Location": world.server.url("/c")}})
        fetcher = await world.fetcher()
        assert await fetcher.fetch(world.row("/a")) == STORED
        assert world.server.paths == ["/a", "/b", "/c"]
        assert fetcher.counters.requests == 3

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("http://127.0.0.1:1/a", "forbidden_host"),
        ("http://169.254.169.254/latest/meta-data", "forbidden_host"),
        ("http://[::1]/", "forbidden_host"),
        ("//10.0.0.1/a", "forbidden_host"),
        ("file:///etc/passwd", "forbidden_host"),
        ("http://user:word@127.0.0.1/", "forbidden_host"),
        ("http://[::1/", "fetch_failed"),
        ("/" + "ä" * 2_000, "fetch_failed"),  # too long as it is sent
        ("/a", "fetch_failed"),
    ],
)
def test_a_redirect_leads_nowhere_a_link_may_not_lead(tmp_path: Path, location: str, kind: str) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/a", {"status": 302, "headers": {"Location": location}})
        hosts = HostPolicy.of([f"127.0.0.1:{world.server.port}"], file_root=Path("/etc"))
        result = await (await world.fetcher(hosts=hosts)).fetch(world.row("/a"))
        requests = 6 if location == "/a" else 1
        failed(result, kind, 302 if location == "http://[::1/" else None, attempts=requests)
        assert len(world.server.paths) == requests

    play(tmp_path, scene)


def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(world: World) -> None:
        async def resolve(_: object, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
            return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

        monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
        fetcher = await world.fetcher()
        failed(await fetcher.fetch(IndexRow(row=0, url="https://cdn.discordapp.com/a")), "forbidden_host", attempts=1)
        assert world.server.paths == []

    play(tmp_path, scene)


def test_rows_that_cannot_be_fetched_cost_no_request(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        fetcher = await world.fetcher()
        failed(await fetcher.fetch(IndexRow(row=0, url=world.server.url("/a"), bad="line 3: no date")), "bad_row")
        failed(await fetcher.fetch(IndexRow(row=1)), "bad_row")
        failed(await fetcher.fetch(IndexRow(row=2, url="http://[::1/")), "bad_row")
        failed(await fetcher.fetch(IndexRow(row=3, url="https://evil.example/?hm=5ec2e7")), "forbidden_host")
        assert world.server.paths == []
        assert fetcher.counters.requests == 0

    play(tmp_path, scene)


def test_local_files_go_through_the_same_store(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").write_bytes(DATA)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "way out").symlink_to(tmp_path / "secret")
    (root / "large").write_bytes(b"x" * 5_000)
    no_utf8 = root / os.fsdecode(b"bad\xff.png")
    no_utf8.write_bytes(DATA)

    async def scene(world: World) -> None:
        fetcher = await world.fetcher(hosts=HostPolicy.of(file_root=root), max_bytes=4_000)
        link = f"file://{root}/a.png"
        assert [await fetcher.fetch(IndexRow(row=0, url=link)) for _ in range(2)] == [STORED] * 2
        assert world.store.read(STORED.sha256) == DATA
        assert fetcher.counters.store_hits == 1
        (root / "a.png").write_bytes(b"edited")
        edited = await fetcher.fetch(IndexRow(row=0, url=link))
        assert edited == Stored(hashlib.sha256(b"edited").hexdigest(), 6)
        assert await fetcher.fetch(IndexRow(row=0, url=no_utf8.as_uri())) == STORED
        failed(await fetcher.fetch(IndexRow(row=0, url=f"file://{root}/large")), "too_large")
        failed(await fetcher.fetch(IndexRow(row=0, url=f"file://{root}/none")), "fetch_failed")
        for way in ("way%20out", "../secret", "%2e%2e/secret"):
            failed(await fetcher.fetch(IndexRow(row=0, url=f"file://{root}/{way}")), "forbidden_host")
        assert fetcher.counters.requests == 0

    play(tmp_path, scene)


# --- links that have expired ---


def _message(world: World, *names: str) -> dict[str, Any]:
    attachments = [
        {"id": name, "filename": f"{name}.png", "url": world.server.url(f"/fresh/{name}?ex=ffffffff")} for name in names
    ]
    return {
        "id": "22",
        "content": "https://[not a link",
        "attachments": attachments[:1],
        "message_snapshots": [{"message": {"attachments": attachments[1:]}}],
    }


def _rows(world: World, link: str, *names: str) -> list[IndexRow]:
    return [world.row(link.format(name), channel_id="11", message_id="22", attachment_id=name) for name in names]


def test_an_expired_link_is_refreshed_with_one_read_of_the_message(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/api/v10/channels/11/messages/22", {"text": json.dumps(_message(world, "1", "2", "3"))})
        world.server.answers("/old/1", 404)
        world.server.answers("/old/2", 403)
        fetcher = await world.fetcher(token=SECRET)
        rows = [*_rows(world, "/old/{}", "1", "2"), *_rows(world, "/old/{}?ex=60000000&hm=1", "3")]
        assert await asyncio.gather(*(fetcher.fetch(row) for row in rows)) == [STORED] * 3
        reads = [request for _, request in world.server.requests if "/api/" in request.path]
        assert [read.headers["Authorization"] for read in reads] == [f"Bot {SECRET}"]
        assert "/old/3" not in world.server.paths  # its signature said that it was in vain
        others = [request for _, request in world.server.requests if "/api/" not in request.path]
        assert not any("Authorization" in request.headers for request in others)
        assert fetcher.counters.refreshed == 3
        assert (fetcher.counters.http_403, fetcher.counters.http_404) == (1, 1)

    play(tmp_path, scene)


@pytest.mark.parametrize("answer", [404, 403, {"text": '{"attachments": []}'}])
def test_a_message_that_is_gone_leaves_the_link_expired(tmp_path: Path, answer: int | dict[str, Any]) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/api/v10/channels/11/messages/22", answer)
        world.server.answers("/old/1", 404)
        fetcher = await world.fetcher(token=SECRET)
        failed(await fetcher.fetch(_rows(world, "/old/{}", "1")[0]), "expired", 404, attempts=1)
        failed(await fetcher.fetch(_rows(world, "/old/{}?ex=1&hm=1", "2")[0]), "expired", None, attempts=0)
        assert world.server.paths.count("/api/v10/channels/11/messages/22") == 1

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("answer", "kind", "status", "said"),
    [
        (500, "fetch_failed", 500, "the server answered 500"),
        (400, "fetch_failed", 400, "the server answered 400"),
        ({"text": "<html>"}, "fetch_failed", 200, "the server's JSON is none"),
        ({"body": b'{"id": "\xff"}'}, "fetch_failed", 200, "the server's JSON is none"),
        ({"body": b"[" * 100_000}, "fetch_failed", 200, "the server's JSON is none"),
    ],
)
def test_a_message_that_cannot_be_read_again_is_no_expired_link(
    tmp_path: Path, answer: int | dict[str, Any], kind: str, status: int, said: str
) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/api/v10/channels/11/messages/22", answer)
        world.server.answers("/old/1", 404)
        fetcher = await world.fetcher(token=SECRET)
        result = await fetcher.fetch(_rows(world, "/old/{}", "1")[0])
        failed(result, kind, status, attempts=1)
        assert isinstance(result, RecordError)
        assert result.detail == f"the message could not be read again: {said}"

    play(tmp_path, scene)


def test_a_re_read_that_is_limited_waits_and_goes_on(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        path = "/api/v10/channels/11/messages/22"
        limited = {"status": 429, "text": '{"retry_after": 0.3}', "headers": {"X-RateLimit-Scope": "user"}}
        world.server.answers(path, limited, {"text": json.dumps(_message(world, "1"))})
        fetcher = await world.fetcher(token=SECRET)
        assert await fetcher.fetch(_rows(world, "/old/{}?ex=1", "1")[0]) == STORED
        first, second = (at for at, request in world.server.requests if request.path == path)
        assert second - first >= 0.3

    play(tmp_path, scene)


def test_a_file_that_wants_a_token_says_nothing_about_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modbot.fetch.hosts.DISCORD_CDN_HOSTS", frozenset({"127.0.0.1"}))

    async def scene(world: World) -> None:
        world.server.answers("/a", 401)
        fetcher = await world.fetcher(token=SECRET)
        failed(await fetcher.fetch(_rows(world, "/a", "1")[0]), "unauthorised", 401, attempts=1)
        assert await fetcher.fetch(world.row("/b")) == STORED
        assert world.server.paths == ["/a", "/b"]

    play(tmp_path, scene)


def test_a_fresh_link_that_fails_too_is_the_end(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/api/v10/channels/11/messages/22", {"text": json.dumps(_message(world, "1"))})
        world.server.answers("/old/1", 404)
        world.server.answers("/fresh/1", 404)
        fetcher = await world.fetcher(token=SECRET)
        failed(await fetcher.fetch(_rows(world, "/old/{}", "1")[0]), "expired", 404, attempts=2)

    play(tmp_path, scene)


def test_without_a_token_or_with_ids_that_are_none_nobody_asks(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/old/1", 404)
        without = await world.fetcher()
        failed(await without.fetch(_rows(world, "/old/{}", "1")[0]), "expired", 404, attempts=1)
        signed = IndexRow(row=0, url="https://cdn.discordapp.com/attachments/1/2/a.png?ex=60000000&is=1&hm=1")
        failed(await without.fetch(signed), "expired", None, attempts=0)
        fetcher = await world.fetcher(token=SECRET)
        for channel, message in (("../../users/@me", "22"), ("11", None), ("11", "22?x"), ("\uff11\uff11", "22")):
            row = world.row(f"/old/1?{channel}{message}", channel_id=channel, message_id=message, attachment_id="1")
            failed(await fetcher.fetch(row), "expired", 404)
        assert set(world.server.paths) == {"/old/1"}

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("link", "kind"),
    [
        ("http://169.254.169.254/latest", "forbidden_host"),
        ("file:///etc/passwd", "forbidden_host"),
        ("http://[::1/", "fetch_failed"),
    ],
)
def test_a_fresh_link_is_checked_like_any_other(tmp_path: Path, link: str, kind: str) -> None:
    async def scene(world: World) -> None:
        message = {"attachments": [{"id": "1", "url": link}]}
        world.server.answers("/api/v10/channels/11/messages/22", {"text": json.dumps(message)})
        hosts = HostPolicy.of([f"127.0.0.1:{world.server.port}"], file_root=Path("/etc"))
        fetcher = await world.fetcher(token=SECRET, hosts=hosts)
        failed(await fetcher.fetch(_rows(world, "/old/{}?ex=1", "1")[0]), kind, attempts=0)
        assert world.server.paths == ["/api/v10/channels/11/messages/22"]

    play(tmp_path, scene)


def test_a_token_that_is_refused_ends_the_run_for_all(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.server.answers("/api/v10/channels/11/messages/22", 401)
        fetcher = await world.fetcher(token=SECRET)
        rows = _rows(world, "/old/{}?ex=1", "1", "2")
        with pytest.raises(RateLimitError, match="DISCORD_BOT_TOKEN") as caught:
            await fetcher.fetch(rows[0])
        assert SECRET not in str(caught.value)
        with pytest.raises(RateLimitError, match="DISCORD_BOT_TOKEN"):
            await fetcher.fetch(rows[1])
        assert len(world.server.paths) == 1

    play(tmp_path, scene)


# --- ends ---


def test_a_full_disk_ends_the_run_and_frees_the_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    async def scene(world: World) -> None:
        fetcher = await world.fetcher()
        with monkeypatch.context() as patch:
            patch.setattr("modbot.fetch.store._place", full)
            with pytest.raises(StorageError, match="the disk is full"):
                await fetcher.fetch(world.row("/a"))
        assert not list(world.folder.rglob("*.tmp"))
        assert await fetcher.fetch(world.row("/a")) == STORED

    play(tmp_path, scene)


def test_a_cancelled_fetch_leaves_nothing_and_hands_its_claim_on(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        begun = asyncio.Event()

        @world.server.on("/a")
        async def first_hangs(request: web.Request) -> web.StreamResponse:
            if world.server.paths.count("/a") > 1:
                return web.Response(body=DATA)
            response = web.StreamResponse(headers={"Content-Length": "5000000"})
            await response.prepare(request)
            await response.write(b"x" * 2_000_000)
            begun.set()
            await asyncio.sleep(5)
            return response

        fetcher = await world.fetcher()
        first = asyncio.ensure_future(fetcher.fetch(world.row("/a")))
        await begun.wait()
        second = asyncio.ensure_future(fetcher.fetch(world.row("/a")))
        await asyncio.sleep(0.1)
        first.cancel()
        assert await second == STORED
        assert first.cancelled()
        assert not list(world.folder.rglob("*.tmp"))

    play(tmp_path, scene)


WORKER = """
import asyncio, sys, time
from pathlib import Path
import msgspec
from modbot.fetch.client import Fetcher
from modbot.fetch.hosts import HostPolicy
from modbot.fetch.remote import RemoteCoordinator
from modbot.fetch.store import Store, Stored
from modbot.records.index import IndexRow

sent = []

class Noting(RemoteCoordinator):
    async def admit(self, lane):
        ticket = await super().admit(lane)
        sent.append(time.monotonic())
        return ticket

async def main(socket, folder, base, *names):
    async with Noting(Path(socket)) as coordinator, Fetcher(
        store=Store(Path(folder)), coordinator=coordinator, hosts=HostPolicy.of(["127.0.0.1"])
    ) as fetcher:
        rows = [IndexRow(row=i, url=base + name) for i, name in enumerate(names)]
        results = await asyncio.gather(*(fetcher.fetch(row) for row in rows))
        assert all(isinstance(result, Stored) for result in results), results
        counters = msgspec.structs.asdict(fetcher.counters)
        sys.stdout.buffer.write(msgspec.json.encode({**counters, "sent": sent}))

asyncio.run(main(*sys.argv[1:]))
"""


def _start_worker(path: Path, world: World, *names: str) -> subprocess.Popen[bytes]:
    arguments = [str(path), str(world.folder), world.server.url("/"), *names]
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE)


def test_two_processes_fetch_each_image_once_under_one_budget(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        names = [str(i) for i in range(45)]
        with serve(LocalCoordinator(qps=30.0, concurrency=8)) as path:
            workers = [_start_worker(path, world, *names) for _ in range(2)]
            outputs = [(await asyncio.to_thread(worker.communicate))[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0]
        counters = [json.loads(output) for output in outputs]
        assert sorted(world.server.paths) == sorted(f"/{name}" for name in names)
        assert sum(c["requests"] for c in counters) == 45
        assert sum(c["store_hits"] for c in counters) == 45
        sent = sorted(time for c in counters for time in c["sent"])
        assert max(sum(begin <= time < begin + 1 for time in sent) for begin in sent) <= 31

    play(tmp_path, scene)


def test_a_worker_that_is_killed_leaves_its_image_to_another(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        begun = asyncio.Event()

        @world.server.on("/a")
        async def first_hangs(_: web.Request) -> web.StreamResponse:
            if not begun.is_set():
                begun.set()
                await asyncio.sleep(20)
            return web.Response(body=DATA)

        with serve(LocalCoordinator(qps=math.inf, concurrency=1)) as path:
            victim = _start_worker(path, world, "a")
            await begun.wait()
            heir = _start_worker(path, world, "a")
            await asyncio.sleep(0.5)
            victim.send_signal(signal.SIGKILL)
            output, _ = await asyncio.to_thread(heir.communicate)
            victim.communicate()
        assert heir.returncode == 0
        assert json.loads(output)["requests"] == 1

    play(tmp_path, scene)
