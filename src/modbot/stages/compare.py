"""A/B: the same records judged by two rules files in one pass; what differs, and by how much."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import msgspec

from modbot.files.atomic import Draft, storage_errors, write_bytes, writing
from modbot.files.lease import hold
from modbot.files.paths import Partition
from modbot.records.evidence import Reading, read
from modbot.records.finding import DIFF_COLUMNS, RANK, SEVERITIES, UNJUDGED, Outcome
from modbot.records.jsonl import encode_document, encode_line
from modbot.stages.crew import Crew
from modbot.stages.judge import Judged
from modbot.stages.lines import WHOLE, Span, p2_lines, p2_pieces
from modbot.stages.parts import Part, append, judge_in_parts, leave_the_telling, swept
from modbot.stages.redact import redacted
from modbot.stages.rulebook import Rulebook
from modbot.stages.sheet import WriteRow, cell, number, rows

COMPARE_NAME = "p3_ab_compare.json"
DIFF_NAME = "p3_ab_diff.csv"
SAMPLES_NAME = "p3_ab_diff_samples.jsonl"
HOLDER = "modbot ab"
LEGACY_NOTE = "skipped due to legacy ruleset"

RULE_ONLY = 0.5
"""The size of a difference in the rule alone; one in severity is as large as the steps between."""

MOST_COMBINATIONS = 10_000
"""So many combinations of rules that matched together are kept apart before they are counted by pairs."""

ALONE = -1
"""Stands in the place of the other rule, where there was none."""

TOP_DELTAS = 20
SHORT_REASONS = 3
SHORT_REASON = 120


@dataclass(frozen=True, kw_only=True)
class AbOutputs:
    """Where an A/B run of the partition writes; every list holds a path or more, and all of it get the same bytes."""

    partition: Partition
    compare: tuple[Path, ...]
    diff: tuple[Path, ...]
    samples: tuple[Path, ...]

    @property
    def all(self) -> tuple[Path, ...]:
        return (*self.compare, *self.diff, *self.samples)

    @property
    def named(self) -> Iterator[tuple[str, Path]]:
        """Every file, by the flag that it is known by."""
        for name, paths in (("--out-json", self.compare), ("--out-csv", self.diff), ("--out-dir", self.samples)):
            for path in paths:
                yield name, path


@dataclass(frozen=True, kw_only=True)
class SampleForm:
    """How many of the largest differences are kept, and how they are written."""

    count: int = 200
    minimal: bool = False
    redact_urls: bool = False


class Difference(NamedTuple):
    """A record whose verdicts differ."""

    reading: Reading
    a: Outcome
    b: Outcome
    size: float


@dataclass(frozen=True, kw_only=True)
class AbJob:
    """The comparison of one day, as a value that can go to another process."""

    analysis: Path
    books: tuple[Rulebook, Rulebook]
    outputs: AbOutputs
    form: SampleForm

    def add_failures(self, found: Found) -> None:
        """Counts what could not be evaluated in another process."""
        for book, failures in zip(self.books, found.failures, strict=True):
            book.ruleset.add_failures(failures)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What an A/B run found, and the files that it wrote."""

    found: Found
    document: Mapping[str, Any]
    written: tuple[Path, ...]


def ab_outputs(
    partition: Partition, *, out_dir: Path | None = None, out_json: Path | None = None, out_csv: Path | None = None
) -> AbOutputs:
    """The partition's places, and `out_dir` as well; `out_json` and `out_csv` win over both."""
    folder = () if out_dir is None else (out_dir,)
    return AbOutputs(
        partition=partition,
        compare=(out_json,) if out_json else (partition.ab_compare, *(path / COMPARE_NAME for path in folder)),
        diff=(out_csv,) if out_csv else (partition.ab_diff, *(path / DIFF_NAME for path in folder)),
        samples=(partition.ab_samples, *(path / SAMPLES_NAME for path in folder)),
    )


def day_outputs(partition: Partition, *, out_dir: Path | None = None) -> AbOutputs:
    """Where a day goes that is one of several: beside the files that tell of all of them, under names of its own."""
    own = AbOutputs(
        partition=partition,
        compare=(partition.ab_day_compare,),
        diff=(partition.ab_day_diff,),
        samples=(partition.ab_day_samples,),
    )
    if out_dir is None:
        return own
    return AbOutputs(
        partition=partition,
        compare=(*own.compare, out_dir / partition.ab_day_compare.name),
        diff=(*own.diff, out_dir / partition.ab_day_diff.name),
        samples=(*own.samples, out_dir / partition.ab_day_samples.name),
    )


def compare_days(jobs: Sequence[AbJob], whole: AbOutputs | None, crew: Crew, begun: Callable[[], None]) -> Compared:
    """Judges every record by A and by B, and writes the comparison, the diff and the samples of each day.

    The days of a range, at once if there is a crew, are also told of together, in `whole`; it is None for a day that
    is no range's. A single day is judged in parts by the crew. `begun` is called before a record is judged, if possible
    when it is sure that nobody else is at work.

    Raises:
        InputError: a p2 file cannot be read.
        BusyError: another run is at work on a partition.
        ModbotError: a process of the crew died.
        StorageError: the disk refused.
    """
    if whole is None:
        (job,) = jobs
        found, document = _compare(job, crew, begun)
        return Compared(found=found, document=document, written=job.outputs.all)
    total = Found(jobs[0].form.count)
    for found in _days(jobs, crew, begun):
        total.add(found)
    with hold(whole.partition, HOLDER), writing(whole.diff[0]) as diff:
        rows(diff)(DIFF_COLUMNS)
        for job in jobs:
            append(job.outputs.diff[0], diff, without_header=True)
    return Compared(found=total, document=_finish(total, jobs[0], whole), written=whole.all)


def _days(jobs: Sequence[AbJob], crew: Crew, begun: Callable[[], None]) -> Iterator[Found]:
    if len(jobs) == 1 or not len(crew):
        for job in jobs:
            yield _compare(job, crew, begun)[0]
        return
    begun()
    with swept([path for job in jobs for path in job.outputs.all], crew):
        for job, found in zip(jobs, crew.do([_Day(job) for job in jobs]), strict=True):
            job.add_failures(found)
            yield found


def _compare(job: AbJob, crew: Crew, begun: Callable[[], None] = lambda: None) -> tuple[Found, Mapping[str, Any]]:
    """One day."""
    with hold(job.outputs.partition, HOLDER):
        begun()
        with writing(job.outputs.diff[0]) as diff:
            rows(diff)(DIFF_COLUMNS)
            found = _judge_in_parts(job, diff, crew) if len(crew) else _judge(job, diff)
        return found, _finish(found, job, job.outputs)


@dataclass(frozen=True)
class _Day:
    """The comparison of a day in another process."""

    job: AbJob

    def __call__(self) -> Found:
        leave_the_telling()
        return _compare(self.job, Crew())[0]


@dataclass(frozen=True)
class _Part:
    """The comparison of a part of the day in another process."""

    job: AbJob
    part: Part

    def __call__(self) -> Found:
        leave_the_telling()
        with self.part.writing() as files:
            return _judge(self.job, files["diff"], self.part.span)


def _judge_in_parts(job: AbJob, diff: Draft, crew: Crew) -> Found:
    total = Found(job.form.count)

    def add(found: Found) -> None:
        job.add_failures(found)
        total.add(found)

    judge_in_parts(p2_pieces(job.analysis), {"diff": diff}, crew, partial(_Part, job), add)
    return total


def _judge(job: AbJob, diff: BinaryIO, span: Span = WHOLE) -> Found:
    """Judges the records of a span by both, and writes those that differ."""
    found = Found(job.form.count)
    write_row = rows(diff)
    judge_a, judge_b = (book.judge(UNJUDGED) for book in job.books)
    for line_number, line in p2_lines(job.analysis, span):
        reading = read(line, line_number)
        a, b = judge_a(reading), judge_b(reading)
        found.count(a, b)
        if size := difference(a.outcome, b.outcome):
            apart = Difference(reading, a.outcome, b.outcome, size)
            _write_diff(write_row, apart)
            found.samples.add(apart)
    found.failures = tuple(book.ruleset.failures for book in job.books)
    return found


def _finish(found: Found, job: AbJob, outputs: AbOutputs) -> Mapping[str, Any]:
    """Writes what is known once all is judged: the comparison and the samples; and the further copies."""
    document = found.document(job.books)
    with writing(outputs.samples[0]) as out:
        out.writelines(sample(apart, job.form) for apart in found.samples.largest())
    for path in outputs.compare:
        write_bytes(path, encode_document(document))
    for first, *others in (outputs.diff, outputs.samples):
        for other in others:
            with writing(other) as out:
                append(first, out)
    return document


def skip_legacy(books: tuple[Rulebook, Rulebook], outputs: Sequence[AbOutputs]) -> Compared:
    """Writes only the comparison, with a note, and removes the diff and samples of an earlier run.

    Raises:
        BusyError: another run is at work on the partition.
        StorageError: the disk refused.
    """
    found = Found(0)
    document = found.document(books, note=LEGACY_NOTE)
    for each in outputs:
        with hold(each.partition, HOLDER):
            for path in each.compare:
                write_bytes(path, encode_document(document))
            for path in (*each.diff, *each.samples):
                with storage_errors(path):
                    path.unlink(missing_ok=True)
    return Compared(found=found, document=document, written=tuple(path for each in outputs for path in each.compare))


def difference(a: Outcome, b: Outcome) -> float:
    """How far two verdicts are apart: the steps of severity, 0.5 where only the rule differs, 0 where nothing does."""
    steps = abs(RANK[a.severity] - RANK[b.severity])
    return float(steps) or (RULE_ONLY if a.rule_id != b.rule_id else 0.0)


class Found:
    """What is counted on the way, in one process or several: verdicts, the rules of both sides, the differences.

    `sides` are A and B. `failures`: what each side could not evaluate, by the number of its site.
    """

    def __init__(self, samples: int) -> None:
        self.models: Counter[str] = Counter()
        self.sides = Side(), Side()
        self.samples = Largest(samples)
        self.failures: tuple[Counter[int], ...] = ()
        self._pairs: Counter[tuple[str, str]] = Counter()

    @property
    def total(self) -> int:
        return self._pairs.total()

    def count(self, a: Judged, b: Judged) -> None:
        if (model := a.reading.evidence.model) is not None:
            self.models[model] += 1
        self._pairs[a.outcome.severity, b.outcome.severity] += 1
        for side, judged in zip(self.sides, (a, b), strict=True):
            side.count(judged)

    def add(self, other: Found) -> None:
        """Adds what was found in records behind these."""
        self.models.update(other.models)
        self._pairs.update(other._pairs)
        self.samples.extend(other.samples)
        for side, added in zip(self.sides, other.sides, strict=True):
            side.add(added)

    def document(self, books: tuple[Rulebook, Rulebook], note: str | None = None) -> dict[str, Any]:
        a, b = (self._by_severity(side) for side in (0, 1))
        won_a, won_b = (side.won for side in self.sides)
        deltas = {rule: won_b[rule] - won_a[rule] for rule in sorted({*won_a, *won_b})}
        top = sorted((rule for rule, delta in deltas.items() if delta), key=lambda rule: -abs(deltas[rule]))
        overlap_a, overlap_b = (side.overlap(book) for side, book in zip(self.sides, books, strict=True))
        return {
            "total": self.total,
            "countsA": a,
            "countsB": b,
            "delta": {severity: b[severity] - a[severity] for severity in SEVERITIES},
            "confusion": {f"{x}->{y}": n for x in SEVERITIES for y in SEVERITIES if (n := self._pairs[x, y])},
            "top_rule_delta": {rule: deltas[rule] for rule in top[:TOP_DELTAS]},
            "modeA": books[0].mode,
            "modeB": books[1].mode,
            "note": note,
            "overlapA": overlap_a,
            "overlapB": overlap_b,
        }

    def _by_severity(self, side: Literal[0, 1]) -> dict[str, int]:
        found: Counter[str] = Counter()
        for pair, count in self._pairs.items():
            found[pair[side]] += count
        return {severity: found[severity] for severity in SEVERITIES}


class Side:
    """The rules of one side: how often each won, and which of them matched together."""

    def __init__(self) -> None:
        self.won: Counter[str] = Counter()
        self._matched: Counter[int] = Counter()
        self._together: Counter[tuple[int, int]] = Counter()

    def count(self, judged: Judged) -> None:
        if judged.outcome.rule_id is not None:
            self.won[judged.outcome.rule_id] += 1
        self._matched[judged.matched] += 1
        if len(self._matched) > MOST_COMBINATIONS:
            self._fold()

    def add(self, other: Side) -> None:
        self.won.update(other.won)
        self._matched.update(other._matched)
        self._together.update(other._together)
        self._fold()

    def _fold(self) -> None:
        """Counts pairs of rules instead of the combinations, of which there may be as many as records."""
        for mask, count in self._matched.items():
            rules = [place for place in range(mask.bit_length()) if mask >> place & 1]
            for pair in product(rules, rules):
                self._together[pair] += count
            if len(rules) == 1:
                self._together[rules[0], ALONE] += count
        self._matched.clear()

    def overlap(self, book: Rulebook) -> dict[str, dict[str, Any]]:
        """For each rule that matched: how often, how often it won, how often alone; who else matched with it most."""
        self._fold()
        ruleset = book.loaded.ruleset
        ids = () if ruleset is None else tuple(rule.id for rule in ruleset.rules)
        return {rule: self._shared(place, ids) for place, rule in enumerate(ids) if self._together[place, place]}

    def _shared(self, place: int, ids: Sequence[str]) -> dict[str, Any]:
        together = self._together
        others = [other for other in range(len(ids)) if other != place and together[place, other]]
        most = max(others, key=lambda other: together[place, other], default=None)
        matches = together[place, place]
        return {
            "matches": matches,
            "won": self.won[ids[place]],
            "alone": together[place, ALONE],
            "most_with": None if most is None else ids[most],
            "share": 0.0 if most is None else round(together[place, most] / matches, 4),
        }


class Largest:
    """The largest differences of a stream, ties in input order; never more than `count` in memory."""

    def __init__(self, count: int) -> None:
        self.seen = 0
        self._count = count
        self._heap: list[tuple[float, int, Difference]] = []

    def add(self, found: Difference) -> None:
        # Of equal sizes the later is the smaller; the running number keeps differences from being compared.
        entry = (found.size, -self.seen, found)
        self.seen += 1
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def extend(self, other: Largest) -> None:
        """Adds those of records behind these."""
        seen = self.seen
        for found in other.largest():
            self.add(found)
        self.seen = seen + other.seen

    def largest(self) -> list[Difference]:
        return [found for *_, found in sorted(self._heap, reverse=True)]


def _write_diff(write_row: WriteRow, found: Difference) -> None:
    evidence, a, b = found.reading.evidence, found.a, found.b
    rating = evidence.rating
    write_row(
        [
            cell(evidence.link),
            a.severity,
            b.severity,
            cell(a.rule_id),
            cell(b.rule_id),
            number(rating.get("questionable")),
            number(rating.get("explicit")),
            number(a.metrics.get("exposure_score")),
            number(a.metrics.get("nsfw_general_sum")),
            number(a.metrics.get("minors_peak")),
            number(a.metrics.get("gore_peak")),
            number(b.metrics.get("minors_peak")),
            number(b.metrics.get("gore_peak")),
            cell(evidence.sha256),
        ]
    )


def sample(found: Difference, form: SampleForm) -> bytes:
    """A difference as a line of the samples. Its record is as it stands: it may be too deep to be decoded again."""
    evidence = found.reading.evidence
    post = evidence.posts[0]
    told: dict[str, Any] = {
        "sha256": evidence.sha256,
        "message_link": evidence.link,
        "message_id": evidence.message_id or post.message_id,
        "channel_id": evidence.channel_id or post.channel_id,
        "author_id": evidence.author_id or post.author_id,
        "size": found.size,
        "A": _side(found.a, minimal=form.minimal),
        "B": _side(found.b, minimal=form.minimal),
        "scores": {
            "questionable": evidence.rating.get("questionable"),
            "explicit": evidence.rating.get("explicit"),
            "exposure_score": found.a.metrics.get("exposure_score"),
            "nsfw_general_sum": found.a.metrics.get("nsfw_general_sum"),
        },
    }
    if not form.minimal:
        told["record"] = msgspec.Raw(found.reading.line)
    line = encode_line(told)
    return redacted(line) if form.redact_urls else line


def _side(outcome: Outcome, *, minimal: bool) -> dict[str, Any]:
    verdict = {"severity": outcome.severity, "rule_id": outcome.rule_id, "rule_title": outcome.rule_title}
    if minimal:
        return {**verdict, "reasons": [shortened(reason) for reason in outcome.reasons[:SHORT_REASONS]]}
    metrics = {name: value for name, value in outcome.metrics.items() if name != "eval_ms"}
    return {**verdict, "reasons": outcome.reasons, "metrics": metrics}


def shortened(reason: str) -> str:
    """The reason, cut where it is long."""
    return reason if len(reason) <= SHORT_REASON else f"{reason[: SHORT_REASON - 1]}…"
