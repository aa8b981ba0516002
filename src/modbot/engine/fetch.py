"""The fetching of a day: the shared budget, the shards, the metrics. No model, nothing that needs one."""

from __future__ import annotations

import time
from math import isinf
from pathlib import Path
from typing import Any

import msgspec

from modbot.engine.fetching import fetch_settings, one_budget
from modbot.engine.run import Outcome, run_step
from modbot.fetch.coordinator import read_states
from modbot.fetch.store import Store
from modbot.files.atomic import write_bytes
from modbot.files.journal import ShardFiles, file_digest, reopen_failed
from modbot.files.lease import hold, hold_file
from modbot.files.outputs import refuse_clashes
from modbot.files.paths import Partition
from modbot.files.shards import find_set
from modbot.records import jsonl
from modbot.settings import Settings
from modbot.stages.fetch import SETTINGS_DIGEST, FetchJob, FetchSettings, refuse_discord
from modbot.stages.forecast import Forecast, forecast
from modbot.stages.metrics import fetch_metrics
from modbot.stages.step import Bus, Step, Telling

STEP = "fetch"


class FetchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fetching as it was asked for; settings and flags are resolved.

    `qps`: requests a second, `inf` for unlimited. `retry`: which failed rows of finished shards are done again, by
    kind; empty: of every kind; None: none. `max_bytes`: the size from which an image is too large.
    """

    concurrency: int
    qps: float
    parallel: int
    resume: bool
    retry: tuple[str, ...] | None
    allow_hosts: tuple[str, ...]
    max_bytes: int


class FetchSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the fetching ended with: its metrics as written, and where they and the lines are."""

    metrics: dict[str, Any]
    metrics_file: Path
    lines: Path


def fetch_day(
    partition: Partition,
    settings: Settings,
    request: FetchRequest,
    *,
    shard_glob: str | None,
    status_file: Path | None,
    telling: Telling,
) -> FetchSummary:
    """Fetches a day's shards into the store; `telling` gives the context in which events are told.

    Raises:
        InputError, SettingError, BusyError, StorageError, RateLimitError, ShardsFailedError
    """
    fetching = _settings(settings, request)
    with hold(partition, "modbot fetch") as still_ours:
        folder, shards = find_set(partition, shard_glob)
        sources = [folder / f"{name}.csv" for name in shards.names()]
        status = status_file or partition.manifest(STEP)
        refuse_clashes(
            [("the split", partition.index), *(("--shard-glob", source) for source in sources)],
            [("--status-file", status)],
        )
        if isinf(request.qps):
            refuse_discord(sources)
        files = [ShardFiles(partition.step_shards(STEP), name) for name in shards.names()]
        inputs = [file_digest(source) for source in sources]
        if request.retry is not None:
            for each, digest in zip(files, inputs, strict=True):
                reopen_failed(each, request.retry, settings=SETTINGS_DIGEST, inputs=digest)
        resume = request.resume or request.retry is not None
        Store(settings.cache_dir).sweep()
        bus = Bus()
        with (
            hold_file(status.with_name(f"{status.name}.lease"), f"modbot fetch --date {partition.date}"),
            one_budget(
                partition,
                f"modbot fetch --profile {partition.profile}",
                qps=request.qps,
                concurrency=request.concurrency,
                bus=bus,
            ) as coordinator,
            telling(STEP, shards.total) as report,
        ):
            jobs = tuple(
                FetchJob(
                    files=each,
                    source=source,
                    rows=rows,
                    inputs=digest,
                    resume=resume,
                    fetching=fetching,
                    coordinator=coordinator,
                )
                for each, source, rows, digest in zip(files, sources, shards.rows, inputs, strict=True)
            )
            step = Step(
                name=STEP,
                profile=partition.profile,
                date=partition.date,
                jobs=jobs,
                settings=_shown(request),
                shard_metrics=partition.shard_metrics(STEP),
                merge=lambda: shards.total,  # the lines stay where they are: the images are what was asked for
            )
            outcome = run_step(
                step,
                parallel=request.parallel,
                resume=resume,
                status_file=status,
                report=report,
                bus=bus,
                still_ours=still_ours,
            )
    metrics = _metrics(outcome, shards.total, request)
    write_bytes(partition.step_metrics(STEP), jsonl.encode_document(metrics))
    return FetchSummary(metrics=metrics, metrics_file=partition.step_metrics(STEP), lines=partition.step_shards(STEP))


def forecast_day(
    partition: Partition, settings: Settings, request: FetchRequest, *, shard_glob: str | None
) -> Forecast:
    """What `fetch_day` would come to; sends nothing.

    Raises:
        InputError, SettingError, StorageError
    """
    fetching = _settings(settings, request)
    folder, shards = find_set(partition, shard_glob)
    sources = [folder / f"{name}.csv" for name in shards.names()]
    if isinf(request.qps):
        refuse_discord(sources)
    saved = read_states(partition.budgets())
    return forecast(sources, fetching, qps=request.qps, saved=saved, now=time.time())


def _settings(settings: Settings, request: FetchRequest) -> FetchSettings:
    return fetch_settings(
        settings, concurrency=request.concurrency, allow_hosts=request.allow_hosts, max_bytes=request.max_bytes
    )


def _shown(request: FetchRequest) -> dict[str, Any]:
    return {
        "qps": "unlimited" if isinf(request.qps) else request.qps,
        "concurrency": request.concurrency,
        "parallel": request.parallel,
        "max_bytes": request.max_bytes,
    }


def _metrics(outcome: Outcome, rows: int, request: FetchRequest) -> dict[str, Any]:
    return fetch_metrics(
        outcome.counters(),
        rows=rows,
        times=outcome.times,
        detail={"settings": _shown(request), "rate_adjustments": outcome.adjustments},
    )
