"""Fetching alone, p1's first half: every row's image into the store, with no model in sight.

The line of a row says which content it has, or why there is none; images are the store's. p1 asks the store, not these
lines: what is stored it does not fetch, what failed here it asks for once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import msgspec

from modbot.errors import ModbotError, SettingError
from modbot.fetch.coordinator import Coordinator
from modbot.fetch.hosts import HostPolicy, is_discord
from modbot.fetch.remote import RemoteCoordinator
from modbot.fetch.store import MAX_BYTES, Store, Stored
from modbot.files.index_csv import read_rows
from modbot.files.journal import ShardFiles, digest_of
from modbot.records import jsonl
from modbot.records.index import IndexRow
from modbot.records.p1 import RecordError
from modbot.records.progress import Receipt
from modbot.settings import Secret
from modbot.stages.step import Report, shard_work

SETTINGS_DIGEST = digest_of("fetch")
"""Nothing that a flag says shapes the lines of what was fetched; what it refused is for --retry-failed."""

if TYPE_CHECKING:  # it loads aiohttp, which only a worker needs
    from modbot.fetch.client import Fetcher


class FetchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs to fetch. `concurrency`: requests under way at once in the whole run."""

    cache_dir: Path
    concurrency: int
    allow_hosts: tuple[str, ...]
    file_root: Path | None
    token: Secret | None
    discord_api: str
    max_bytes: int = MAX_BYTES


class FetchLine(msgspec.Struct, frozen=True, kw_only=True):
    """One row: the content that it has in the store, or why it has none."""

    row: int
    sha256: str | None = None
    bytes: int | None = None
    error: RecordError | None = None


@dataclass(frozen=True)
class FetchJob:
    """The fetching of one shard. `coordinator`: the socket of the run's shared budget."""

    files: ShardFiles
    source: Path
    rows: int
    inputs: str
    resume: bool
    fetching: FetchSettings
    coordinator: Path

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def settings(self) -> str:
        return SETTINGS_DIGEST

    def resumed(self) -> Self:
        return replace(self, resume=True)

    def run(self, report: Report) -> Receipt:
        """Fetches the shard's rows that its journal does not have yet, and publishes their lines."""
        return asyncio.run(self._run(report))

    async def _run(self, report: Report) -> Receipt:
        async with RemoteCoordinator(self.coordinator) as coordinator:
            return await fetch_shard(self, coordinator, report)


async def fetch_shard(job: FetchJob, coordinator: Coordinator, report: Report) -> Receipt:
    """Does one shard: every row a line in the journal, then the receipt.

    Raises:
        ModbotError: what ends the run (a full disk, a stopped budget).
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        # A stored image is looked at here, not only found: p1 is to meet nothing that is damaged.
        fetcher = fetcher_of(job.fetching, Store(job.fetching.cache_dir), coordinator, thorough=True)
        work = stack.enter_context(shard_work(job, report, count=lambda: msgspec.structs.asdict(fetcher.counters)))
        writer = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="journal"))
        await stack.enter_async_context(fetcher)

        async def do(row: IndexRow) -> None:
            line = jsonl.encode_line(_line(row, await fetcher.fetch(row)))
            await loop.run_in_executor(writer, work.append, line)

        todo = (row for row in read_rows(job.source) if row.row not in work.recovered)
        await each(do, todo, at_once=job.fetching.concurrency)
        return work.finish("fetch", {})


def _line(row: IndexRow, outcome: Stored | RecordError) -> FetchLine:
    if isinstance(outcome, RecordError):
        return FetchLine(row=row.row, error=outcome)
    return FetchLine(row=row.row, sha256=outcome.sha256, bytes=outcome.bytes)


def fetcher_of(settings: FetchSettings, store: Store, coordinator: Coordinator, *, thorough: bool = False) -> Fetcher:
    """A fetcher as the settings have it."""
    from modbot.fetch.client import Fetcher

    return Fetcher(
        store=store,
        coordinator=coordinator,
        hosts=HostPolicy.of(settings.allow_hosts, settings.file_root),
        max_bytes=settings.max_bytes,
        token=settings.token.reveal() if settings.token else None,
        discord_api=settings.discord_api,
        thorough=thorough,
    )


async def each(
    do: Callable[[IndexRow], Coroutine[None, None, None]],
    rows: Iterable[IndexRow],
    *,
    at_once: int,
    more: Coroutine[None, None, int] | None = None,
) -> None:
    """Does every row, at most `at_once` at a time, and so many `more` once that is known; the first error ends all.

    `rows` is read as it is needed.
    """
    todo: Iterator[IndexRow] = iter(rows)

    async def work() -> None:
        for row in todo:
            await do(row)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
            for _ in range(await more if more is not None else 0):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        told = errors.subgroup(ModbotError)
        raise (told or errors).exceptions[0] from None


def refuse_discord(sources: Iterable[Path]) -> None:
    """Raises SettingError if a row's link leads to Discord: no request goes there without a limit."""
    for source in sources:
        for row in read_rows(source):
            host = None if row.bad or row.url is None else urlsplit(row.url).hostname
            if host is not None and is_discord(host):
                raise SettingError(
                    f"'unlimited' is not for Discord ({source.name}, row {row.row}: {host})",
                    where="--qps",
                    remedy="Give a number of requests a second, for example --qps 4.0.",
                )
