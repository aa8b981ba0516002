"""Calibration of the four ratings: one temperature for each, fitted to what a moderator says of the same images.

A score is taken as the probability that the rating is the image's. Its logit is divided by the rating's temperature:
above 1 the scores move towards a half, below 1 away from it, and their order stays (Guo et al. 2017, "On Calibration
of Modern Neural Networks", for one probability at a time). A score of exactly 0 or 1 says that the model does not give
this rating at all, and stays.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from modbot.errors import InputError
from modbot.files.yaml_files import NotYamlError, load_yaml, read_limited
from modbot.records import jsonl
from modbot.records.p1 import Calibrated, Rating, Wd14
from modbot.words import counted

RATINGS = Rating.__struct_fields__
LEAST_OF_EACH = 10
"""Images with a rating, and without it, that a temperature needs; fewer say more of themselves than of the model.

Those whose score is exactly 0 or 1 do not count."""

BINS = 10
_LOWEST, _HIGHEST = 0.1, 10.0
_EDGE = 5e-7
"""Half of a record's last decimal: what 0.000001 less may have been."""

_MAX_BYTES = 1024**2
_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 60

Temperature = Annotated[float, msgspec.Meta(ge=_LOWEST, le=_HIGHEST)]
Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]


class Temperatures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A temperature for each rating; 1 changes nothing."""

    general: Temperature
    sensitive: Temperature
    questionable: Temperature
    explicit: Temperature


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Temperatures, the model and revision that they were fitted to, the file that says so, and its sha256."""

    model: str
    revision: str
    temperatures: Temperatures
    file: str
    digest: str

    def check(self, model: str, revision: str) -> None:
        """Raises InputError if it was fitted to another model or revision."""
        if (self.model, self.revision) != (model, revision):
            raise InputError(
                f"is of {self.model} {self.revision}, the tagger is {model} {revision}",
                where=self.file,
                remedy="Fit one to this tagger's own scores: modbot models calibrate --labels CSV.",
            )

    def apply(self, wd14: Wd14) -> Wd14:
        """The same record with calibrated ratings, which says so and keeps the model's own."""
        raw = wd14.rating
        temperatures = msgspec.structs.asdict(self.temperatures)
        rating = Rating(**{name: cooled(getattr(raw, name), temperatures[name]) for name in RATINGS})
        note = Calibrated(digest=self.digest, temperatures=temperatures, rating=raw)
        return msgspec.structs.replace(wd14, rating=rating, calibration=note)


def cooled(score: float, temperature: float) -> float:
    """A score with its logit divided by the temperature; 6 decimals. Never the order of two scores the other way."""
    if not 0 < score < 1 or temperature == 1:
        return score
    return jsonl.score(1 / (1 + ((1 - score) / score) ** (1 / temperature)))


@dataclass(frozen=True)
class Bin:
    """The images whose score is within `low` to `high`: their mean score, and the share that has the rating."""

    low: float
    high: float
    count: int
    mean: float
    share: float


@dataclass(frozen=True)
class Quality:
    """How well scores fit the labels: negative log likelihood and expected calibration error, and the table of it."""

    nll: float
    ece: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Fit:
    """One rating's temperature; `too_few`: why it was not fitted, and is 1."""

    temperature: float
    positives: int
    negatives: int
    before: Quality
    after: Quality
    too_few: str | None = None

    @property
    def is_highest(self) -> bool:
        """Whether a still higher temperature would fit better: scores all too high or low, or without a meaning."""
        return self.temperature >= _HIGHEST

    @property
    def is_lowest(self) -> bool:
        """Whether a still lower temperature would fit better: these labels are told apart without a doubt."""
        return self.temperature <= _LOWEST


def fit(scores: Scores, labels: Labels) -> Fit:
    """The temperature of least negative log likelihood, within 0.1 to 10.

    Args:
        scores: of one rating, float64 [images], 0 to 1.
        labels: whether the image has the rating, [images].
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    before = quality(scores, labels)
    given = (scores > 0) & (scores < 1)
    if not given.any():
        return Fit(1.0, positives, negatives, before, before, "the model does not give it")
    # What no temperature moves says nothing of it either: of the others, there have to be enough of each.
    having, lacking = int(labels[given].sum()), int((~labels[given]).sum())
    if min(having, lacking) < LEAST_OF_EACH:
        but = "" if given.all() else "scores of 0 and 1 not counted, "
        few = f"{but}{counted(having, 'image')} with it, {lacking} without: {LEAST_OF_EACH} of each are needed"
        return Fit(1.0, positives, negatives, before, before, few)
    temperature = _least(_logits(scores[given]), labels[given])
    return Fit(temperature, positives, negatives, before, quality(heated(scores, temperature), labels))


def heated(scores: Scores, temperature: float) -> Scores:
    """As `cooled`, of many."""
    return np.array([cooled(score, temperature) for score in scores.tolist()], dtype=np.float64)


def quality(scores: Scores, labels: Labels) -> Quality:
    """How well scores fit the labels, over ten bins of equal width."""
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins = tuple(
        Bin(i / BINS, (i + 1) / BINS, int(of.sum()), float(scores[of].mean()), float(labels[of].mean()))
        for i in range(BINS)
        if (of := places == i).any()
    )
    ece = sum(each.count * abs(each.mean - each.share) for each in bins) / len(scores)
    return Quality(nll=_nll(_logits(scores), labels, 1.0), ece=ece, bins=bins)


def _logits(scores: Scores) -> Scores:
    clipped = np.clip(scores, _EDGE, 1 - _EDGE)
    return np.log(clipped) - np.log1p(-clipped)


def _nll(logits: Scores, labels: Labels, temperature: float) -> float:
    signed = np.where(labels, logits, -logits) / temperature
    return float(np.logaddexp(0, -signed).mean())


def _least(logits: Scores, labels: Labels) -> float:
    """The temperature of the least NLL by golden section: in 1 / temperature the NLL is convex."""
    low, high = 1 / _HIGHEST, 1 / _LOWEST
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if _nll(logits, labels, 1 / left) <= _nll(logits, labels, 1 / right):
            high = right
        else:
            low = left
    return min(max(round(2 / (low + high), 6), _LOWEST), _HIGHEST)


def fit_all(ratings: Sequence[Rating], labels: Sequence[str]) -> dict[str, Fit]:
    """A fit for each rating. `labels`: the name of the rating that each image has."""
    said = np.array(labels)
    return {
        name: fit(np.array([getattr(each, name) for each in ratings], dtype=np.float64), said == name)
        for name in RATINGS
    }


def document(model: str, revision: str, fits: Mapping[str, Fit], labels: int) -> bytes:
    """The file of a calibration: what is applied, and for people what it rests on."""
    content = {
        "model": model,
        "revision": revision,
        "temperatures": {name: each.temperature for name, each in fits.items()},
        "fitted": {
            "labels": labels,
            **{
                name: {
                    "nll": [round(each.before.nll, 6), round(each.after.nll, 6)],
                    "ece": [round(each.before.ece, 6), round(each.after.ece, 6)],
                    "with": each.positives,
                    "without": each.negatives,
                }
                for name, each in fits.items()
            },
        },
    }
    head = "# Made by `modbot models calibrate`; used by `modbot tag --calibration`. Pairs: before, after.\n"
    return (head + yaml.safe_dump(content, sort_keys=False)).encode()


class _File(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    revision: str
    temperatures: Temperatures
    fitted: object = None


def read_calibration(path: Path) -> Calibration:
    """The calibration that a file holds.

    Raises:
        InputError: it cannot be read, or is no calibration; the file and the key are named.
    """
    remedy = "Make it anew: modbot models calibrate --labels CSV."
    try:
        source = read_limited(path, _MAX_BYTES)
        found = msgspec.convert(load_yaml(source), _File)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path), remedy=remedy) from None
    except (NotYamlError, msgspec.ValidationError) as error:
        what = f"is no calibration ({' '.join(str(error).split())[:200]})"
        raise InputError(what, where=str(path), remedy=remedy) from None
    return Calibration(
        model=found.model,
        revision=found.revision,
        temperatures=found.temperatures,
        file=str(path),
        digest=hashlib.sha256(source).hexdigest(),
    )
