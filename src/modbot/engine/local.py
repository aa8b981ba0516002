"""Shards on this machine: worker processes that take one shard after the other and keep their models."""

from __future__ import annotations

import multiprocessing as mp
import os
import sys
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from modbot.errors import DeviceError, ModbotError
from modbot.files.processes import end_with, give_large_blocks_back, leave_the_terminal, signals_held_back
from modbot.records.progress import Event, Notice, Receipt, ShardFailed, ShardFinished
from modbot.stages.step import Report, ShardJob

ATTEMPTS = 3
"""How often a shard is begun whose worker process dies under it; each time it goes on behind what it had."""

TICK_SECONDS = 0.5


def cores_each(parallel: int, jobs: int) -> int:
    """How many cores each worker may keep busy, so that all together use those that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) // max(1, min(parallel, jobs)))


def run_shards(
    jobs: Sequence[ShardJob],
    *,
    parallel: int,
    report: Report,
    tick: Callable[[], None] = lambda: None,
    first: Callable[[], None] | None = None,
) -> list[str]:
    """Runs every job in one of `parallel` processes, and gives the names of the shards that did not finish.

    A shard whose process dies, or cannot use its device any more, is begun again behind its journal in a new process,
    three times in all. An error that is not the shard's alone (a full disk, a model that is not there, a stopped
    budget) ends the run; what was finished is kept. `tick` is called in between, twice a second; what it raises ends
    the run, too. `first` is what a worker does before it loads what its jobs need; a function that can be pickled.

    Raises:
        ModbotError: what ended the run.
    """
    pool = _Pool(jobs, report, tick, first)
    try:
        pool.run(min(parallel, len(jobs)))
    finally:
        pool.end()
    return sorted(pool.failed)


class _Worker:
    """One worker process, and the shard that it is at."""

    def __init__(self, first: Callable[[], None] | None) -> None:
        context = mp.get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(far, os.getpid(), first), daemon=True)
        resource_tracker.ensure_running()  # started together with a process, it would let SIGINT through to that
        with signals_held_back():
            self.process.start()
        far.close()
        self.job: ShardJob | None = None

    def give(self, job: ShardJob) -> None:
        self.job = job
        try:
            self.pipe.send(job)
        except OSError:
            # It died in between; its pipe says so when it is read, and the job is still with it.
            return

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


class _Pool:
    """The shards that wait, the workers, and how often each shard was begun."""

    def __init__(
        self,
        jobs: Sequence[ShardJob],
        report: Report,
        tick: Callable[[], None],
        first: Callable[[], None] | None,
    ) -> None:
        self._waiting = deque(jobs)
        self._begun = Counter[str]()
        self._workers: list[_Worker] = []
        self._report = report
        self._tick = tick
        self._first = first
        self.failed: list[str] = []

    def run(self, size: int) -> None:
        for _ in range(size):
            self._hire()
        while self._workers:
            ready = wait([worker.pipe for worker in self._workers], timeout=TICK_SECONDS)
            self._tick()
            for worker in [worker for worker in self._workers if worker.pipe in ready]:
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    self._bury(worker)
                else:
                    self._hear(worker, message)

    def end(self) -> None:
        for worker in self._workers:
            worker.end()

    def _hire(self) -> None:
        worker = _Worker(self._first)
        self._workers.append(worker)
        self._occupy(worker)

    def _occupy(self, worker: _Worker) -> None:
        """Gives the worker the next shard; without one, its work is done."""
        if not self._waiting:
            self._workers.remove(worker)
            worker.end()
            return
        job = self._waiting.popleft()
        self._begun[job.name] += 1
        worker.give(job if self._begun[job.name] == 1 else job.resumed())

    def _hear(self, worker: _Worker, message: Event | ModbotError) -> None:
        if isinstance(message, DeviceError):
            self._bury(worker, message)
            return
        if isinstance(message, ModbotError):
            raise message
        if isinstance(message, ShardFailed):
            self.failed.append(message.shard)
        self._report(message)
        if isinstance(message, ShardFinished | ShardFailed):
            self._occupy(worker)

    def _bury(self, worker: _Worker, broken: DeviceError | None = None) -> None:
        """Goes on after a worker's death, or without one whose device is broken, which a new process may use again.

        A new one takes its place, its shard is begun again or given up.
        """
        self._workers.remove(worker)
        worker.end()
        if worker.job is None:
            raise ModbotError(f"a worker process did not start (exit code {worker.process.exitcode})")
        name = worker.job.name
        if self._begun[name] < ATTEMPTS:
            self._waiting.appendleft(worker.job)
            if broken:
                self._report(Notice(text=f"{name}: {broken}; begun again in a new process"))
        else:
            self.failed.append(name)
            what = str(broken or f"its process died {ATTEMPTS} times (exit code {worker.process.exitcode})")
            self._report(ShardFailed(shard=name, error=what))
        if self._waiting:
            self._hire()


def _work(pipe: Connection[Any, ShardJob], parent: int, first: Callable[[], None] | None) -> None:
    """The life of a worker process: a job, its events and its outcome, the next job, until the parent is gone."""
    end_with(parent)
    give_large_blocks_back()
    leave_the_terminal()
    if first is not None:
        first()
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(run_job(job, pipe.send))


def run_job(job: ShardJob, report: Report) -> ShardFinished | ShardFailed | ModbotError:
    """One job to its outcome: a receipt, a shard that failed for a reason of its own, or what ends the whole run."""
    try:
        receipt: Receipt = job.run(report)
    except ModbotError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a defect in one shard must not take the others with it; it is told
        traceback.print_exc(file=sys.stderr)
        return ShardFailed(shard=job.name, error=f"{type(error).__name__}: {error}")
    return ShardFinished(receipt=receipt)
