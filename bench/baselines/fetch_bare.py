"""The least that fetching can be: fetch, hash, write, in a loop; and the server that it and modbot both ask."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from aiohttp import web

CONCURRENCY = 24


def start(target: Callable[..., None], *args: object) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """A process of its own, and the pipe to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *args), daemon=True)
    process.start()
    return process, ours


def run_server(ready: Connection, size: int) -> None:
    """Hands out a distinct body of `size` bytes (at least 64) under every path, until killed."""
    filler = os.urandom(size)

    async def handle(request: web.BaseRequest) -> web.Response:
        return web.Response(body=request.path.encode().ljust(64) + filler[64:])

    async def main() -> None:
        runner = web.ServerRunner(web.Server(handle, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


async def in_parallel(work: Callable[[str], Awaitable[object]], urls: list[str]) -> None:
    """`work` on every link, CONCURRENCY at once."""
    left = iter(urls)

    async def one_after_another() -> None:
        for url in left:
            await work(url)

    await asyncio.gather(*(one_after_another() for _ in range(CONCURRENCY)))


async def bare(urls: list[str], folder: Path) -> None:
    """Every link's file under its digest."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def fetch(url: str) -> None:
            async with session.get(url) as response:
                data = await response.read()
            (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)

        await in_parallel(fetch, urls)
