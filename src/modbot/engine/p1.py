"""p1 of a day, or of one CSV: the shared budget, the shards, the merge, the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import isinf
from pathlib import Path
from typing import Any

import msgspec

from modbot.engine.fetching import fetch_settings, one_budget
from modbot.engine.local import cores_each
from modbot.engine.run import Outcome, require_possible, run_step
from modbot.errors import InputError
from modbot.fetch.store import Store
from modbot.files.atomic import write_bytes
from modbot.files.index_csv import read_rows
from modbot.files.journal import ShardFiles, file_digest, reopen_failed
from modbot.files.lease import hold, hold_file
from modbot.files.outputs import refuse_clashes
from modbot.files.paths import RULES_FILE, Partition
from modbot.files.shards import find_set
from modbot.models.calibration import Calibration, read_calibration
from modbot.models.decoder_process import start_spare
from modbot.models.execution import Execution
from modbot.models.registry import Installed, locate
from modbot.records import jsonl
from modbot.records.progress import Notice
from modbot.settings import Settings
from modbot.stages import kept, tag
from modbot.stages.configs import TagVocabulary, read_vocabulary
from modbot.stages.fetch import refuse_discord
from modbot.stages.flow import Flow, total
from modbot.stages.merge import merge_p1
from modbot.stages.metrics import p1_metrics
from modbot.stages.step import Bus, Step, Telling


class TagRequest(msgspec.Struct, frozen=True, kw_only=True):
    """p1 as it was asked for; settings and flags are resolved.

    `qps`: requests a second, `inf` for unlimited. `retry`: which failed rows of finished shards are done again, by
    kind; empty: of every kind; None: none. `rules`: the rules file by name; None: the default one, if it is there.
    `max_bytes`: the size from which an image is too large. `fast_decode`: large JPEGs may be decoded to a part of
    their size.
    """

    model: str
    execution: Execution
    calibration: Path | None
    frames: int
    fast_decode: bool
    concurrency: int
    qps: float
    parallel: int
    resume: bool
    retry: tuple[str, ...] | None
    rules: Path | None
    allow_hosts: tuple[str, ...]
    max_bytes: int


class TagSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What p1 ended with: its metrics as written, which stage set the pace, and the files."""

    metrics: dict[str, Any]
    flow: Flow
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
        InputError, ModelError, RulesError, BusyError, StorageError, ShardsFailedError, IncompleteError
    """
    with hold(partition, "modbot tag") as still_ours:
        folder, shards = find_set(partition, shard_glob)
        sources = [folder / f"{name}.csv" for name in shards.names()]
        status = status_file or partition.manifest("p1")
        refuse_clashes(
            [("the split", partition.index), *(("--shard-glob", source) for source in sources), *_configs(request)],
            [("--status-file", status)],
        )
        with hold_file(status.with_name(f"{status.name}.lease"), f"modbot tag --date {partition.date}"):
            return _tag(
                partition,
                settings,
                request,
                shards={
                    ShardFiles(partition.step_shards("p1"), name): (source, rows)
                    for name, source, rows in zip(shards.names(), sources, shards.rows, strict=True)
                },
                outputs=TagOutputs(
                    merged=partition.merged("p1"),
                    metrics=partition.step_metrics("p1"),
                    shard_metrics=partition.shard_metrics("p1"),
                    status=status,
                ),
                rows=range(shards.total),
                telling=telling,
                still_ours=still_ours,
            )


def tag_file(
    partition: Partition,
    settings: Settings,
    request: TagRequest,
    *,
    source: Path,
    out: Path,
    metrics_file: Path,
    status_file: Path | None,
    telling: Telling,
) -> TagSummary:
    """p1 over one CSV, an index or a shard, into one p1 file; the journal and its receipt lie in `OUT.shards/`.

    `partition` says where the budget's state and a lease for `cache prune` are kept, and names the status file's day.
    """
    written = [("--out", out), ("--metrics", metrics_file)]
    if status_file is not None:
        written.append(("--status-file", status_file))
    refuse_clashes([("--input", source), *_configs(request)], written)
    rows = [row.row for row in read_rows(source)]
    repeated = next((row for row, times in Counter(rows).items() if times > 1), None)
    if repeated is not None:
        remedy = "Name an index, or one shard as the split wrote it."
        raise InputError(f"row {repeated} stands twice in the shard", where=str(source), remedy=remedy)
    with (
        hold_file(out.with_name(f"{out.name}.lease"), "modbot tag --input") as still_ours,
        hold_file(partition.lease_of(out), "modbot tag --input"),  # `cache prune` looks there
    ):
        return _tag(
            partition,
            settings,
            request,
            shards={ShardFiles(out.with_name(f"{out.name}.shards"), "shard_00"): (source, len(rows))},
            outputs=TagOutputs(merged=out, metrics=metrics_file, shard_metrics=None, status=status_file),
            rows=rows,
            telling=telling,
            still_ours=still_ours,
        )


class TagOutputs(msgspec.Struct, frozen=True, kw_only=True):
    """Where p1 writes; None: not at all."""

    merged: Path
    metrics: Path
    shard_metrics: Path | None
    status: Path | None


def _tag(
    partition: Partition,
    settings: Settings,
    request: TagRequest,
    *,
    shards: Mapping[ShardFiles, tuple[Path, int]],
    outputs: TagOutputs,
    rows: Sequence[int],
    telling: Telling,
    still_ours: Callable[[], None],
) -> TagSummary:
    """p1 over some shards: their files, the CSV that each is of, and its number of rows."""
    fetching = fetch_settings(
        settings, concurrency=request.concurrency, allow_hosts=request.allow_hosts, max_bytes=request.max_bytes
    )
    if isinf(request.qps):
        refuse_discord(source for source, _ in shards.values())
    require_possible(request.execution)
    vocabulary = read_vocabulary(request.rules)
    calibration = None if request.calibration is None else read_calibration(request.calibration)
    model = locate(request.model, settings.models_dir, kind="tagger")
    if calibration is not None:
        calibration.check(model.name, model.revision)
    tagging = _tagging(model, request, vocabulary, calibration, jobs=len(shards))
    digest = tag.settings_digest(tagging)
    resume = request.resume or request.retry is not None
    inputs = {files: file_digest(source) for files, (source, _) in shards.items()}
    if request.retry is not None:
        for files in shards:
            reopen_failed(files, request.retry, settings=digest, inputs=inputs[files])
    Store(settings.cache_dir).sweep()
    kept.sweep(settings.cache_dir)
    bus = Bus()
    for warning in vocabulary.warnings:
        bus.publish(Notice(text=warning))
    with (
        one_budget(
            partition,
            f"modbot tag --profile {partition.profile}",
            qps=request.qps,
            concurrency=request.concurrency,
            bus=bus,
        ) as coordinator,
        telling("p1", len(rows)) as report,
    ):
        jobs = tuple(
            tag.TagJob(
                files=files,
                source=source,
                rows=count,
                settings=digest,
                inputs=inputs[files],
                resume=resume,
                tagging=tagging,
                fetching=fetching,
                coordinator=coordinator,
            )
            for files, (source, count) in shards.items()
        )
        step = Step(
            name="p1",
            profile=partition.profile,
            date=partition.date,
            jobs=jobs,
            settings=_shown(request, vocabulary),
            shard_metrics=outputs.shard_metrics,
            merge=lambda: merge_p1([job.files.lines for job in jobs], outputs.merged, rows=rows),
            first=start_spare,
        )
        outcome = run_step(
            step,
            parallel=request.parallel,
            resume=resume,
            status_file=outputs.status,
            report=report,
            bus=bus,
            still_ours=still_ours,
        )
    flow = total(Flow(**receipt.detail["flow"]) for receipt in outcome.receipts)
    metrics = _metrics(outcome, len(rows), request, vocabulary, flow)
    write_bytes(outputs.metrics, jsonl.encode_document(metrics))
    return TagSummary(metrics=metrics, flow=flow, merged=outputs.merged, metrics_file=outputs.metrics)


def _configs(request: TagRequest) -> list[tuple[str, Path]]:
    calibration = [] if request.calibration is None else [("--calibration", request.calibration)]
    return [("--rules-config", request.rules or RULES_FILE), *calibration]


def _tagging(
    model: Installed, request: TagRequest, vocabulary: TagVocabulary, calibration: Calibration | None, *, jobs: int
) -> tag.TagSettings:
    return tag.TagSettings(
        model=model,
        execution=request.execution,
        calibration=calibration,
        frames=request.frames,
        fast_decode=request.fast_decode,
        groups=vocabulary.groups,
        cores=cores_each(request.parallel, jobs),
    )


def _shown(request: TagRequest, vocabulary: TagVocabulary) -> dict[str, Any]:
    return {
        "model": request.model,
        "provider": request.execution.provider,
        "precision": request.execution.precision,
        "calibration": None if request.calibration is None else str(request.calibration),
        "batch_size": request.execution.batch,
        "frames": request.frames,
        "fast_decode": request.fast_decode,
        "qps": "unlimited" if isinf(request.qps) else request.qps,
        "concurrency": request.concurrency,
        "parallel": request.parallel,
        "max_bytes": request.max_bytes,
        "vocabulary": vocabulary.source,
    }


def _metrics(outcome: Outcome, rows: int, request: TagRequest, vocabulary: TagVocabulary, flow: Flow) -> dict[str, Any]:
    details = [receipt.detail for receipt in outcome.receipts]
    return p1_metrics(
        outcome.counters(),
        rows=rows,
        records=outcome.records,
        times=outcome.times,
        detail={
            "stages": flow.as_metrics(),
            "running": sorted(
                {f"{detail['model']} on {detail['provider']}, {detail['precision']}" for detail in details}
            ),
            "settings": _shown(request, vocabulary),
            "rate_adjustments": outcome.adjustments,
        },
    )
