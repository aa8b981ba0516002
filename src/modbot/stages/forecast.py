"""What fetching a day would come to: links, attachments, what is stored, what has expired, and the time it takes."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
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
    to_discord: bool = False
    rate: Rate
    rest_s: float = 0.0
    """Seconds for which Discord still asks to be left alone."""

    @property
    def requests(self) -> int:
        """One for each attachment that can be had, and one for each message that is read again."""
        return self.attachments - self.stored - self.expired + self.refreshable + self.messages

    @property
    def seconds(self) -> float | None:
        """How long that takes if nothing goes wrong; None without a limit."""
        qps = self.rate.qps
        if self.to_discord:
            qps = min(qps or DISCORD_QPS, DISCORD_QPS)
        return None if qps is None else self.requests / qps + (self.rest_s if self.to_discord else 0.0)


def forecast(
    sources: Iterable[Path], fetching: FetchSettings, *, qps: float, saved: Sequence[Saved], now: float
) -> Forecast:
    """Goes through the shards and the store. `saved`: what earlier runs left of the budget; `now`: Unix seconds.

    Raises:
        InputError, SettingError, StorageError
    """
    clock = time.monotonic()
    budget = Budget(qps, fetching.concurrency, now=clock, wall=now, saved=saved)
    found = Forecast(rate=budget.rate(DISCORD), rest_s=budget.rest(DISCORD, clock), token=fetching.token is not None)
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
    return found


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
    to_discord = hosts.lane(url).discord
    found.to_discord |= to_discord
    if not has_lapsed(url, now) or not (found.token or to_discord):
        return
    found.expired += 1
    if found.token and (message := message_of(row)) is not None:
        found.refreshable += 1
        found.to_discord = True
        messages.add(message)
