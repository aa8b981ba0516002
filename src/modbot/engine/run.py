"""A step of a day: which shards are due, who runs them, what is told meanwhile, and the merge at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from modbot.engine.local import run_shards
from modbot.errors import ShardsFailedError
from modbot.files.atomic import storage_errors, write_bytes
from modbot.files.journal import read_receipt
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
from modbot.stages.step import Bus, ShardJob, Step, Throttle, utc_now


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A finished step: its receipts by shard in order, how many records the merge gave, and the seconds it took."""

    receipts: list[Receipt]
    records: int
    seconds: float
    adjustments: list[Adjustment]

    def counters(self) -> Counter[str]:
        """The shards' additive numbers, key by key, and `failed_<kind>` of their errors."""
        total: Counter[str] = Counter()
        for receipt in self.receipts:
            total.update(receipt.counters)
            total.update({f"failed_{kind}": number for kind, number in receipt.errors.items()})
        return total


def run_step(
    step: Step,
    *,
    parallel: int,
    resume: bool,
    status_file: Path,
    report: Callable[[Event], None],
    bus: Bus,
    still_ours: Callable[[], None],
) -> Outcome:
    """Runs the shards that are due and merges them.

    With `resume`, a shard whose receipt is of the same settings and input is left as it is. `bus` carries what other
    threads tell of the run. `still_ours` raises once another run took the partition over; it is asked before anything
    is merged.

    Raises:
        ShardsFailedError: some shards did not finish; nothing is merged.
        ModbotError: what ended the run; what was finished is kept.
    """
    started = monotonic()
    receipts = {job.name: _standing(job) if resume else None for job in step.jobs}
    board = _Board(step, status_file, report)
    due = []

    def hear(event: Event) -> None:
        if isinstance(event, ShardFinished) and not event.reused:
            receipts[event.receipt.shard] = event.receipt
            _write_shard_metrics(step, event.receipt)
        board.hear(event)

    bus.listen(hear)
    for job in step.jobs:
        receipt = receipts[job.name]
        if receipt is None:
            due.append(job)
        else:
            bus.publish(ShardFinished(receipt=receipt, reused=True))
    try:
        failed = run_shards(due, parallel=parallel, report=bus.publish)
    finally:
        board.write()
    if failed:
        what = f"{len(failed)} of {len(step.jobs)} shards did not finish: {', '.join(failed[:5])}"
        remedy = f"Run the same command again with --resume; {status_file} says why."
        raise ShardsFailedError(what, where=step.name, remedy=remedy)
    still_ours()
    records = step.merge()
    done = [receipt for receipt in receipts.values() if receipt is not None]
    return Outcome(receipts=done, records=records, seconds=monotonic() - started, adjustments=board.adjustments)


def _standing(job: ShardJob) -> Receipt | None:
    return read_receipt(job.files, settings=job.settings, inputs=job.inputs)


def _write_shard_metrics(step: Step, receipt: Receipt) -> None:
    failed = {f"failed_{kind}": number for kind, number in receipt.errors.items()}
    metrics: dict[str, Any] = {"rows": receipt.rows, "failed": sum(failed.values()), **failed, **receipt.counters}
    path = step.partition.shard_metrics(step.name) / f"{receipt.shard}.json"
    write_bytes(path, jsonl.encode_document({**metrics, "detail": receipt.detail}))


class _Board:
    """The status file, kept up to date with what is heard, and everything heard handed on."""

    def __init__(self, step: Step, path: Path, report: Callable[[Event], None]) -> None:
        now = utc_now()
        self._path = path
        self._report = report
        self._due = Throttle(1.0)
        self._manifest = Manifest(
            step=step.name,
            profile=step.partition.profile,
            date=step.partition.date,
            started_at=now,
            updated_at=now,
            settings=step.settings,
            shards={job.name: ShardStatus(rows=job.rows) for job in step.jobs},
        )
        _archive_other_date(path, step.partition.date)
        self.write()

    @property
    def adjustments(self) -> list[Adjustment]:
        return self._manifest.adjustments

    def write(self) -> None:
        self._manifest.updated_at = utc_now()
        write_bytes(self._path, jsonl.encode_document(self._manifest))

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
        if not isinstance(event, ShardAdvanced) or self._due():
            self.write()


def _archive_other_date(path: Path, date: str) -> None:
    """Moves a status file of another date aside, under that date: it is never gone on with."""
    try:
        before = msgspec.json.decode(path.read_bytes(), type=dict[str, Any]).get("date")
    except FileNotFoundError:
        return
    except msgspec.DecodeError:
        before = "unreadable"
    if before == date:
        return
    with storage_errors(path):
        path.rename(path.with_name(f"{path.stem}.{_as_name(before)}{path.suffix}"))


def _as_name(value: object) -> str:
    return "".join(char for char in str(value) if char.isalnum() or char == "-")[:32] or "undated"
