"""A/B: the same records judged by two rules files in one pass; what differs, and by how much."""

from __future__ import annotations

import heapq
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from modbot.files.atomic import storage_errors, write_bytes, writing
from modbot.files.lease import hold
from modbot.files.paths import Partition
from modbot.records.evidence import Reading, read
from modbot.records.finding import DIFF_COLUMNS, RANK, SEVERITIES, Outcome
from modbot.records.jsonl import decode_any, encode_document, encode_line
from modbot.stages.judge import Judge
from modbot.stages.lines import numbered_lines
from modbot.stages.redact import redacted
from modbot.stages.sheet import WriteRow, cell, number, sheet

COMPARE_NAME = "p3_ab_compare.json"
DIFF_NAME = "p3_ab_diff.csv"
SAMPLES_NAME = "p3_ab_diff_samples.jsonl"
HOLDER = "modbot ab"
LEGACY_NOTE = "skipped due to legacy ruleset"

RULE_ONLY = 0.5
"""The size of a difference in the rule alone; one in severity is as large as the steps between."""

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
class Compared:
    """What an A/B run counted: records by tagger, and by the rule that decided them on each side."""

    total: int
    differing: int
    document: Mapping[str, Any]
    models: Counter[str]
    rules_a: Counter[str]
    rules_b: Counter[str]
    written: tuple[Path, ...] = ()


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


def compare(
    analyses: Iterable[Path],
    judges: tuple[Judge, Judge],
    modes: tuple[str, str],
    outputs: AbOutputs,
    form: SampleForm,
) -> Compared:
    """Judges every record by A and by B, and writes the comparison, the diff and the samples.

    Raises:
        InputError: a p2 file cannot be read.
        BusyError: another run is at work on the partition.
        StorageError: the disk refused.
    """
    with hold(outputs.partition, HOLDER):
        return _compare(analyses, judges, modes, outputs, form)


def _compare(
    analyses: Iterable[Path],
    judges: tuple[Judge, Judge],
    modes: tuple[str, str],
    outputs: AbOutputs,
    form: SampleForm,
) -> Compared:
    judge_a, judge_b = judges
    counts = _Counts()
    samples = _Largest(form.count)
    lines = chain.from_iterable(_lines(path) for path in analyses)
    with ExitStack() as stack:
        out = stack.enter_context(writing(outputs.samples[0]))
        write_row = sheet(stack.enter_context(writing(outputs.diff[0])), DIFF_COLUMNS)
        for line_number, line in lines:
            reading = read(line, line_number)
            a, b = judge_a(reading).outcome, judge_b(reading).outcome
            counts.add(reading, a, b)
            size = difference(a, b)
            if size:
                found = Difference(reading, a, b, size)
                _write_diff(write_row, found)
                samples.add(found)
        out.writelines(encode_line(sample(found, form)) for found in samples.largest())
    document = counts.document(modes)
    for path in outputs.compare:
        write_bytes(path, encode_document(document))
    for first, *others in (outputs.diff, outputs.samples):
        for other in others:
            _copy(first, other)
    return Compared(
        total=counts.total,
        differing=samples.seen,
        document=document,
        models=counts.models,
        rules_a=counts.rules_a,
        rules_b=counts.rules_b,
        written=(*outputs.compare, *outputs.diff, *outputs.samples),
    )


def skip_legacy(modes: tuple[str, str], outputs: AbOutputs) -> Compared:
    """Writes only the comparison, with a note, and removes the diff and samples of an earlier run.

    Raises:
        BusyError: another run is at work on the partition.
        StorageError: the disk refused.
    """
    counts = _Counts()
    document = counts.document(modes, note=LEGACY_NOTE)
    with hold(outputs.partition, HOLDER):
        for path in outputs.compare:
            write_bytes(path, encode_document(document))
        for path in (*outputs.diff, *outputs.samples):
            with storage_errors(path):
                path.unlink(missing_ok=True)
    return Compared(
        total=0,
        differing=0,
        document=document,
        models=counts.models,
        rules_a=counts.rules_a,
        rules_b=counts.rules_b,
        written=outputs.compare,
    )


def difference(a: Outcome, b: Outcome) -> float:
    """How far two verdicts are apart: the steps of severity, 0.5 where only the rule differs, 0 where nothing does."""
    steps = abs(RANK[a.severity] - RANK[b.severity])
    return float(steps) or (RULE_ONLY if a.rule_id != b.rule_id else 0.0)


def _lines(path: Path) -> Iterable[tuple[int, bytes]]:
    return numbered_lines(
        path, what="the p2 records", remedy="Analyze the day first (modbot analyze), or name them: --analysis"
    )


class _Counts:
    """Verdicts and rules of both sides, and whose scores they rest on."""

    def __init__(self) -> None:
        self.total = 0
        self.models: Counter[str] = Counter()
        self.rules_a: Counter[str] = Counter()
        self.rules_b: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str]] = Counter()

    def add(self, reading: Reading, a: Outcome, b: Outcome) -> None:
        self.total += 1
        if (model := reading.evidence.model) is not None:
            self.models[model] += 1
        self._pairs[a.severity, b.severity] += 1
        if a.rule_id is not None:
            self.rules_a[a.rule_id] += 1
        if b.rule_id is not None:
            self.rules_b[b.rule_id] += 1

    def document(self, modes: tuple[str, str], note: str | None = None) -> dict[str, Any]:
        a, b = (self._by_severity(side) for side in (0, 1))
        deltas = {rule: self.rules_b[rule] - self.rules_a[rule] for rule in sorted({*self.rules_a, *self.rules_b})}
        top = sorted((rule for rule, delta in deltas.items() if delta), key=lambda rule: -abs(deltas[rule]))
        return {
            "total": self.total,
            "countsA": a,
            "countsB": b,
            "delta": {severity: b[severity] - a[severity] for severity in SEVERITIES},
            "confusion": {f"{x}->{y}": n for x in SEVERITIES for y in SEVERITIES if (n := self._pairs[x, y])},
            "top_rule_delta": {rule: deltas[rule] for rule in top[:TOP_DELTAS]},
            "modeA": modes[0],
            "modeB": modes[1],
            "note": note,
        }

    def _by_severity(self, side: Literal[0, 1]) -> dict[str, int]:
        found: Counter[str] = Counter()
        for pair, count in self._pairs.items():
            found[pair[side]] += count
        return {severity: found[severity] for severity in SEVERITIES}


class _Largest:
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


def sample(found: Difference, form: SampleForm) -> dict[str, Any]:
    """A difference as the samples tell it."""
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
        told["record"] = decode_any(found.reading.line)
    return redacted(told) if form.redact_urls else told


def _side(outcome: Outcome, *, minimal: bool) -> dict[str, Any]:
    verdict = {"severity": outcome.severity, "rule_id": outcome.rule_id, "rule_title": outcome.rule_title}
    if minimal:
        return {**verdict, "reasons": [shortened(reason) for reason in outcome.reasons[:SHORT_REASONS]]}
    metrics = {name: value for name, value in outcome.metrics.items() if name != "eval_ms"}
    return {**verdict, "reasons": outcome.reasons, "metrics": metrics}


def shortened(reason: str) -> str:
    """The reason, cut where it is long."""
    return reason if len(reason) <= SHORT_REASON else f"{reason[: SHORT_REASON - 1]}…"


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as data, writing(target) as out:
        shutil.copyfileobj(data, out)
