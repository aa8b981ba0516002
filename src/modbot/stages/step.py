"""What p1 and p2 have in common: a set of shard jobs, and a merge that accounts for every row."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self

from modbot.files.journal import ShardFiles
from modbot.files.paths import Partition
from modbot.records.progress import Event, Receipt

Report = Callable[[Event], None]
"""Takes every event of a step."""

Telling = Callable[[str, int], AbstractContextManager[Report]]
"""(step, lines in all) -> the context in which the step's events are told."""


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


class Bus:
    """Takes events from any thread and hands them to the one listener; what came before it listened is kept for it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._listener: Callable[[Event], None] | None = None
        self._kept: list[Event] = []

    def publish(self, event: Event) -> None:
        with self._lock:
            if self._listener is None:
                self._kept.append(event)
            else:
                self._listener(event)

    def listen(self, listener: Callable[[Event], None]) -> None:
        with self._lock:
            self._listener = listener
            kept, self._kept = self._kept, []
            for event in kept:
                listener(event)


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
