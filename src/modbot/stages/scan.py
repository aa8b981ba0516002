"""p3: judge the records of a day by the rules; findings, report, metrics and trace in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

import msgspec

from modbot.errors import InputError
from modbot.files.atomic import Draft, write_bytes, writing
from modbot.files.lease import hold
from modbot.files.outputs import same_file
from modbot.files.paths import Partition
from modbot.records.evidence import read
from modbot.records.finding import REPORT_COLUMNS, Severity, finding
from modbot.records.jsonl import decode, encode_document
from modbot.stages.crew import Crew
from modbot.stages.judge import Judge, Judged, legacy_green
from modbot.stages.lines import p2_lines, p2_pieces
from modbot.stages.parts import Part, judge_in_parts, leave_the_telling, swept
from modbot.stages.report import part_of, report_beside, report_row
from modbot.stages.rulebook import Rulebook
from modbot.stages.select import FILTERS, Selection
from modbot.stages.sheet import rows
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
    """One day's scan, as a value that can go to another process.

    `all_green`: the rules are legacy, and judge nothing.
    """

    partition: Partition
    analysis: Path
    book: Rulebook
    unjudged: Severity
    all_green: bool = False
    selection: Selection
    outputs: Outputs

    def judge(self) -> Judge:
        return legacy_green if self.all_green else self.book.judge(self.unjudged)

    def failures(self) -> Counter[int]:
        """What could not be evaluated in this process."""
        return Counter() if self.all_green else self.book.ruleset.failures

    def add_failures(self, failures: Mapping[int, int]) -> None:
        """Counts what could not be evaluated in another process."""
        if failures:
            self.book.ruleset.add_failures(failures)


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


def scan_days(jobs: Sequence[ScanJob], crew: Crew, begun: Callable[[], None]) -> Iterator[Scanned]:
    """Scans each day, and gives what became of each, in order: several days at once, or one in parts, by the crew.

    Nobody else writes a day meanwhile, unless the run writes nothing of its own. `begun` is called before a record is
    judged: for a single day, or without a crew, when it is sure that nobody does.

    Raises:
        InputError: a p2 file or p2's metrics cannot be read.
        BusyError: another run is at work on a day.
        ModbotError: a process of the crew died.
        StorageError: the disk refused.
    """
    if len(crew) and len(jobs) > 1:
        begun()
        with swept([path for job in jobs for _, path in job.outputs.named], crew):
            for job, (scanned, failures) in zip(jobs, crew.do([_Day(job) for job in jobs]), strict=True):
                job.add_failures(failures)
                yield scanned
            # The profile's latest metrics are those of the day that was done last; as one by one, it is the last day.
            _write_metrics(scanned.metrics, jobs[-1].outputs)
    else:
        for job in jobs:
            yield _scan(job, crew, begun)


def _scan(job: ScanJob, crew: Crew, begun: Callable[[], None] = lambda: None) -> Scanned:
    with nullcontext() if job.outputs.results is None else hold(job.partition, "modbot scan"):
        begun()
        return _scan_held(job, crew)


@dataclass(frozen=True)
class _Day:
    """A day's scan in another process: what became of it, and what could not be evaluated."""

    job: ScanJob

    def __call__(self) -> tuple[Scanned, Counter[int]]:
        leave_the_telling()
        return _scan(self.job, Crew()), self.job.failures()


def _scan_held(job: ScanJob, crew: Crew) -> Scanned:
    started = perf_counter()
    judge, tally = job.judge(), Tally()
    outputs = job.outputs
    extent = extent_of(job.partition, job.analysis)
    with _drafts(outputs, lambda: bool(extent.partial_by(tally))) as drafts:
        if len(crew):
            _judge_in_parts(job, crew, drafts, tally)
        else:
            judge_lines(p2_lines(job.analysis), judge, job.selection, tally, _emitters(drafts, judge))
    partial_by = extent.partial_by(tally)
    metrics = tally.metrics(
        wall_time_s=perf_counter() - started,
        context={
            "profile": job.partition.profile,
            "date": job.partition.date,
            "partial": bool(partial_by),
            "partial_by": partial_by,
        },
        ruleset=job.book.account(tally.models),
    )
    _write_metrics(metrics, outputs)
    return Scanned(tally=tally, metrics=metrics, written=outputs.written(whole=not partial_by), extent=extent)


def _judge_in_parts(job: ScanJob, crew: Crew, drafts: Mapping[str, Draft], tally: Tally) -> None:
    def add(judged: tuple[Tally, Counter[int]]) -> None:
        counted, failures = judged
        tally.merge(counted)
        job.add_failures(failures)

    judge_in_parts(p2_pieces(job.analysis), drafts, crew, partial(_Part, job), add)


def _write_metrics(metrics: Mapping[str, Any], outputs: Outputs) -> None:
    for path in outputs.metrics:
        write_bytes(path, encode_document(metrics))


@contextmanager
def _drafts(outputs: Outputs, is_part: Callable[[], bool]) -> Iterator[dict[str, Draft]]:
    """The files that take what a scan writes record by record; they stand when the block has ended well.

    Only when all is counted is it known whether they are the whole day's.
    """
    results = outputs.results
    with ExitStack() as stack:
        drafts: dict[str, Draft] = {}
        if results is not None:
            drafts["report"] = stack.enter_context(writing(results.report))
            drafts["findings"] = stack.enter_context(writing(results.findings))
            rows(drafts["report"])(REPORT_COLUMNS)
        if outputs.trace is not None:
            drafts["trace"] = stack.enter_context(writing(outputs.trace))
        yield drafts
        if results is not None and is_part():
            drafts["findings"].path, drafts["report"].path = results.part_findings, results.part_report


def _emitters(files: Mapping[str, BinaryIO], judge: Judge) -> list[Emit]:
    """What takes each finding to the files."""
    emitters: list[Emit] = []
    if "report" in files:
        write_row = rows(files["report"])
        emitters.append(lambda judged: write_row(report_row(judged.reading.evidence, judged.tags, judged.outcome)))
    if "findings" in files:
        write = files["findings"].write
        emitters.append(lambda judged: write(finding(judged.reading.line, judged.outcome)))
    if "trace" in files:
        trace = files["trace"].write
        emitters.append(lambda judged: trace(trace_line(judged, judge)))
    return emitters


@dataclass(frozen=True)
class _Part:
    """The scan of a part of the day in another process: its counts, and what could not be evaluated."""

    job: ScanJob
    part: Part

    def __call__(self) -> tuple[Tally, Counter[int]]:
        leave_the_telling()
        judge, tally = self.job.judge(), Tally()
        with self.part.writing() as files:
            lines = p2_lines(self.job.analysis, self.part.span)
            judge_lines(lines, judge, self.job.selection, tally, _emitters(files, judge))
        return tally, self.job.failures()


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
