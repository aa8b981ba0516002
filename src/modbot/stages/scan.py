"""p3: judge the records of a day by the rules; findings, report, metrics and trace in one pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from modbot.files.atomic import Draft, write_bytes, writing
from modbot.files.paths import Partition
from modbot.records.evidence import read
from modbot.records.finding import REPORT_COLUMNS, finding
from modbot.records.jsonl import encode_document, encode_line
from modbot.stages.judge import Judge, Judged
from modbot.stages.lines import numbered_lines
from modbot.stages.report import part_of, report_beside, report_row
from modbot.stages.select import Selection
from modbot.stages.sheet import sheet
from modbot.stages.tally import Tally

Emit = Callable[[Judged], object]


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where a scan writes; None: not at all.

    `findings` and `report` are the whole day's; a run that left a record out writes `part_findings` and `part_report`
    instead. `metrics` are all the places that get the metrics document.
    """

    findings: Path | None = None
    report: Path | None = None
    part_findings: Path | None = None
    part_report: Path | None = None
    trace: Path | None = None
    metrics: tuple[Path, ...] = ()

    @property
    def shown(self) -> dict[str, Any]:
        """As `--print-config` tells it."""
        named = {"findings": self.findings, "report": self.report, "trace": self.trace}
        paths = {name: None if path is None else str(path) for name, path in named.items()}
        return {**paths, "metrics": [str(path) for path in self.metrics]}


@dataclass(frozen=True, kw_only=True)
class ScanJob:
    """One day's scan. `account` tells of the rules after a run over records of the taggers that it is given."""

    analysis: Path
    judge: Judge
    selection: Selection
    outputs: Outputs
    account: Callable[[Collection[str]], Mapping[str, Any]]
    context: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What became of a scan: its counts, its metrics document, and the files it wrote."""

    tally: Tally
    metrics: Mapping[str, Any]
    written: tuple[Path, ...]


def outputs_of(
    partition: Partition,
    *,
    dry_run: bool = False,
    findings: Path | None = None,
    metrics: Path | None = None,
    trace: Path | None = None,
) -> Outputs:
    """Where a day's scan writes.

    `findings` names another place for the findings, whole or not (the report goes beside it); `metrics` a further
    place for the metrics. A dry run writes only `metrics` and `trace`.
    """
    named = () if metrics is None else (metrics,)
    if dry_run:
        return Outputs(metrics=named, trace=trace)
    everywhere = tuple(dict.fromkeys((partition.scan_metrics, partition.latest_scan, *named)))
    if findings is not None:
        report = report_beside(findings)
        return Outputs(findings=findings, report=report, metrics=everywhere, trace=trace)
    return Outputs(
        findings=partition.findings,
        report=partition.report,
        part_findings=part_of(partition.findings),
        part_report=part_of(partition.report),
        metrics=everywhere,
        trace=trace,
    )


def scan(job: ScanJob) -> Scanned:
    """Judges a day.

    Raises:
        InputError: the p2 file cannot be read.
        StorageError: the disk refused.
    """
    started = perf_counter()
    tally = Tally()
    outputs = job.outputs
    lines = numbered_lines(
        job.analysis, what="the p2 records", remedy="Analyze the day first (modbot analyze), or name them: --analysis"
    )
    drafts: list[Draft] = []
    with ExitStack() as stack:
        emitters: list[Emit] = []
        if outputs.report is not None:
            report = stack.enter_context(writing(outputs.report))
            drafts.append(report)
            write_row = stack.enter_context(sheet(report, REPORT_COLUMNS))
            emitters.append(lambda judged: write_row(report_row(judged.reading.evidence, judged.tags, judged.outcome)))
        if outputs.findings is not None:
            findings = stack.enter_context(writing(outputs.findings))
            drafts.append(findings)
            write = findings.write
            emitters.append(lambda judged: write(finding(judged.reading.line, judged.outcome)))
        if outputs.trace is not None:
            trace = stack.enter_context(writing(outputs.trace)).write
            emitters.append(lambda judged: trace(trace_line(judged)))
        judge_lines(lines, job.judge, job.selection, tally, emitters)
        if tally.left_out and outputs.part_findings is not None and outputs.part_report is not None:
            report.path, findings.path = outputs.part_report, outputs.part_findings
    metrics = tally.metrics(
        wall_time_s=perf_counter() - started, context=job.context, ruleset=job.account(tally.models)
    )
    for path in outputs.metrics:
        write_bytes(path, encode_document(metrics))
    traces = () if outputs.trace is None else (outputs.trace,)
    return Scanned(
        tally=tally, metrics=metrics, written=(*(draft.path for draft in reversed(drafts)), *traces, *outputs.metrics)
    )


def judge_lines(
    lines: Iterable[tuple[int, bytes]], judge: Judge, selection: Selection, tally: Tally, emitters: Iterable[Emit]
) -> None:
    """Takes each line to a finding, or to the count of the filter that left it out."""
    emitters = tuple(emitters)
    offset, limit = selection.offset, selection.limit
    filtered = tally.filtered
    for number, line in lines:
        if limit is not None and tally.total >= limit:
            filtered["limit"] += 1
            continue
        reading = read(line, number)
        missed, undated = selection.look(reading.evidence)
        if missed is not None:
            filtered[missed] += 1
            continue
        judged = judge(reading)
        if selection.severities and judged.outcome.severity not in selection.severities:
            filtered["severity"] += 1
            continue
        if offset:
            offset -= 1
            filtered["offset"] += 1
            continue
        tally.undated += undated
        tally.add(judged)
        for emit in emitters:
            emit(judged)


def trace_line(judged: Judged) -> bytes:
    """How a record came to its verdict, as a JSON line."""
    evidence, outcome = judged.reading.evidence, judged.outcome
    return encode_line(
        {
            "row": evidence.row,
            "sha256": evidence.sha256,
            "message_link": evidence.link,
            "severity": outcome.severity,
            "rule_id": outcome.rule_id,
            "reasons": outcome.reasons,
            "winning": outcome.metrics["winning"],
            "rating": evidence.rating,
            "signals": {
                name: value
                for name, value in outcome.metrics.items()
                if isinstance(value, (int, float)) and name != "eval_ms"
            },
            "dsl": outcome.metrics["dsl"],
            "doubts": [f"{doubt.kind} ({doubt.detail})" for doubt in judged.reading.doubts],
            "skipped_tags": judged.reading.skipped_tags,
            "eval_ms": outcome.metrics["eval_ms"],
        }
    )
