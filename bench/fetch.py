"""Files a second: modbot's fetching against a bare aiohttp loop that fetches, hashes and writes the same files.

python -m bench.fetch [FILES] [KILOBYTES]
"""

from __future__ import annotations

import asyncio
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from bench.baselines.fetch_bare import CONCURRENCY, bare, in_parallel, run_server, start
from modbot.fetch.client import Fetcher
from modbot.fetch.coordinator import Coordinator, LocalCoordinator
from modbot.fetch.hosts import HostPolicy
from modbot.fetch.remote import RemoteCoordinator, serve
from modbot.fetch.store import Store, Stored
from modbot.records.index import IndexRow

ROUNDS = 5
BAR = 0.7


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


def main(files: int = 2_000, kilobytes: int = 100) -> int:
    """Prints each way's median of ROUNDS, taken in turn after one that makes the folders; 1: the bar is missed."""
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
    ratio = medians["remote"] / medians["bare"]
    print(f"remote: {ratio:.2f} x of bare (bar: {BAR} x)")
    return int(ratio < BAR)


if __name__ == "__main__":
    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))
