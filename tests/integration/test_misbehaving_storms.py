"""Storms of 429s of every scope and form: what is sent is measured where it is sent.

Several fetchers share one budget through its socket, as the workers of p1 do. Each request carries the number of its
ticket, so that the server's 429, the moment at which the budget learnt of it, and every later request can be compared.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import aiohttp
import pytest

from modbot.fetch.budget import DISCORD_QPS, Answer, Lane, Ticket
from modbot.fetch.client import Fetcher
from modbot.fetch.coordinator import LocalCoordinator
from modbot.fetch.hosts import HostPolicy
from modbot.fetch.remote import RemoteCoordinator, serve
from modbot.fetch.store import Store, Stored
from modbot.records.index import IndexRow
from tests.counts import Count
from tests.misbehaving import TICKET, TOKEN, FakeDiscord, Limit, Misbehaving, Storm, lane_of

CHANNELS = 4
FETCHERS, AT_ONCE = 2, 4
STARTS = (4.0, 45.0, 10.0, 25.0)
"""Requests a second, by seed."""

_ticket: ContextVar[Ticket] = ContextVar("ticket")


class Noting(LocalCoordinator):
    """Notes when the budget let which request go, and when it learnt what had come of it."""

    def __init__(self, qps: float) -> None:
        super().__init__(qps=qps, concurrency=24)
        self.granted: dict[int, float] = {}
        self.learnt: dict[int, float] = {}

    async def admit(self, lane: Lane) -> Ticket:
        ticket = await super().admit(lane)
        self.granted[ticket.id] = time.monotonic()
        return ticket

    def report(self, ticket: Ticket, answer: Answer | None) -> None:
        super().report(ticket, answer)
        self.learnt[ticket.id] = time.monotonic()


class Carrying(RemoteCoordinator):
    """Leaves the ticket where the client's trace finds it: in the context of the task that sends."""

    async def admit(self, lane: Lane) -> Ticket:
        ticket = await super().admit(lane)
        _ticket.set(ticket)
        return ticket


@dataclass(frozen=True)
class Sent:
    """One request, at the moment in which its headers were handed to the socket."""

    at: float
    ticket: int
    lane: str


@dataclass
class Voyage:
    """One world with a storm in it, and what was seen there."""

    seed: int
    storm: Storm
    discord: FakeDiscord
    budget: Noting
    epoch: float
    sent: list[Sent] = field(default_factory=list)
    images: int = 0

    def breaches(self) -> list[tuple[Limit, Sent]]:
        """Requests that the budget let go although it knew of a 429 that asked them to wait, before that was over."""
        return [
            (limit, sent)
            for limit in self.storm.limits
            for sent in self.sent
            if sent.at < limit.until
            and limit.names in {None, sent.lane}
            and self.budget.granted[sent.ticket] >= self.budget.learnt[int(limit.ticket)]
        ]

    def overruns(self) -> list[tuple[float, int, float]]:
        """Seconds in which more was sent than the budget in force allowed, plus one: begin, requests, allowed."""
        times = sorted(sent.at for sent in self.sent)
        windows = [(begin, sum(begin <= at < begin + 1 for at in times), self._allowed(begin)) for begin in times]
        return [(begin, requests, allowed) for begin, requests, allowed in windows if requests > allowed + 1]

    def _allowed(self, begin: float) -> float:
        """Requests a second: the most that was in force at some moment of the second from `begin` on."""
        steps = [(datetime.fromisoformat(step.time).timestamp() - self.epoch, step) for step in self.budget.adjustments]
        before = [step.after for at, step in steps if at <= begin]
        first = before[-1] if before else steps[0][1].before if steps else None
        within = [step.after for at, step in steps if begin < at < begin + 1]
        paces = [rate.qps or DISCORD_QPS for rate in (first, *within) if rate is not None]
        return min(max(paces, default=DISCORD_QPS), DISCORD_QPS)

    def __str__(self) -> str:
        last = self.budget.adjustments[-1].after if self.budget.adjustments else "the start rate"
        lag = max(sent.at - self.budget.granted[sent.ticket] for sent in self.sent)
        return (
            f"seed {self.seed}: {self.images} images, {len(self.sent)} requests, {len(self.storm.limits)} times 429, "
            f"down to {last}; {len(self.breaches())} sent too early, {len(self.overruns())} seconds too full; "
            f"at most {lag * 1_000:.0f} ms from ticket to socket"
        )


def _trace(voyage: Voyage) -> aiohttp.TraceConfig:
    async def name(_: object, __: object, params: aiohttp.TraceRequestStartParams) -> None:
        params.headers[TICKET] = str(_ticket.get().id)

    async def note(_: object, __: object, params: aiohttp.TraceRequestHeadersSentParams) -> None:
        voyage.sent.append(Sent(time.monotonic(), _ticket.get().id, lane_of(params.url.path)))

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(name)
    trace.on_request_headers_sent.append(note)
    trace.freeze()
    return trace


def _rows(discord: FakeDiscord) -> Iterator[tuple[IndexRow, bytes]]:
    """Links without end: two in three have expired; two attachments of each message."""
    for number in itertools.count():
        channel, message = str(number % CHANNELS), str(1_000 + number)
        files = {f"{number}{half}": b"image %d%b" % (number, half.encode()) for half in "12"}
        discord.post(channel, message, files)
        for name, data in files.items():
            link = discord.link(channel, name, lasts=-60 if number % 3 else 3_600)
            row = IndexRow(row=number, url=link, channel_id=channel, message_id=message, attachment_id=name)
            yield row, data


async def _sail(voyage: Voyage, socket: Path, folder: Path) -> None:
    """Fetches for as long as the storm lasts, and ends what was begun."""
    rows = _rows(voyage.discord)

    async def work(fetcher: Fetcher) -> None:
        while not voyage.storm.over:
            row, data = next(rows)
            result = await fetcher.fetch(row)
            assert result == Stored(hashlib.sha256(data).hexdigest(), len(data))
            voyage.images += 1

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for _ in range(FETCHERS):
            coordinator = await stack.enter_async_context(Carrying(socket))
            fetcher = Fetcher(
                store=Store(folder),
                coordinator=coordinator,
                hosts=HostPolicy.of([voyage.discord.server.host]),
                token=TOKEN,
                discord_api=voyage.discord.api,
                backoff=0.1,
            )
            await stack.enter_async_context(fetcher)
            fetcher._session.trace_configs.append(_trace(voyage))
            for _ in range(AT_ONCE):
                group.create_task(work(fetcher))


def _voyage(seed: int, seconds: float, folder: Path) -> Voyage:
    with Misbehaving() as server:
        storm, discord = Storm(seed, seconds), FakeDiscord(server)
        server.weather, server.otherwise = storm, discord
        budget = Noting(STARTS[seed % len(STARTS)])
        voyage = Voyage(seed, storm, discord, budget, time.time() - time.monotonic())
        with serve(budget) as socket:
            asyncio.run(asyncio.wait_for(_sail(voyage, socket, folder), seconds + 120))
        assert len(server.arrivals) == len(voyage.sent)
    return voyage


def _voyages(seeds: range, seconds: float, folder: Path) -> list[Voyage]:
    """All at the same time: they mostly wait."""
    found: dict[int, Voyage | BaseException] = {}

    def sail(seed: int) -> None:
        try:
            found[seed] = _voyage(seed, seconds, folder / str(seed))
        except BaseException as error:  # noqa: BLE001 - raised below, where it is seen
            found[seed] = error

    threads = [threading.Thread(target=sail, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcome in found.values():
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in found.values() if isinstance(outcome, Voyage)]


@pytest.mark.parametrize(
    ("seeds", "seconds"),
    [(range(4), 6.0), pytest.param(range(10, 18), 60.0, marks=pytest.mark.chaos)],
    ids=["short", "a minute"],
)
def test_nothing_is_sent_too_early_or_too_fast_and_every_image_comes(
    seeds: range,
    seconds: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: Count,
) -> None:
    for module in ("fetch.hosts", "records.index"):
        monkeypatch.setattr(f"modbot.{module}.DISCORD_CDN_HOSTS", frozenset({"127.0.0.1"}))
    voyages = _voyages(seeds, seconds, tmp_path)
    for voyage in voyages:
        count(f"storm of {seconds:g} s, {voyage}", {"429 answers": len(voyage.storm.limits)})
    for voyage in voyages:
        assert voyage.storm.limits
        assert voyage.breaches() == []
        assert voyage.overruns() == []
        assert voyage.discord.too_early == []
        assert voyage.images > 0
