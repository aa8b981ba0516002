"""p3: judge the records of a day by the rules; findings, report, metrics and trace in one pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from modbot.errors import InputError
from modbot.files.atomic import write_bytes, writing
from modbot.files.lease import hold
from modbot.files.outputs import same_file
from modbot.files.paths import Partition
from modbot.records.evidence import read
from modbot.records.finding import REPORT_COLUMNS, finding
from modbot.records.jsonl import decode, encode_document
from modbot.stages.judge import Judge, Judged
from modbot.stages.lines import numbered_lines
from modbot.stages.report import part_of, report_beside, report_row
from modbot.stages.select import FILTERS, Selection
from modbot.stages.sheet import sheet
from modbot.stages.tally import Tally
from modbot.stages.trace import trace_line

Emit = Callable[[Judged], object]

ANOTHER_FILE = "analysis"
OTHER_COUNT = "records"
"""What makes a run one of a part of the day, beside the filters: see `Extent`."""


@dataclass(frozen=True)
class Results:
    """Where the findings and their report go, and where if they hold only a part of the day."""

    findings: Path
    report: Path
    part_findings: Path
    part_report: Path


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where a scan writes; None: not at all. `metrics` are all the places that get the metrics document."""

    results: Results | None = None
    trace: Path | None = None
    metrics: tuple[Path, ...] = ()

    @property
    def shown(self) -> dict[str, Any]:
        """As `--print-config` tells it."""
        findings, report = (None, None) if self.results is None else (self.results.findings, self.results.report)
        named = {"findings": findings, "report": report, "trace": self.trace}
        paths = {name: None if path is None else str(path) for name, path in named.items()}
        return {**paths, "metrics": [str(path) for path in self.metrics]}

    @property
    def named(self) -> Iterator[tuple[str, Path]]:
        """Every file that may be written, whole or in part, by the flag that it is known by."""
        if self.results is not None:
            found = self.results
            for findings, report in ((found.findings, found.report), (found.part_findings, found.part_report)):
                yield "--findings", findings
                yield "--findings (its report)", report
        if self.trace is not None:
            yield "--trace-jsonl", self.trace
        for path in self.metrics:
            yield "--metrics", path

    def written(self, *, whole: bool) -> tuple[Path, ...]:
        """The files of a run that took the whole day, or a part of it."""
        results: tuple[Path, ...] = ()
        if self.results is not None:
            found = self.results
            results = (found.findings, found.report) if whole else (found.part_findings, found.part_report)
        return (*results, *(() if self.trace is None else (self.trace,)), *self.metrics)


@dataclass(frozen=True, kw_only=True)
class ScanJob:
    """One day's scan. `account` tells of the rules after a run over records of the taggers that it is given."""

    partition: Partition
    analysis: Path
    judge: Judge
    selection: Selection
    outputs: Outputs
    account: Callable[[Collection[str]], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What became of a scan: its counts, its metrics document, and the files it wrote.

    `partial_by`: see `Extent`; empty for the whole day.
    """

    tally: Tally
    metrics: Mapping[str, Any]
    written: tuple[Path, ...]
    extent: Extent

    @property
    def partial_by(self) -> tuple[str, ...]:
        return self.extent.partial_by(self.tally)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """What the whole day is. `own`: the records are read from the day's own file; `records`: as many as p2 counted."""

    own: bool
    records: int | None

    def partial_by(self, tally: Tally) -> tuple[str, ...]:
        """What makes a run that counted this one of a part of the day: filters, `analysis`, `records`."""
        found: list[str] = [name for name in FILTERS if tally.filtered[name]]
        if not self.own:
            found.append(ANOTHER_FILE)
        if self.records not in {None, tally.read}:
            found.append(OTHER_COUNT)
        return tuple(found)


def extent_of(partition: Partition, analysis: Path) -> Extent:
    """What the whole day is, for a run over `analysis`.

    Raises:
        InputError: p2's metrics cannot be read.
    """
    own = same_file(analysis, partition.merged("p2"))
    return Extent(own=own, records=_counted(partition.step_metrics("p2")) if own else None)


class _Counted(msgspec.Struct):
    records: int


def _counted(metrics: Path) -> int | None:
    """How many records p2 says that it wrote; None where it has left no metrics."""
    try:
        return decode(metrics.read_bytes(), _Counted).records
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(
            f"p2's metrics cannot be read ({error})",
            where=str(metrics),
            remedy="Analyze the day again (modbot analyze --resume), which writes them anew.",
        ) from None


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
        return Outputs(results=Results(findings, report, findings, report), metrics=everywhere, trace=trace)
    findings, report = partition.findings, partition.report
    return Outputs(
        results=Results(findings, report, part_of(findings), part_of(report)), metrics=everywhere, trace=trace
    )


def scan(job: ScanJob) -> Scanned:
    """Judges a day, or a part of it (see `Extent`).

    Nobody else writes the day meanwhile, unless the run writes nothing of its own.

    Raises:
        InputError: the p2 file or p2's metrics cannot be read.
        BusyError: another run is at work on the day.
        StorageError: the disk refused.
    """
    with nullcontext() if job.outputs.results is None else hold(job.partition, "modbot scan"):
        return _scan(job)


def _scan(job: ScanJob) -> Scanned:
    started = perf_counter()
    tally = Tally()
    outputs = job.outputs
    extent = extent_of(job.partition, job.analysis)
    lines = numbered_lines(
        job.analysis, what="the p2 records", remedy="Analyze the day first (modbot analyze), or name them: --analysis"
    )
    with _emitting(outputs, job.judge, lambda: bool(extent.partial_by(tally))) as emitters:
        judge_lines(lines, job.judge, job.selection, tally, emitters)
    partial_by = extent.partial_by(tally)
    metrics = tally.metrics(
        wall_time_s=perf_counter() - started,
        context={
            "profile": job.partition.profile,
            "date": job.partition.date,
            "partial": bool(partial_by),
            "partial_by": partial_by,
        },
        ruleset=job.account(tally.models),
    )
    for path in outputs.metrics:
        write_bytes(path, encode_document(metrics))
    return Scanned(tally=tally, metrics=metrics, written=outputs.written(whole=not partial_by), extent=extent)


@contextmanager
def _emitting(outputs: Outputs, judge: Judge, is_part: Callable[[], bool]) -> Iterator[list[Emit]]:
    """What takes each finding to the files; these stand when the block has ended well."""
    emitters: list[Emit] = []
    with ExitStack() as stack:
        if outputs.results is not None:
            emitters += stack.enter_context(_results(outputs.results, is_part))
        if outputs.trace is not None:
            write = stack.enter_context(writing(outputs.trace)).write
            emitters.append(lambda judged: write(trace_line(judged, judge)))
        yield emitters


@contextmanager
def _results(results: Results, is_part: Callable[[], bool]) -> Iterator[tuple[Emit, Emit]]:
    """As `_emitting`; only when all is counted is it known whether they are the whole day's."""
    with writing(results.report) as report, writing(results.findings) as findings:
        write_row, write = sheet(report, REPORT_COLUMNS), findings.write
        yield (
            lambda judged: write_row(report_row(judged.reading.evidence, judged.tags, judged.outcome)),
            lambda judged: write(finding(judged.reading.line, judged.outcome)),
        )
        if is_part():
            findings.path, report.path = results.part_findings, results.part_report


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
