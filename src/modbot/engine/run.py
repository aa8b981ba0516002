"""A step of a day: which shards are due, who runs them, what is told meanwhile, and the merge at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from modbot.engine.local import run_shards
from modbot.errors import SettingError, ShardsFailedError, StorageError
from modbot.files.atomic import storage_errors, write_bytes
from modbot.files.journal import read_receipt
from modbot.models.execution import Execution
from modbot.records import jsonl
from modbot.records.progress import (
    Adjustment,
    Event,
    Manifest,
    Notice,
    RateAdjusted,
    Receipt,
    ShardAdvanced,
    ShardFailed,
    ShardFinished,
    ShardStarted,
    ShardStatus,
)
from modbot.stages.metrics import Times
from modbot.stages.step import Bus, Report, ShardJob, Step, Throttle, utc_now
from modbot.words import counted

LEASE_SECONDS = 2.0
"""How often a run looks whether the partition is still its own."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A finished step: its receipts by shard in order, how many records the merge gave, and the time it took."""

    receipts: list[Receipt]
    records: int
    times: Times
    adjustments: list[Adjustment]

    def counters(self) -> Counter[str]:
        """The shards' additive numbers, key by key, and `failed_<kind>` of their errors."""
        total: Counter[str] = Counter()
        for receipt in self.receipts:
            total.update(receipt.counters)
            total.update(_failures(receipt))
        return total


def require_possible(execution: Execution) -> None:
    """Raises SettingError where this installation cannot run a model as it is asked for."""
    if execution.demanding:
        from modbot.models import providers

        providers.check(execution)


def run_step(
    step: Step,
    *,
    parallel: int,
    resume: bool,
    status_file: Path | None,
    report: Report,
    bus: Bus,
    still_ours: Callable[[], None],
) -> Outcome:
    """Runs the shards that are due and merges them.

    With `resume`, a shard whose receipt is of the same settings and input is left as it is. `status_file` None: none
    is kept. `bus` carries what other threads tell of the run. `still_ours` raises once another run took the partition
    over; it is asked every other second, and before anything is merged.

    Raises:
        ShardsFailedError: some shards did not finish; nothing is merged.
        ModbotError: what ended the run; what was finished is kept.
    """
    started = monotonic()
    _remove_strangers(step)
    receipts = {job.name: _standing(job) if resume else None for job in step.jobs}
    due = [job for job in step.jobs if receipts[job.name] is None]
    _open_again(due)
    before = {name: receipt.lines for name, receipt in receipts.items() if receipt is not None}
    board = _Board(step, status_file, report)
    look = Throttle(LEASE_SECONDS)

    def tick() -> None:
        bus.drain(board.hear)
        if look():
            still_ours()

    def hear(event: Event) -> None:
        if isinstance(event, ShardFinished):
            receipts[event.receipt.shard] = event.receipt
            _write_shard_metrics(step, event.receipt)
        elif isinstance(event, ShardStarted):
            before.setdefault(event.shard, event.done)  # a shard that is begun again within the run adds nothing
        board.hear(event)

    for receipt in receipts.values():
        if receipt is not None:
            _write_shard_metrics(step, receipt)  # a kill may have come between the two
            board.hear(ShardFinished(receipt=receipt, reused=True))
    try:
        failed = run_shards(due, parallel=parallel, report=hear, tick=tick, first=step.first)
    except BaseException:
        board.stop()
        raise
    bus.drain(board.hear)
    board.write()
    if failed:
        what = f"{len(failed)} of {counted(len(step.jobs), 'shard')} did not finish: {', '.join(failed[:5])}"
        see = f"; {status_file} says why" if status_file is not None else ""
        raise ShardsFailedError(what, where=step.name, remedy=f"Run the same command again with --resume{see}.")
    still_ours()
    records = step.merge()
    done = [receipt for receipt in receipts.values() if receipt is not None]
    times = Times(
        seconds=monotonic() - started,
        done=sum(receipt.lines for receipt in done) - sum(before.values()),
        worker_seconds=sum(receipt.counters.get("wall_time_s", 0.0) for receipt in done),
    )
    return Outcome(receipts=done, records=records, times=times, adjustments=board.adjustments)


def _standing(job: ShardJob) -> Receipt | None:
    return read_receipt(job.files, settings=job.settings, inputs=job.inputs)


def _open_again(jobs: Sequence[ShardJob]) -> None:
    """Withdraws the receipts of the shards that are due: killed from here on, they are unfinished."""
    for job in jobs:
        with storage_errors(job.files.receipt):
            job.files.receipt.unlink(missing_ok=True)


def _remove_strangers(step: Step) -> None:
    """Removes what an older split left in the folders of the step's shards."""
    known = {job.name for job in step.jobs}
    folders = {job.files.folder for job in step.jobs} | ({step.shard_metrics} if step.shard_metrics else set())
    for folder in folders:
        with storage_errors(folder):
            for path in folder.glob("shard_*"):
                if path.name.partition(".")[0] not in known:
                    path.unlink()


def _failures(receipt: Receipt) -> dict[str, int]:
    return {f"failed_{kind}": number for kind, number in receipt.errors.items()}


def _write_shard_metrics(step: Step, receipt: Receipt) -> None:
    if step.shard_metrics is None:
        return
    failures = _failures(receipt)
    metrics: dict[str, Any] = {"rows": receipt.rows, "failed": sum(failures.values()), **failures, **receipt.counters}
    metrics |= receipt.detail.get("counts", {})
    path = step.shard_metrics / f"{receipt.shard}.json"
    write_bytes(path, jsonl.encode_document({**metrics, "detail": receipt.detail}))


class _Board:
    """The status file, kept up to date with what is heard, and everything heard handed on."""

    def __init__(self, step: Step, path: Path | None, report: Report) -> None:
        now = utc_now()
        self._path = path
        self._report = report
        self._due = Throttle(1.0)
        self._manifest = Manifest(
            step=step.name,
            profile=step.profile,
            date=step.date,
            started_at=now,
            updated_at=now,
            settings=step.settings,
            shards={job.name: ShardStatus(rows=job.rows) for job in step.jobs},
        )
        if path is not None:
            _make_room(path, step)
        self.write()

    @property
    def adjustments(self) -> list[Adjustment]:
        return self._manifest.adjustments

    def write(self) -> None:
        if self._path is not None:
            self._manifest.updated_at = utc_now()
            write_bytes(self._path, jsonl.encode_document(self._manifest))

    def stop(self) -> None:
        """Says what an ended run leaves: its running shards wait for the next one.

        Why it ended matters more than a status file that can no longer be written.
        """
        for shard in self._manifest.shards.values():
            if shard.state == "running":
                shard.state = "queued"
        with suppress(StorageError):
            self.write()

    def hear(self, event: Event) -> None:
        shards = self._manifest.shards
        match event:
            case ShardStarted():
                shards[event.shard] = ShardStatus(
                    state="running", rows=event.rows, done=event.done, failed=event.failed
                )
            case ShardAdvanced():
                shards[event.shard].done, shards[event.shard].failed = event.done, event.failed
            case ShardFinished(receipt=receipt):
                failed = sum(receipt.errors.values())
                shards[receipt.shard] = ShardStatus(state="done", rows=receipt.rows, done=receipt.lines, failed=failed)
            case ShardFailed():
                shards[event.shard].state, shards[event.shard].error = "failed", event.error
            case RateAdjusted():
                self._manifest.adjustments.append(event.adjustment)
            case Notice():
                if event.text in self._manifest.warnings:
                    return
                self._manifest.warnings.append(event.text)
        self._report(event)
        if self._due() or isinstance(event, ShardFailed):
            self.write()


class _Before(msgspec.Struct):
    """What is asked of a status file that is there already."""

    step: str
    date: str


def _make_room(path: Path, step: Step) -> None:
    """Moves a status file of another date aside, under that date: it is never gone on with.

    Raises:
        SettingError: what is there is no status file of this step.
    """
    try:
        before = jsonl.decode(path.read_bytes(), _Before)
    except FileNotFoundError:
        return
    except (OSError, msgspec.DecodeError):
        before = _Before(step="", date="")
    if before.step != step.name:
        what = f"there is something else than a status file of {step.name}"
        raise SettingError(what, where=str(path), remedy="Name another file with --status-file, or move it away.")
    if before.date != step.date:
        with storage_errors(path):
            path.rename(path.with_name(f"{path.stem}.{_as_name(before.date)}{path.suffix}"))


def _as_name(date: str) -> str:
    return "".join(char for char in date if char.isalnum() or char == "-")[:32] or "undated"
