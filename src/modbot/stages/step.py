"""What p1 and p2 have in common: a set of shard jobs, and a merge that accounts for every row."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from modbot.files.journal import ShardFiles
from modbot.files.paths import Partition
from modbot.records.progress import Event, Receipt


class ShardJob(Protocol):
    """One shard of one step as a value: it can be pickled, sent to another process or machine, and run there."""

    @property
    def name(self) -> str: ...

    @property
    def files(self) -> ShardFiles: ...

    @property
    def settings(self) -> str:
        """Digest of all that shapes the lines."""
        ...

    @property
    def inputs(self) -> str:
        """Digest of what is read."""
        ...

    @property
    def rows(self) -> int: ...

    def run(self, report: Callable[[Event], None]) -> Receipt:
        """Does the shard, from its journal on, and publishes it. The one entry point of a job."""
        ...

    def resumed(self) -> Self:
        """The same job, going on behind the journal that it finds."""
        ...


@dataclass(frozen=True)
class Step:
    """A step of a day, planned: its jobs, its settings as people read them, and how its shards become one file."""

    name: str
    partition: Partition
    jobs: tuple[ShardJob, ...]
    settings: dict[str, Any]
    merge: Callable[[], int]
    """Merges the finished shards and gives the number of records. Raises InputError unless every row is there once."""


class Throttle:
    """Lets a thing through at most once in `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def utc_now() -> str:
    """The time as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def metrics_of_shard(folder: Path, name: str) -> Path:
    """Where a shard's own metrics lie."""
    return folder / f"{name}.json"
