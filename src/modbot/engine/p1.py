"""p1 of a day, or of one CSV: the shared budget, the shards, the merge, the metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import isinf
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from modbot.engine.local import run_shards
from modbot.engine.run import Outcome, run_step
from modbot.errors import ShardsFailedError
from modbot.fetch.coordinator import LocalCoordinator
from modbot.fetch.hosts import HostPolicy
from modbot.fetch.remote import serve
from modbot.fetch.store import Store
from modbot.files.atomic import write_bytes
from modbot.files.index_csv import read_rows
from modbot.files.journal import ShardFiles, file_digest, read_receipt
from modbot.files.lease import hold, hold_file
from modbot.files.paths import Partition
from modbot.files.shards import find_set
from modbot.records import jsonl
from modbot.records.progress import Adjustment, Event, RateAdjusted, ShardFinished
from modbot.settings import Settings
from modbot.stages import tag
from modbot.stages.configs import TagVocabulary, read_vocabulary
from modbot.stages.merge import merge_p1
from modbot.stages.metrics import p1_metrics
from modbot.stages.step import Bus, Telling


class TagRequest(msgspec.Struct, frozen=True, kw_only=True):
    """p1 as it was asked for; settings and flags are resolved.

    `qps`: requests a second, `inf` for unlimited. `retry`: which failed rows of finished shards are done again, by
    kind; empty: of every kind; None: none. `rules`: the rules file by name; None: the default one, if it is there.
    """

    model: str
    provider: str
    batch: int | None
    frames: int
    concurrency: int
    qps: float
    parallel: int
    resume: bool
    retry: tuple[str, ...] | None
    rules: Path | None
    allow_hosts: tuple[str, ...]


class TagSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What p1 ended with: its metrics as written, and the files."""

    metrics: dict[str, Any]
    merged: Path
    metrics_file: Path


def tag_day(
    partition: Partition,
    settings: Settings,
    request: TagRequest,
    *,
    shard_glob: str | None,
    status_file: Path | None,
    telling: Telling,
) -> TagSummary:
    """p1 over a day's shards; `telling` gives the context in which events are told.

    Raises:
        InputError, ModelError, RulesError, BusyError, StorageError, ShardsFailedError
    """
    with ExitStack() as stack:
        still_ours = stack.enter_context(hold(partition, "modbot tag"))
        folder, shards = find_set(partition, shard_glob)
        if isinf(request.qps):
            tag.refuse_discord(folder / f"{name}.csv" for name in shards.names())
        vocabulary = read_vocabulary(request.rules)
        status = status_file or partition.manifest("p1")
        stack.enter_context(hold_file(status.with_name(f"{status.name}.lease"), f"modbot tag --date {partition.date}"))
        bus = Bus()
        step = tag.plan(
            partition,
            folder,
            shards,
            tagging=_tagging(settings, request, vocabulary),
            fetching=_fetching(settings, request),
            coordinator=stack.enter_context(_budget(partition, settings, request, bus)),
            resume=request.resume or request.retry is not None,
            shown=_shown(request, vocabulary),
        )
        if request.retry is not None:
            for job in step.jobs:
                tag.retry_failed(job.files, request.retry, settings=job.settings, inputs=job.inputs)
        report = stack.enter_context(telling("p1", shards.total))
        outcome = run_step(
            step,
            parallel=request.parallel,
            resume=request.resume or request.retry is not None,
            status_file=status,
            report=report,
            bus=bus,
            still_ours=still_ours,
        )
        metrics = _metrics(outcome, shards.total, request, vocabulary)
        write_bytes(partition.step_metrics("p1"), jsonl.encode_document(metrics))
    return TagSummary(metrics=metrics, merged=partition.merged("p1"), metrics_file=partition.step_metrics("p1"))


def tag_file(
    partition: Partition,
    settings: Settings,
    request: TagRequest,
    *,
    source: Path,
    out: Path,
    metrics_file: Path,
    telling: Telling,
) -> TagSummary:
    """p1 over one index CSV into one p1 file; the journal and its receipt lie in `OUT.shards/`.

    `partition` names only where the budget's state is kept.
    """
    started = monotonic()
    rows = sum(1 for _ in read_rows(source))
    if isinf(request.qps):
        tag.refuse_discord([source])
    with ExitStack() as stack:
        still_ours = stack.enter_context(hold_file(out.with_name(f"{out.name}.lease"), "modbot tag --input"))
        vocabulary = read_vocabulary(request.rules)
        tagging = _tagging(settings, request, vocabulary)
        bus = Bus()
        job = tag.TagJob(
            files=ShardFiles(out.with_name(f"{out.name}.shards"), "shard_00"),
            source=source,
            rows=rows,
            settings=tag.settings_digest(tagging),
            inputs=file_digest(source),
            resume=request.resume,
            tagging=tagging,
            fetching=_fetching(settings, request),
            coordinator=stack.enter_context(_budget(partition, settings, request, bus)),
        )
        report = stack.enter_context(telling("p1", rows))
        adjustments: list[Adjustment] = []

        def hear(event: Event) -> None:
            if isinstance(event, RateAdjusted):
                adjustments.append(event.adjustment)
            report(event)

        bus.listen(hear)
        receipt = read_receipt(job.files, settings=job.settings, inputs=job.inputs) if request.resume else None
        if receipt is not None:
            bus.publish(ShardFinished(receipt=receipt, reused=True))
        elif run_shards([job], parallel=1, report=bus.publish):
            raise ShardsFailedError("p1 did not finish", where=str(source), remedy="Run it again with --resume.")
        receipt = read_receipt(job.files, settings=job.settings, inputs=job.inputs)
        if receipt is None:
            raise ShardsFailedError("p1's receipt is gone", where=str(job.files.receipt), remedy="Run it again.")
        still_ours()
        records = merge_p1([job.files.lines], out, rows=rows)
        outcome = Outcome(receipts=[receipt], records=records, seconds=monotonic() - started, adjustments=adjustments)
        metrics = _metrics(outcome, rows, request, vocabulary)
        write_bytes(metrics_file, jsonl.encode_document(metrics))
    return TagSummary(metrics=metrics, merged=out, metrics_file=metrics_file)


def _tagging(settings: Settings, request: TagRequest, vocabulary: TagVocabulary) -> tag.TagSettings:
    return tag.TagSettings(
        model=request.model,
        models_dir=settings.models_dir,
        provider=request.provider,
        batch=request.batch,
        frames=request.frames,
        groups=vocabulary.groups,
        threads=decoders(request.parallel),
    )


def decoders(parallel: int) -> int:
    """How many pictures a process decodes at once, so that all processes together use the machine's cores."""
    return max(1, (os.cpu_count() or 1) // parallel)


def _fetching(settings: Settings, request: TagRequest) -> tag.FetchSettings:
    HostPolicy.of(request.allow_hosts, settings.file_root)
    return tag.FetchSettings(
        cache_dir=settings.cache_dir,
        concurrency=request.concurrency,
        allow_hosts=request.allow_hosts,
        file_root=settings.file_root,
        token=settings.discord_token,
        discord_api=settings.discord_api,
    )


@contextmanager
def _budget(partition: Partition, settings: Settings, request: TagRequest, bus: Bus) -> Iterator[Path]:
    """The one rate budget of the run, served to its workers; gives the socket."""
    Store(settings.cache_dir).sweep()
    coordinator = LocalCoordinator(
        qps=request.qps,
        concurrency=request.concurrency,
        state=partition.status / "budget.json",
        on_adjustment=lambda adjustment: bus.publish(RateAdjusted(adjustment=adjustment)),
    )
    with serve(coordinator) as socket:
        yield socket


def _shown(request: TagRequest, vocabulary: TagVocabulary) -> dict[str, Any]:
    return {
        "model": request.model,
        "provider": request.provider,
        "batch_size": request.batch,
        "frames": request.frames,
        "qps": "unlimited" if isinf(request.qps) else request.qps,
        "concurrency": request.concurrency,
        "parallel": request.parallel,
        "vocabulary": vocabulary.source,
    }


def _metrics(outcome: Outcome, rows: int, request: TagRequest, vocabulary: TagVocabulary) -> dict[str, Any]:
    details = [receipt.detail for receipt in outcome.receipts]
    stages = {name: round(sum(detail["seconds"][name] for detail in details), 3) for name in ("decode", "infer")}
    return p1_metrics(
        outcome.counters(),
        rows=rows,
        records=outcome.records,
        seconds=outcome.seconds,
        detail={
            "stage_seconds": stages,
            "running": sorted(
                {f"{detail['model']} on {detail['provider']}, {detail['precision']}" for detail in details}
            ),
            "settings": _shown(request, vocabulary),
            "rate_adjustments": outcome.adjustments,
        },
    )
