"""The report CSV: one row a finding, from the scan as it judges or from the findings it wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path

import msgspec

from modbot.errors import InputError
from modbot.files.atomic import writing
from modbot.files.lease import hold
from modbot.files.paths import Partition
from modbot.records.evidence import RATINGS, Evidence, read
from modbot.records.finding import REPORT_COLUMNS, Outcome, Severity
from modbot.records.jsonl import decode
from modbot.stages.lines import numbered_lines
from modbot.stages.sheet import cell, flag, joined, number, numbers, sheet

TOP = 10
_SIGNALS = ("exposure_score", "placement_risk_pre", "nsfw_margin", "nsfw_ratio", "nsfw_general_sum")
_by_score = itemgetter(1)


def report_row(evidence: Evidence, tags: Mapping[str, float], outcome: Outcome) -> list[str]:
    """The cells of one finding, in the order of REPORT_COLUMNS. `tags`: `evidence.tags()`."""
    rating, signal = evidence.rating.get, outcome.metrics.get
    detections = [(found.class_, found.score) for found in evidence.detections]
    posts = evidence.posts
    link = evidence.message_link or posts[0].message_link
    author = evidence.author_id or posts[0].author_id
    several = len(posts) > 1
    return [
        outcome.severity,
        cell(outcome.rule_id),
        cell(outcome.rule_title),
        cell(link),
        cell(author),
        flag(evidence.channel_is_nsfw),
        *numbers(map(rating, RATINGS)),
        scored(_top_tags(tags)),
        scored(top(detections)) if detections else "",
        *numbers(map(signal, _SIGNALS)),
        scored(signal("violence_tags") or ()),
        number(signal("animals_sum")),
        joined(outcome.reasons),
        str(len(evidence.messages)),
        others([post.message_link for post in posts], link) if several else "",
        others([post.author_id for post in posts], author) if several else "",
        cell(evidence.sha256),
    ]


def _top_tags(tags: Mapping[str, float]) -> Iterable[tuple[str, float]]:
    scores = list(tags.values())
    # The tagger leaves them in order, mostly.
    return islice(tags.items(), TOP) if scores == sorted(scores, reverse=True) else top(tags.items())


def top(pairs: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """The 10 pairs with the highest scores, ties in their order."""
    return sorted(pairs, key=_by_score, reverse=True)[:TOP]


def scored(pairs: Iterable[tuple[str, float]]) -> str:
    """`name:0.93 | …`."""
    return joined([f"{name}:{score:.2f}" for name, score in pairs])


def others(values: Iterable[str | None], first: str | None) -> str:
    """The distinct values but the first, in order."""
    return joined(dict.fromkeys(value for value in values if value and value != first))


@dataclass(frozen=True)
class ReportFiles:
    """Where a report goes: `whole` if it has every finding, else `part`."""

    whole: Path
    part: Path


@dataclass(frozen=True)
class Written:
    """What a report holds: rows written, findings left out by the filter."""

    path: Path
    rows: int
    left_out: int


def report_files(partition: Partition, *, findings: Path | None = None, out: Path | None = None) -> ReportFiles:
    """Where the report of a findings file goes: `out`, else beside `findings`, else the partition's place."""
    if out is not None:
        return ReportFiles(out, out)
    whole = partition.report if findings is None else report_beside(findings)
    return ReportFiles(whole, part_of(whole))


def report_beside(findings: Path) -> Path:
    """Where the report of findings lies that are not in their partition's place."""
    return findings.with_name(f"{findings.stem}.report.csv")


def part_of(path: Path) -> Path:
    """The name of what holds only a part of the day."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


def write_report(
    partition: Partition, severities: frozenset[Severity], *, findings: Path | None = None, out: Path | None = None
) -> Written:
    """Writes the report of the day's findings, or of those that `findings` names; `severities` picks, empty takes all.

    Raises:
        InputError: no such file, or a line that is no finding (named by its number).
        BusyError: another run is at work on the day.
        StorageError: the disk refused.
    """
    with hold(partition, "modbot report"):
        files = report_files(partition, findings=findings, out=out)
        return _write_report(findings or partition.findings, files, severities)


def _write_report(findings: Path, files: ReportFiles, severities: frozenset[Severity]) -> Written:
    rows = left_out = 0
    with writing(files.whole) as draft:
        write_row = sheet(draft, REPORT_COLUMNS)
        lines = numbered_lines(findings, what="the findings", remedy="Run the scan first: modbot scan")
        for line_number, line in lines:
            outcome = read_outcome(line, findings, line_number)
            if severities and outcome.severity not in severities:
                left_out += 1
                continue
            evidence = read(line, line_number).evidence
            write_row(report_row(evidence, evidence.tags(), outcome))
            rows += 1
        if left_out:
            draft.path = files.part
    return Written(draft.path, rows, left_out)


def read_outcome(line: bytes, path: Path, line_number: int) -> Outcome:
    """What p3 added to a finding. Raises InputError that names the line and the key."""
    try:
        return decode(line, Outcome)
    except msgspec.DecodeError as error:
        raise InputError(
            f"line {line_number} is no finding ({error})",
            where=str(path),
            remedy="Write the findings anew: modbot scan",
        ) from None
