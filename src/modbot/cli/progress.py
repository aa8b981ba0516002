"""Long work as it is told: a bar on a terminal, plain lines in a log. Everything goes to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import click

from modbot.records.progress import (
    Event,
    Notice,
    RateAdjusted,
    ShardAdvanced,
    ShardFailed,
    ShardFinished,
    ShardStarted,
)
from modbot.words import printable_lines

LOG_SECONDS = 10.0
"""Between two plain lines of one run."""


class Tally:
    """How far a step is: lines done, failed and due, and the rate since the start."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.failed = 0
        self._shards: dict[str, tuple[int, int]] = {}
        self._recovered = 0
        self._started = monotonic()

    @property
    def rate(self) -> float:
        """Lines a second of this run; what an earlier run left does not count."""
        return (self.done - self._recovered) / max(monotonic() - self._started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def hear(self, event: Event) -> None:
        match event:
            case ShardStarted():
                self._recovered += self._reached(event.shard, event.done, event.failed)
            case ShardAdvanced():
                self._reached(event.shard, event.done, event.failed)
            case ShardFinished(receipt=receipt, reused=reused):
                more = self._reached(receipt.shard, receipt.lines, sum(receipt.errors.values()))
                self._recovered += more if reused else 0
            case _:
                pass

    def _reached(self, shard: str, done: int, failed: int) -> int:
        """Takes what a shard has come to, and gives how many lines more that is."""
        done_before, failed_before = self._shards.get(shard, (0, 0))
        self._shards[shard] = done, failed
        self.done += done - done_before
        self.failed += failed - failed_before
        return done - done_before

    def __str__(self) -> str:
        left = self.seconds_left
        time = "" if left is None or self.done >= self.total else f", {duration(left)} left"
        return f"{self.done}/{self.total} ({self.rate:.1f}/s{time}), {self.failed} failed"


@contextmanager
def telling(step: str, total: int) -> Iterator[Callable[[Event], None]]:
    """Tells a step's events while the block runs: on a terminal as a bar, elsewhere as plain lines."""
    if not sys.stderr.isatty():
        yield _Lines(step, total).hear
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[tally]}"), TimeElapsedColumn()]
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tally = Tally(total)
        bar = progress.add_task(step, total=total, tally=str(tally))

        def hear(event: Event) -> None:
            tally.hear(event)
            text = _worth_telling(event)
            if text is not None:
                progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
            progress.update(bar, completed=tally.done, tally=str(tally))

        yield hear


class _Lines:
    def __init__(self, step: str, total: int) -> None:
        self._step = step
        self._tally = Tally(total)
        self._next = monotonic() + LOG_SECONDS
        self._told: tuple[int, int] | None = None

    def hear(self, event: Event) -> None:
        self._tally.hear(event)
        text = _worth_telling(event)
        if text is not None:
            click.echo(f"{self._step}: {text}", err=True)
        finished = isinstance(event, ShardFinished) and not event.reused
        now = (self._tally.done, self._tally.failed)
        if (finished or monotonic() >= self._next) and now != self._told:
            self._next, self._told = monotonic() + LOG_SECONDS, now
            click.echo(f"{self._step}: {self._tally}", err=True)


def _worth_telling(event: Event) -> str | None:
    match event:
        case ShardFailed():
            return printable_lines(f"{event.shard} failed: {event.error}")
        case Notice():
            return printable_lines(f"warning: {event.text}")
        case RateAdjusted(adjustment=adjustment):
            return f"rate: {adjustment}"
        case _:
            return None


def duration(seconds: float) -> str:
    """`1 h 23 min`, `4 min 05 s` or `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
