"""p2 of a day: the shards, the merge, the metrics."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from modbot.engine.local import cores_each
from modbot.engine.run import require_possible, run_step
from modbot.files.atomic import write_bytes
from modbot.files.lease import hold, hold_file
from modbot.files.outputs import refuse_clashes
from modbot.files.paths import RULES_FILE, Partition
from modbot.files.shards import find_set
from modbot.models.execution import Execution
from modbot.models.registry import Installed, locate
from modbot.records import jsonl
from modbot.records.progress import Notice
from modbot.settings import Settings
from modbot.signals import GateMode
from modbot.stages import analyze, kept
from modbot.stages.configs import read_signal_config, read_vocabulary
from modbot.stages.flow import Flow, total
from modbot.stages.metrics import p2_metrics
from modbot.stages.step import Bus, Telling


class AnalyzeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """p2 as it was asked for. `rules`: the rules file by name; None: the default one, if it is there."""

    model: str
    execution: Execution
    gate: GateMode
    parallel: int
    resume: bool
    rules: Path | None


class AnalyzeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What p2 ended with: its metrics as written, which stage set the pace, and the files."""

    metrics: dict[str, Any]
    flow: Flow
    merged: Path
    metrics_file: Path


def analyze_day(
    partition: Partition,
    settings: Settings,
    request: AnalyzeRequest,
    *,
    shard_glob: str | None,
    status_file: Path | None,
    telling: Telling,
) -> AnalyzeSummary:
    """p2 over a day's shards; `telling` gives the context in which events are told.

    Raises:
        InputError, ModelError, RulesError, BusyError, StorageError, ShardsFailedError, IncompleteError
    """
    require_possible(request.execution)
    with ExitStack() as stack:
        still_ours = stack.enter_context(hold(partition, "modbot analyze"))
        _, shards = find_set(partition, shard_glob)
        vocabulary = read_vocabulary(request.rules)
        status = status_file or partition.manifest("p2")
        refuse_clashes(
            [("p2", partition.merged("p1")), ("--rules-config", request.rules or RULES_FILE)],
            [("--status-file", status)],
        )
        lease = status.with_name(f"{status.name}.lease")
        stack.enter_context(hold_file(lease, f"modbot analyze --date {partition.date}"))
        shown = {
            "model": request.model,
            "provider": request.execution.provider,
            "nudenet_mode": request.gate,
            "thresholds": vocabulary.thresholds,
            "batch_size": request.execution.batch,
            "parallel": request.parallel,
            "vocabulary": vocabulary.source,
        }
        kept.sweep(settings.cache_dir)
        step = analyze.plan(
            partition,
            shards,
            detecting=analyze.DetectSettings(
                model=_detector(request, settings),
                execution=request.execution,
                gate=request.gate,
                thresholds=vocabulary.thresholds,
                nsfw_general=vocabulary.nsfw_general,
                signals=read_signal_config(),
                cache_dir=settings.cache_dir,
                cores=cores_each(request.parallel, shards.count),
            ),
            resume=request.resume,
            shown=shown,
        )
        bus = Bus()
        for warning in vocabulary.warnings:
            bus.publish(Notice(text=warning))
        report = stack.enter_context(telling("p2", sum(job.rows for job in step.jobs)))
        outcome = run_step(
            step,
            parallel=request.parallel,
            resume=request.resume,
            status_file=status,
            report=report,
            bus=bus,
            still_ours=still_ours,
        )
        running = {receipt.detail["running"] for receipt in outcome.receipts} - {None}
        taggers = {tagger for receipt in outcome.receipts for tagger in receipt.detail["taggers"]}
        flow = total(Flow(**receipt.detail["flow"]) for receipt in outcome.receipts)
        detail = {
            "stages": flow.as_metrics(),
            "running": sorted(running),
            "taggers": sorted(taggers),
            "settings": shown,
        }
        totals = Counter[str]()
        for receipt in outcome.receipts:
            totals.update(receipt.detail["counts"])
            for name in ("batch_halved", "nudenet_reused"):
                totals[name] += int(receipt.counters.get(name, 0))
        # A record's line does not tell of what was known: the same inputs give the same bytes.
        totals["nudenet_executed"] -= totals["nudenet_reused"]
        metrics = p2_metrics(totals, times=outcome.times, detail=detail)
        write_bytes(partition.step_metrics("p2"), jsonl.encode_document(metrics))
    return AnalyzeSummary(
        metrics=metrics, flow=flow, merged=partition.merged("p2"), metrics_file=partition.step_metrics("p2")
    )


def _detector(request: AnalyzeRequest, settings: Settings) -> Installed | None:
    """The detector on disk; where it is never to run, it need not be there."""
    if request.gate == "never":
        return None
    return locate(request.model, settings.models_dir, kind="detector")
