"""What p1 and p2 have in common: a set of shard jobs, how one is done, and a merge that accounts for every row."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol, Self

from modbot.files.journal import Journal, JournalLine, ShardFiles, read_counters, write_counters
from modbot.records.progress import Event, Notice, Receipt, ShardAdvanced, ShardStarted
from modbot.words import counted

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

    @property
    def resume(self) -> bool: ...

    def run(self, report: Report) -> Receipt:
        """Does the shard, from its journal on, and publishes it. The one entry point of a job."""
        ...

    def resumed(self) -> Self:
        """The same job, going on behind the journal that it finds."""
        ...


@dataclass(frozen=True)
class Step:
    """A step of a day, planned: its jobs, its settings as people read them, and how its shards become one file."""

    name: str
    profile: str
    date: str
    jobs: tuple[ShardJob, ...]
    settings: dict[str, Any]
    shard_metrics: Path | None
    """The folder of the metrics of each shard; None: none are written."""
    merge: Callable[[], int]
    """Merges the finished shards, gives the number of records. Raises IncompleteError if rows are not there once."""
    first: Callable[[], None] | None = None
    """What a worker does before it loads what the jobs need; a function that can be pickled."""


class ShardWork:
    """A shard that is being done: its journal, and the events that say how far it is."""

    def __init__(self, job: ShardJob, journal: Journal, report: Report, count: Count) -> None:
        self._job = job
        self._journal = journal
        self._report = report
        self._count = count
        self._earlier = (read_counters(job.files, journal.path) if job.resume else None) or {}
        self._due = Throttle(1.0)
        self._started = time.monotonic()
        self.recovered = frozenset(journal.rows)
        """The rows that an earlier run did."""
        self.path = journal.path

    def append(self, line: bytes) -> None:
        """Journals one line. Raises StorageError."""
        self._journal.append(line)
        if self._due():
            write_counters(self._job.files, self._journal.path, self._counters())
            self._advance()

    def _counters(self) -> dict[str, float]:
        """The numbers of this run and of those that it goes on with. A kill loses at most those of its last second."""
        total = Counter(self._earlier)
        total.update({**self._count(), "wall_time_s": round(time.monotonic() - self._started, 3)})
        return dict(total)

    def _advance(self) -> None:
        self._report(ShardAdvanced(shard=self._job.name, done=len(self._journal.rows), failed=self._journal.failed))

    def finish(self, step: str, detail: Mapping[str, object]) -> Receipt:
        """Publishes the shard."""
        self._advance()
        receipt = self._journal.finish(
            step=step,
            rows=self._job.rows,
            finished_at=utc_now(),
            counters=self._counters(),
            detail=dict(detail),
        )
        self._job.files.counters.unlink(missing_ok=True)
        return receipt


Count = Callable[[], Mapping[str, float]]
"""Gives the additive numbers of a run so far."""


@contextmanager
def shard_work(
    job: ShardJob, report: Report, *, count: Count, kind: type[JournalLine] = JournalLine
) -> Iterator[ShardWork]:
    """The work on a shard, behind what its journal has; `kind` says what a failure is."""
    with Journal(job.files, settings=job.settings, inputs=job.inputs, resume=job.resume, kind=kind) as journal:
        report(ShardStarted(shard=job.name, rows=job.rows, done=len(journal.rows), failed=journal.failed))
        yield ShardWork(job, journal, report, count)


class Bus:
    """Takes events from any thread without waiting; the leading thread hands them on when it is its turn."""

    def __init__(self) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()

    def publish(self, event: Event) -> None:
        self._events.put(event)

    def drain(self, listener: Report) -> None:
        while True:
            try:
                event = self._events.get_nowait()
            except Empty:
                return
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


def out_of_memory(provider: str, batch: int) -> Notice:
    """What a person is told once where a device's memory did not hold a batch."""
    return Notice(text=f"{provider}: out of memory; went on with {counted(batch, 'image')} a batch (--batch-size)")


def one_line(error: BaseException) -> str:
    """What a record says of an error that nobody foresaw."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
