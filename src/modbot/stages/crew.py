"""Processes beside this one that do tasks for it.

They are forked, so that they start with all that this process has loaded: a scan that takes four seconds would wait for
half of one while others load the same again. So a crew is started before anything starts a thread.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn, Self, TypeVar, cast

from modbot.errors import InterruptedRunError, ModbotError
from modbot.files.processes import end_with, leave_the_terminal, signals_held_back

T = TypeVar("T")
Task = Callable[[], T]
"""Something to do, as a value: it can be pickled, and so can what it gives."""

PATIENCE_SECONDS = 10.0
"""How long a process may take to put its things away when it is told to end."""


class Crew:
    """So many processes, started at once; none, if nothing is said.

    At the end of the `with` block every one is ended, be its task done or not.
    """

    def __init__(self, size: int = 0) -> None:
        self._workers: list[_Worker] = []
        try:
            for _ in range(size):
                self._workers.append(_Worker())
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __len__(self) -> int:
        return len(self._workers)

    def do(self, tasks: Iterable[Task[T]], *, ahead: int = 0) -> Iterator[T]:
        """Has the tasks done, each taken from `tasks` when a process is free for it. Results in order.

        `ahead`: so many more wait at each process, for what is so short that it would wait for the next.

        Raises:
            ModbotError: what a task raised; or a process died, or failed for no reason that is known.
        """
        waiting = enumerate(tasks)
        for worker, task in zip(self._workers * (1 + ahead), waiting, strict=False):
            worker.give(*task)
        done: dict[int, T] = {}
        for place in count():
            while place not in done:
                busy = {worker.pipe: worker for worker in self._workers if worker.places}
                if not busy:
                    return
                for pipe in wait([*busy]):
                    worker = busy[cast("Connection[Any, Any]", pipe)]
                    finished, result = worker.take()
                    done[finished] = result
                    if (following := next(waiting, None)) is not None:
                        worker.give(*following)
            yield done.pop(place)

    def end(self) -> None:
        """Ends every process; those that are at a task put their things away first."""
        for worker in self._workers:
            worker.process.terminate()
        while self._workers:
            self._workers.pop().join()


class _Worker:
    """A process, and the places of the tasks that it has: the first is at work, the others wait."""

    def __init__(self) -> None:
        context = mp.get_context("fork")
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=_work, args=(far, os.getpid()), daemon=True)
        with signals_held_back():
            # Forked, it has this process's handlers until it sets its own: told to end before that, it would go on.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            self.process.start()
        far.close()
        self.places: deque[int] = deque()

    def give(self, place: int, task: Task[Any]) -> None:
        self.places.append(place)
        try:
            self.pipe.send(task)
        except OSError:
            # It died in between, which is told when its result is asked for.
            return

    def take(self) -> tuple[int, Any]:
        """The place of the task that is done, and what it gave."""
        try:
            result = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            raise ModbotError(
                f"a worker process died (exit code {self.process.exitcode})",
                remedy="Run the same command again; with --jobs 1 if there is not enough memory for several.",
            ) from None
        if isinstance(result, ModbotError):
            raise result
        return self.places.popleft(), result

    def join(self) -> None:
        self.process.join(PATIENCE_SECONDS)
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: Connection[Any, Task[Any]], parent: int) -> None:
    """The life of a process: a task, its result, the next task, until it is told to end."""
    leave_the_terminal()
    try:
        signal.signal(signal.SIGTERM, _stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        end_with(parent)
        while True:
            pipe.send(_done(pipe.recv()))
    except (EOFError, OSError, InterruptedRunError):
        return
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _done(task: Task[Any]) -> object:
    try:
        return task()
    except InterruptedRunError:
        raise
    except ModbotError as error:
        return error
    except Exception as error:  # noqa: BLE001 - it is told here in full, and ends the run there
        traceback.print_exc(file=sys.stderr)
        return ModbotError(f"a worker process failed ({type(error).__name__}: {error})")


def _stop(*_: object) -> NoReturn:
    raise InterruptedRunError("told to end")
