"""Files a second: modbot's fetching against a bare aiohttp loop that fetches, hashes and writes the same files.

python -m bench.fetch [FILES] [KILOBYTES]
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from aiohttp import web

from modbot.fetch.client import Fetcher
from modbot.fetch.coordinator import Coordinator, LocalCoordinator
from modbot.fetch.hosts import HostPolicy
from modbot.fetch.remote import RemoteCoordinator, serve
from modbot.fetch.store import Store, Stored
from modbot.records.index import IndexRow

CONCURRENCY = 24
ROUNDS = 5


def run_server(ready: Connection, size: int) -> None:
    """Hands out a distinct body of `size` bytes under every path, until killed."""
    filler = os.urandom(size)

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=request.path.encode().ljust(64) + filler[64:])

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None)
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
    """The least that fetching can be."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def fetch(url: str) -> None:
            async with session.get(url) as response:
                data = await response.read()
            (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)

        await in_parallel(fetch, urls)


async def modbot(urls: list[str], folder: Path, coordinator: Coordinator) -> None:
    """The same by a Fetcher."""
    hosts = HostPolicy.of(["127.0.0.1"])
    async with Fetcher(store=Store(folder), coordinator=coordinator, hosts=hosts) as fetcher:

        async def fetch(url: str) -> None:
            result = await fetcher.fetch(IndexRow(row=0, url=url))
            if not isinstance(result, Stored):
                raise SystemExit(f"{url}: {result}")

        await in_parallel(fetch, urls)


async def local(urls: list[str], folder: Path) -> None:
    """With the budget in this process."""
    async with LocalCoordinator(qps=math.inf, concurrency=CONCURRENCY) as coordinator:
        await modbot(urls, folder, coordinator)


async def remote(socket: Path, urls: list[str], folder: Path) -> None:
    """With the budget in another process."""
    async with RemoteCoordinator(socket) as coordinator:
        await modbot(urls, folder, coordinator)


def run_coordinator(pipe: Connection) -> None:
    """Serves a coordinator until it is told to end."""
    with serve(LocalCoordinator(qps=math.inf, concurrency=CONCURRENCY)) as path:
        pipe.send(path)
        pipe.recv()


def start(target: Callable[..., None], *args: object) -> tuple[multiprocessing.Process, Connection]:
    """A process of its own, and the pipe to it."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(theirs, *args), daemon=True)
    process.start()
    return process, ours


def main(files: int = 2_000, kilobytes: int = 100) -> None:
    """Prints each way's median of ROUNDS, taken in turn, after one round that makes the folders."""
    multiprocessing.set_start_method("spawn")
    server, port_pipe = start(run_server, kilobytes * 1_000)
    parent, socket_pipe = start(run_coordinator)
    port = port_pipe.recv()
    ways: dict[str, Callable[[list[str], Path], Coroutine[None, None, None]]] = {
        "bare": bare,
        "local": local,
        "remote": partial(remote, socket_pipe.recv()),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(ROUNDS + 1):
            for name, way in ways.items():
                urls = [f"http://127.0.0.1:{port}/{name}/{round_}/{i}" for i in range(files)]
                begin = time.perf_counter()
                asyncio.run(way(urls, Path(folder)))
                rates[name].append(files / (time.perf_counter() - begin))
    socket_pipe.send(None)
    parent.join()
    server.terminate()
    server.join()
    medians = {name: statistics.median(values[1:]) for name, values in rates.items()}
    for name, median in medians.items():
        each = " ".join(f"{value:.0f}" for value in rates[name][1:])
        print(f"{name:<8}{median:6.0f} files/s  {median / medians['bare']:4.2f} x  ({each})")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
