"""Fits the ratings of p1 to what a moderator says of the same images."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from modbot.errors import InputError
from modbot.files.atomic import write_bytes
from modbot.files.outputs import refuse_clashes
from modbot.models.calibration import RATINGS, Fit, document, fit_all
from modbot.records import jsonl
from modbot.records.p1 import Rating, Wd14
from modbot.stages.lines import numbered_lines
from modbot.words import counted

LEAST_LABELS = 50

_P1_REMEDY = "Tag the day first, or name another file: modbot tag, --p1 FILE."


class CalibrateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is fitted to what. `labels`: the moderator's CSV; `sources`: p1 files; `model`: whose scores count."""

    labels: Path
    sources: tuple[Path, ...]
    model: str
    out: Path


class CalibrateSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `used`: images that were labelled and have scores; `missing`: labels that found none."""

    fits: dict[str, Fit]
    revision: str
    used: int
    missing: int
    out: Path


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a moderator says of an image, named by its digest or by the message that shows it. `line` of the CSV."""

    image: str
    rating: str
    line: int


class _Message(msgspec.Struct):
    message_link: str | None = None


class _Scored(msgspec.Struct):
    sha256: str | None = None
    messages: list[_Message] = []
    wd14: Wd14 | None = None


def calibrate(request: CalibrateRequest) -> CalibrateSummary:
    """Fits temperatures, and writes them.

    Raises:
        InputError: a file that cannot be read or used, or too few labels that have scores.
        StorageError: the disk refused.
    """
    reads = [("--labels", request.labels), *(("--p1", source) for source in request.sources)]
    refuse_clashes(reads, [("--out", request.out)])
    labels = read_labels(request.labels)
    scored = _scores(request.sources, request.model, {label.image for label in labels})
    found = [label for label in labels if label.image in scored]
    # Two links may show one image.
    distinct = _distinct(found, lambda label: scored[label.image][0], request.labels)
    paired = [(scored[label.image][1], label.rating) for label in distinct]
    where = str(request.labels)
    if len(paired) < LEAST_LABELS:
        have = f"{len(paired)} of its {counted(len(labels), 'label')} have scores of {request.model}"
        what = f"{have}; {LEAST_LABELS} are needed"
        remedy = "Label more images, or name more days' files with --p1."
        if not paired and (others := _other_models(request)):
            remedy = f"p1 has scores of {', '.join(others)}: name the model with --model."
        raise InputError(what, where=where, remedy=remedy)
    revisions = {wd14.revision for wd14, _ in paired}
    if len(revisions) > 1:
        what = f"the scores are of {len(revisions)} revisions of {request.model}: {', '.join(sorted(revisions))}"
        raise InputError(what, where=str(request.sources[0]), remedy="Name p1 files of one revision with --p1.")
    fits = fit_all([_raw(wd14) for wd14, _ in paired], [rating for _, rating in paired])
    if all(fit.too_few for fit in fits.values()):
        reasons = "; ".join(f"{name}: {fit.too_few}" for name, fit in fits.items())
        raise InputError(f"nothing can be fitted ({reasons})", where=where, remedy="Label more images of each rating.")
    (revision,) = revisions
    write_bytes(request.out, document(request.model, revision, fits, len(paired)))
    return CalibrateSummary(
        fits=fits, revision=revision, used=len(paired), missing=len(labels) - len(found), out=request.out
    )


def _other_models(request: CalibrateRequest) -> list[str]:
    """The models whose scores p1 has, without the one that was asked for."""
    return sorted({record.wd14.model for record in _records(request.sources) if record.wd14} - {request.model})


def _raw(wd14: Wd14) -> Rating:
    """The model's own ratings, also where the record has calibrated ones."""
    return wd14.rating if wd14.calibration is msgspec.UNSET else wd14.calibration.rating


def read_labels(path: Path) -> list[Label]:
    """A moderator's labels: CSV with the column `rating`, and `sha256` or `message_link`; further ones are ignored.

    Raises:
        InputError: it cannot be read, or a row says what cannot be used; file and line are named.
    """
    remedy = f"Columns: sha256 or message_link, and rating ({', '.join(RATINGS)})."
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            columns = set(rows.fieldnames or ())
            if "rating" not in columns or not columns & {"sha256", "message_link"}:
                raise InputError("has no columns of labels", where=str(path), remedy=remedy)
            labels = list(_labels(path, rows, remedy))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path), remedy=remedy) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"is no CSV ({error})", where=str(path), remedy=remedy) from None
    return _distinct(labels, lambda label: label.image, path)


def _distinct(labels: Iterable[Label], key: Callable[[Label], str], path: Path) -> list[Label]:
    """The first label of each image. Raises InputError where two labels of one say different things."""
    said: dict[str, Label] = {}
    for label in labels:
        first = said.setdefault(key(label), label)
        if first.rating != label.rating:
            what = f"{label.image} is {label.rating} here and {first.rating} in line {first.line}"
            raise InputError(what, where=f"{path}, line {label.line}", remedy="Keep one of the two.")
    return list(said.values())


def _labels(path: Path, rows: csv.DictReader[str], remedy: str) -> Iterator[Label]:
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        image = (row.get("sha256") or "").strip().lower() or (row.get("message_link") or "").strip()
        rating = (row["rating"] or "").strip().lower()
        if not image or rating not in RATINGS:
            what = f"image {image!r}, rating {rating!r} are no label"
            raise InputError(what, where=where, remedy=remedy)
        yield Label(image=image, rating=rating, line=rows.line_num)


def _scores(sources: Sequence[Path], model: str, wanted: set[str]) -> dict[str, tuple[str, Wd14]]:
    """The digests and scores of the images that labels name, by what they are named by.

    A message that shows several images names none of them.
    """
    by_image: dict[str, tuple[str, Wd14]] = {}
    by_message: dict[str, dict[str, Wd14]] = {}
    for record in _records(sources):
        if record.wd14 is None or record.sha256 is None or record.wd14.model != model:
            continue
        if record.sha256 in wanted:
            by_image[record.sha256] = record.sha256, record.wd14
        for message in record.messages:
            if message.message_link is not None and message.message_link in wanted:
                by_message.setdefault(message.message_link, {})[record.sha256] = record.wd14
    return by_image | {link: next(iter(of.items())) for link, of in by_message.items() if len(of) == 1}


def _records(sources: Iterable[Path]) -> Iterator[_Scored]:
    for source in sources:
        for number, line in numbered_lines(source, what="p1", remedy=_P1_REMEDY):
            try:
                yield jsonl.decode(line, _Scored)
            except msgspec.MsgspecError as error:
                raise InputError(f"is no p1 record ({error})", where=f"{source}, line {number}") from None
