"""What the fetchers of one run share: the rate budget, and who is at which attachment.

One process: a `LocalCoordinator`. Several: the parent serves one to its workers (`modbot.fetch.remote`).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, Self, TypeVar

import msgspec

from modbot.errors import InputError
from modbot.fetch.budget import Answer, Budget, Lane, Saved, Ticket
from modbot.fetch.store import Stored
from modbot.fetch.turn import Turn
from modbot.files.atomic import write_bytes
from modbot.records.jsonl import decode, encode_document
from modbot.records.p1 import RecordError
from modbot.records.progress import Adjustment

T = TypeVar("T")
OnAdjustment = Callable[[Adjustment], None]

KEPT_OUTCOMES = 20_000
"""That many outcomes that no store remembers (failures, re-read messages) are kept for later claimants."""

SAVE_INTERVAL_S = 0.25


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a claim: an image in the store, an error, or a message's fresh links by attachment."""

    stored: Stored | None = None
    error: RecordError | None = None
    links: dict[str, str] | None = None


class Coordinator(Protocol):
    """What a fetcher needs of the others."""

    async def claim(self, key: str) -> Outcome | None:
        """None: the caller is to do it, and to `settle`. Else what came of it, once whoever was at it is done."""

    def settle(self, key: str, outcome: Outcome | None) -> None:
        """Ends the caller's claim; None gives it up, and whoever waits longest takes it over."""

    async def admit(self, lane: Lane) -> Ticket:
        """Waits until one request may be sent.

        Raises:
            RateLimitError: none may be sent there any more.
            BusyError: another run is fetching from Discord.
            StorageError: the budget could not be saved, or a change of the rate not be written down.
        """

    def report(self, ticket: Ticket, answer: Answer | None) -> None:
        """Takes a ticket back, with the answer or, where there was none, None."""


class LocalCoordinator:
    """The coordinator itself, for the tasks of one event loop. An async context manager.

    Args:
        qps: requests a second at the start; infinity is unlimited.
        concurrency: requests under way at once at the start.
        state: the file that carries the budget from one process to the next; None: nothing is carried.
        turn: leave to fetch from Discord, taken before the first request there; None: it needs none. What earlier runs
            of other profiles left is known from the start, and looked at again when the turn is taken.
        on_adjustment: told of every change of the rate, in the coordinator's loop. What it raises is raised by every
            later `admit`, and at the end.
    """

    def __init__(
        self,
        *,
        qps: float,
        concurrency: int,
        state: Path | None = None,
        turn: Turn | None = None,
        on_adjustment: OnAdjustment | None = None,
    ) -> None:
        self._on_adjustment = on_adjustment
        self._failure: Exception | None = None
        self._state = state
        self._turn = turn
        self._taking: asyncio.Task[None] | None = None
        saved = [*([] if state is None else read_states([state])), *self._left_by_others()]
        self._budget = Budget(
            qps, concurrency, now=time.monotonic(), wall=time.time(), saved=saved, on_adjustment=self._tell
        )
        self._saver: asyncio.Task[None] | None = None
        self._saved_revision = 0
        self._claims: dict[str, deque[asyncio.Future[Outcome | None]]] = {}
        self._kept: OrderedDict[str, Outcome] = OrderedDict()
        self._queue: deque[tuple[Lane, asyncio.Future[Ticket]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def adjustments(self) -> list[Adjustment]:
        """Every change of the rate so far, in order."""
        return self._budget.adjustments

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._turn is not None and self._taking is not None:
            self._turn.give_up()
            await asyncio.gather(self._taking, return_exceptions=True)
        try:
            if self._saver is not None:
                await self._saver
            if self._state is not None and self._saved_revision != self._budget.revision:
                self._save(self._state)
        finally:
            if self._turn is not None and self._taking is not None:
                self._turn.give_back()  # whoever is next finds what was saved
        if self._failure is not None:
            raise self._failure

    async def claim(self, key: str) -> Outcome | None:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        waiting = self._claims.get(key)
        if waiting is None:
            self._claims[key] = deque()
            return None
        future = asyncio.get_running_loop().create_future()
        waiting.append(future)
        return await handed(future, lambda outcome: self.settle(key, None) if outcome is None else None)

    def settle(self, key: str, outcome: Outcome | None) -> None:
        waiting = self._claims.pop(key)
        if outcome is not None:
            if outcome.stored is None:
                self._keep(key, outcome)
            for future in waiting:
                if not future.done():
                    future.set_result(outcome)
            return
        while waiting:
            heir = waiting.popleft()
            if not heir.done():
                self._claims[key] = waiting
                heir.set_result(None)
                return

    async def admit(self, lane: Lane) -> Ticket:
        self._raise_if_failed()
        if lane.discord and self._turn is not None:
            await self._have_turn(self._turn)
        future = asyncio.get_running_loop().create_future()
        self._queue.append((lane, future))
        self._pump()
        return await handed(future, lambda ticket: self.report(ticket, None))

    def report(self, ticket: Ticket, answer: Answer | None) -> None:
        self._budget.answer(ticket, answer, time.monotonic())
        if self._state is not None and self._saver is None and self._saved_revision != self._budget.revision:
            self._saver = asyncio.get_running_loop().create_task(self._save_while_changing(self._state))
        if self._queue:
            self._pump()

    async def _have_turn(self, turn: Turn) -> None:
        """Waits until the run has the turn; whoever comes first sets about taking it."""
        if self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._take(turn))
        await asyncio.shield(self._taking)
        turn.check()

    async def _take(self, turn: Turn) -> None:
        await asyncio.to_thread(turn.take)
        for saved in self._left_by_others():
            self._budget.learn(saved, time.monotonic())

    def _left_by_others(self) -> list[Saved]:
        if self._turn is None:
            return []
        return read_states(path for path in self._turn.states() if path != self._state)

    def _pump(self) -> None:
        """Admits whom the budget lets go, first come first served, and sets the clock for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic()
        soonest = float("inf")
        held: deque[tuple[Lane, asyncio.Future[Ticket]]] = deque()
        while self._queue and not self._budget.full:
            lane, future = self._queue.popleft()
            if future.done():
                continue
            try:
                self._raise_if_failed()
                delay = self._budget.delay(lane, now)
                if delay == 0:
                    future.set_result(self._budget.admit(lane, now))
                    continue
            except Exception as error:  # noqa: BLE001 - it is raised where the ticket is waited for
                future.set_exception(error)
                continue
            soonest = min(soonest, delay)
            held.append((lane, future))
        held.extend(self._queue)
        self._queue = held
        if soonest < float("inf"):
            self._timer = asyncio.get_running_loop().call_later(soonest, self._pump)

    def _tell(self, adjustment: Adjustment) -> None:
        """The listener's error must not stop the budget in the middle of a step: it is kept for who can end the run."""
        if self._on_adjustment is None:
            return
        try:
            self._on_adjustment(adjustment)
        except Exception as error:  # noqa: BLE001 - whatever it is, `admit` and the end of the block raise it
            self._failure = self._failure or error

    def _keep(self, key: str, outcome: Outcome) -> None:
        self._kept[key] = outcome
        if len(self._kept) > KEPT_OUTCOMES:
            self._kept.popitem(last=False)

    def _save(self, path: Path) -> None:
        self._saved_revision = self._budget.revision
        write_bytes(path, encode_document(self._budget.export(time.monotonic())))

    async def _save_while_changing(self, path: Path) -> None:
        """Saves off the loop, at once and then at most every SAVE_INTERVAL_S; ends when nothing is new."""
        while self._saved_revision != self._budget.revision:
            self._saved_revision = self._budget.revision
            data = encode_document(self._budget.export(time.monotonic()))
            await asyncio.to_thread(write_bytes, path, data)
            await asyncio.sleep(SAVE_INTERVAL_S)
        self._saver = None

    def _raise_if_failed(self) -> None:
        """A change that could not be told ends the run, as does a budget that cannot be saved for the next process."""
        if self._saver is not None and self._saver.done():
            self._saver.result()
        if self._failure is not None:
            raise self._failure


async def handed(future: asyncio.Future[T], give_back: Callable[[T], None]) -> T:
    """The future's result; what came in the very moment in which the caller was cancelled is given back."""
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            give_back(future.result())
        raise


def read_states(paths: Iterable[Path]) -> list[Saved]:
    """What earlier processes left in these files, as far as they are there.

    Raises:
        InputError: a file is not the state of a budget, or cannot be read.
    """
    states = []
    for path in paths:
        try:
            states.append(decode(path.read_bytes(), Saved))
        except FileNotFoundError:
            continue
        except msgspec.DecodeError as error:
            raise InputError(
                f"not the state of a rate budget ({error})",
                where=str(path),
                remedy="Remove the file if no run was slowed down by the server within the last hour.",
            ) from None
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error
    return states
