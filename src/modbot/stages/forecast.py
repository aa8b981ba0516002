"""What fetching a day would come to: links, attachments, what is stored, what has expired, and the time it takes."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from math import isinf
from pathlib import Path

import msgspec

from modbot.fetch.budget import DISCORD_QPS, Budget, Lane, Saved
from modbot.fetch.client import message_of
from modbot.fetch.hosts import BAD_ROW, HostPolicy, LinkError, has_lapsed
from modbot.fetch.store import Store
from modbot.files.index_csv import read_rows
from modbot.records.index import IndexRow
from modbot.records.progress import Rate
from modbot.stages.fetch import FetchSettings

DISCORD = Lane("discord", discord=True)


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """Requests under one pace: to one host (all of Discord is one), or the whole run's.

    `rate`: the one in force. `rest_s`: seconds for which the host still asks to be left alone. `host` None: every host.
    """

    host: str | None
    requests: int
    rate: Rate
    rest_s: float = 0.0

    @property
    def seconds(self) -> float:
        """How long they take if nothing goes wrong; none, where nothing limits them."""
        return self.rest_s + self.requests * self.rate.interval


class Forecast(msgspec.Struct, kw_only=True):
    """Counts of a day's links. Nothing was asked of any server for them."""

    rows: int = 0
    refused: Counter[str] = msgspec.field(default_factory=Counter)
    """Rows whose link is none, or leads where fetching may not go, by kind."""
    files: int = 0
    """`file:` links, which cost no request."""
    attachments: int = 0
    """Distinct ones among the rest."""
    stored: int = 0
    expired: int = 0
    """Not stored, and their signature has ended."""
    refreshable: int = 0
    """Of the expired: those for which a message can be read again."""
    messages: int = 0
    """To be read again for them."""
    token: bool = False
    asked: Counter[Lane] = msgspec.field(default_factory=Counter)
    """Requests for attachments that can be had, by where they go, and one for each message that is read again."""
    ways: list[Way] = []
    """The run as a whole, then each of those that are asked."""

    @property
    def requests(self) -> int:
        return self.asked.total()

    @property
    def slowest(self) -> Way:
        """What says how long it takes."""
        return max(self.ways, key=lambda way: way.seconds)


def forecast(
    sources: Iterable[Path], fetching: FetchSettings, *, qps: float, saved: Sequence[Saved], now: float
) -> Forecast:
    """Goes through the shards and the store. `saved`: what earlier runs left of the budget; `now`: Unix seconds.

    Raises:
        InputError, SettingError, StorageError
    """
    clock = time.monotonic()
    budget = Budget(qps, fetching.concurrency, now=clock, wall=now, saved=saved)
    found = Forecast(token=fetching.token is not None)
    hosts = HostPolicy.of(fetching.allow_hosts, fetching.file_root)
    store = Store(fetching.cache_dir)
    seen: set[bytes] = set()
    messages: set[tuple[str, str]] = set()
    for source in sources:
        for row in read_rows(source):
            found.rows += 1
            if (key := _take(row, hosts, found)) is None or _known(key, seen):
                continue
            found.attachments += 1
            if store.find(key) is not None:
                found.stored += 1
            else:
                _weigh(row, hosts, now, found, messages)
    found.messages = len(messages)
    if messages:
        found.asked[DISCORD] += len(messages)
    whole = Way(host=None, requests=found.requests, rate=Rate(None if isinf(qps) else qps, fetching.concurrency))
    found.ways = [whole, *(_way(lane, requests, budget, clock) for lane, requests in found.asked.items())]
    return found


def _way(lane: Lane, requests: int, budget: Budget, clock: float) -> Way:
    rate = budget.rate(lane)
    if lane.discord:
        rate = Rate(min(rate.qps or DISCORD_QPS, DISCORD_QPS), rate.concurrency)
    return Way(host=lane.realm, requests=requests, rate=rate, rest_s=budget.rest(lane, clock))


def _take(row: IndexRow, hosts: HostPolicy, found: Forecast) -> str | None:
    """The key of a row that is fetched by a request; the others are counted."""
    if row.bad is not None or row.url is None:
        found.refused[BAD_ROW] += 1
        return None
    try:
        url, key = hosts.check(row.url), row.key
    except LinkError as error:
        found.refused[error.kind] += 1
        return None
    except ValueError:
        found.refused[BAD_ROW] += 1
        return None
    if url.scheme == "file":
        found.files += 1
        return None
    return key


def _known(key: str, seen: set[bytes]) -> bool:
    """Whether the key came before; it is remembered by half a digest, so that a large day takes little memory."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:16]
    known = digest in seen
    seen.add(digest)
    return known


def _weigh(row: IndexRow, hosts: HostPolicy, now: float, found: Forecast, messages: set[tuple[str, str]]) -> None:
    """Counts an attachment that is not stored."""
    url = hosts.check(row.url or "")
    lane = hosts.lane(url)
    if not has_lapsed(url, now) or not (found.token or lane.discord):
        found.asked[DISCORD if lane.discord else lane] += 1
        return
    found.expired += 1
    if found.token and (message := message_of(row)) is not None:
        found.refreshable += 1
        found.asked[DISCORD] += 1
        messages.add(message)
