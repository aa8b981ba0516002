"""The records nearest to the thresholds: where a person's look is worth most."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modbot.files.atomic import writing
from modbot.files.lease import hold
from modbot.files.paths import Partition
from modbot.records.evidence import Evidence, read
from modbot.stages.judge import Signals
from modbot.stages.lines import p2_lines
from modbot.stages.sheet import cell, sheet

COLUMNS = (
    "message_link",
    "questionable",
    "explicit",
    "exposure",
    "distance",
    "nearest",
    "channel_id",
    "author_id",
    "sha256",
)
_DECIMALS = 9
"""Where two decimal numbers are as far apart as their difference in decimal: 0.37 is within 0.02 of 0.35."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What records are near to, and within what distance; scores are 0 to 1."""

    questionable: float = 0.35
    explicit: float = 0.20
    exposure: float = 0.30
    eps: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Uncertain:
    """A record near a threshold. `nearest` names it, `distance` is to it."""

    evidence: Evidence
    questionable: float
    explicit: float
    exposure: float
    distance: float
    nearest: str


@dataclass(frozen=True)
class Sampled:
    """`near`: records within the distance, `written`: the nearest of them, `unscored`: records without scores."""

    path: Path
    near: int
    written: int
    unscored: int


def sample_uncertain(
    partition: Partition,
    thresholds: Thresholds,
    top: int,
    signals: Signals,
    *,
    analysis: Path | None = None,
    out: Path | None = None,
) -> Sampled:
    """Writes the `top` records of the day (or of `analysis`) that are nearest to a threshold; ties in input order.

    `out`: a CSV in another place than the partition's.

    Raises:
        InputError: the p2 file cannot be read.
        BusyError: another run is at work on the day.
        StorageError: the disk refused.
    """
    seen = _Seen()
    path = out or partition.uncertain
    with hold(partition, "modbot uncertain"):
        near = seen.near(analysis or partition.merged("p2"), thresholds, signals)
        # nsmallest is stable and keeps no more than `top` at a time.
        nearest = heapq.nsmallest(top, near, key=lambda found: found.distance)
        with writing(path) as draft:
            write_row = sheet(draft, COLUMNS)
            for found in nearest:
                write_row(_row(found))
    return Sampled(path, seen.count, len(nearest), seen.unscored)


class _Seen:
    def __init__(self) -> None:
        self.count = 0
        self.unscored = 0

    def near(self, analysis: Path, thresholds: Thresholds, signals: Signals) -> Iterator[Uncertain]:
        """The records of the file that are within the distance of a threshold."""
        for number, line in p2_lines(analysis):
            evidence = read(line, number).evidence
            if evidence.error is not None or not evidence.rating:
                self.unscored += 1
                continue
            found = measure(evidence, thresholds, signals)
            if found.distance <= thresholds.eps:
                self.count += 1
                yield found


def measure(evidence: Evidence, thresholds: Thresholds, signals: Signals) -> Uncertain:
    """How far the record is from the threshold that it is nearest to."""
    questionable = evidence.rating.get("questionable", 0.0)
    explicit = evidence.rating.get("explicit", 0.0)
    exposure = (evidence.signals or signals(evidence, evidence.tags()))["exposure_score"]
    distances = {
        "questionable": abs(questionable - thresholds.questionable),
        "explicit": abs(explicit - thresholds.explicit),
        "exposure": abs(exposure - thresholds.exposure),
    }
    nearest = min(distances, key=lambda name: distances[name])
    return Uncertain(
        evidence=evidence,
        questionable=questionable,
        explicit=explicit,
        exposure=exposure,
        distance=round(distances[nearest], _DECIMALS),
        nearest=nearest,
    )


def _row(found: Uncertain) -> list[str]:
    evidence = found.evidence
    post = evidence.posts[0]
    numbers = (found.questionable, found.explicit, found.exposure, found.distance)
    return [
        cell(evidence.link),
        *(f"{value:.6f}" for value in numbers),
        found.nearest,
        cell(evidence.channel_id or post.channel_id),
        cell(evidence.author_id or post.author_id),
        cell(evidence.sha256),
    ]
