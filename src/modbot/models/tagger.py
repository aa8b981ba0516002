"""Taggers: one picture in, one row of scores out, and what the record says of it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from modbot.errors import ModelError
from modbot.models import registry
from modbot.models.execution import Execution
from modbot.models.preparation import Pixels, Preparation, SqueezedJpeg, WhiteSquare
from modbot.models.providers import Array, Session, open_session
from modbot.models.sessions import Input
from modbot.records import jsonl
from modbot.records.p1 import RAW_TAGS, Rating, TagScore, Wd14
from modbot.records.tags import normalise
from modbot.words import counted

OPEN_NSFW = "open_nsfw"


class Tagger(Protocol):
    """A model that rates pictures, and perhaps tags them.

    `revision` names the weights, `input_size` the side of its input in pixels. `provider` is what runs, `warnings`
    one line for each provider that was asked for and did not start. Without `has_tags` it gives ratings only.
    `batch` is how many pictures are best scored at once; a device whose memory does not hold them halves it, which
    `halved` counts; for `busy_seconds` it was at work. `lanes`: in how many threads at once `scores` may be called.
    """

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def input_size(self) -> int: ...
    @property
    def provider(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def has_tags(self) -> bool: ...
    @property
    def batch(self) -> int: ...
    @property
    def halved(self) -> int: ...
    @property
    def busy_seconds(self) -> float: ...
    @property
    def lanes(self) -> int: ...

    @property
    def preparation(self) -> Preparation:
        """What becomes of a picture before it is scored."""
        ...

    def scores(self, batch: Sequence[Pixels]) -> Array:
        """One row of scores per prepared picture, float32 [N, outputs], 0 to 1. On a CPU no row depends on its batch.

        A row that is not finite (`numpy.isfinite`) throughout comes of a model or a provider that is broken: the caller
        takes it for an inference that failed, and asks neither `describe` nor `badness` about it.
        """
        ...

    def describe(self, row: Array, *, keep: Callable[[str], bool], frame: int = 0) -> Wd14:
        """What the record says of a row: ratings, tags above their thresholds, and `general_raw`.

        The latter has the highest tags and those whose normalised name `keep` accepts. Hand in the same function for
        all images: it is asked once about each tag, and its answers are kept.
        """
        ...

    def badness(self, row: Array) -> float:
        """How bad the picture is, 0 to 1: the worst frame stands for an animation."""
        ...


def open_tagger(
    name: str, *, models_dir: Path, provider: str = "auto", tell: registry.Tell = registry.to_stderr
) -> Tagger:
    """The tagger of that name, ready to run. The weights of `open_nsfw` are fetched if they are not there yet.

    Raises:
        ModelError: it is not on disk, or is not the model that was pinned, or no tagger.
        SettingError: no such provider.
    """
    return load_tagger(registry.locate(name, models_dir, kind="tagger", tell=tell), Execution(provider=provider))


def load_tagger(model: registry.Installed, execution: Execution, *, fast: bool = False) -> Tagger:
    """A tagger that was checked already, perhaps by another process, ready to run; its weights are not read twice.

    `fast`: large JPEGs may be decoded to a part of their size.

    Raises:
        ModelError: it is no longer the one that was checked, or no tagger.
        SettingError: no such provider.
    """
    registry.recheck(model, kind="tagger")
    session = open_session(model.model, execution, digest=model.digest)
    kind: type[OpenNsfw | Wd14Tagger] = OpenNsfw if model.name == OPEN_NSFW else Wd14Tagger
    return kind(model, session, fast=fast)


class _OnSession:
    """What taggers have in common: the model on disk and the session that runs it."""

    def __init__(self, model: registry.Installed, session: Session, *, fast: bool = False) -> None:
        if len(session.outputs) != 2:  # noqa: PLR2004 - batch, scores
            raise ModelError(f"gives {session.outputs}; [batch, scores] is needed", where=str(model.model))
        self._session = session
        self.name = model.name
        self.revision = model.revision
        self.input_size = _input_size(model, session)
        self.provider = session.provider
        self.precision = session.precision
        self.warnings = session.warnings
        self.lanes = session.lanes
        self._fast = fast

    @property
    def batch(self) -> int:
        return self._session.batch

    @property
    def halved(self) -> int:
        return self._session.halved

    @property
    def busy_seconds(self) -> float:
        return self._session.busy_seconds

    def scores(self, batch: Sequence[Pixels]) -> Array:
        return np.stack(self._session.run(list(map(self._input, batch)))) if batch else np.zeros((0, 0), np.float32)

    def _input(self, pixels: Pixels) -> Input:
        """The model's input, [size, size, 3]; it is made float32 when it is put into a batch."""
        return pixels


class OpenNsfw(_OnSession):
    """Yahoo's open_nsfw: one score, how likely the picture is not safe for work."""

    has_tags = False
    _SQUEEZED = 256
    _MEAN_BGR = np.array([104, 117, 123], dtype=np.float32)
    _NSFW = 1

    @property
    def preparation(self) -> Preparation:
        return SqueezedJpeg(size=self._SQUEEZED, crop=self.input_size, fast=self._fast)

    def _input(self, pixels: Pixels) -> Input:
        return pixels - self._MEAN_BGR

    def describe(self, row: Array, *, keep: Callable[[str], bool], frame: int = 0) -> Wd14:  # noqa: ARG002 - no tags
        explicit = jsonl.score(row[self._NSFW])
        return Wd14(
            model=self.name,
            revision=self.revision,
            input_size=self.input_size,
            rating=Rating(general=jsonl.score(1 - explicit), sensitive=0.0, questionable=0.0, explicit=explicit),
            general=[],
            character=[],
            general_raw=[],
            frame=frame,
        )

    def badness(self, row: Array) -> float:
        return float(row[self._NSFW])


class Wd14Tagger(_OnSession):
    """A WD14 tagger: BGR float32 0 to 255 on a white square in, a probability for every row of its tag list out."""

    has_tags = True

    def __init__(self, model: registry.Installed, session: Session, *, fast: bool = False) -> None:
        super().__init__(model, session, fast=fast)
        self._tags = read_tags(model.tags)
        self._thresholds = model.thresholds
        outputs = session.outputs[-1]
        if outputs is None:
            blank = np.full((self.input_size, self.input_size, 3), 255, dtype=np.float32)
            outputs = session.run([blank])[0].size
        if outputs != len(self._tags.names):
            raise ModelError(
                f"the model has {counted(outputs, 'output')}, "
                f"{model.tags.name} has {counted(len(self._tags.names), 'tag')}",
                where=str(model.folder),
                remedy="Model and tag list have to be of the same release.",
            )
        self._kept = lru_cache(maxsize=4)(self._select)

    @property
    def preparation(self) -> Preparation:
        return WhiteSquare(size=self.input_size, fast=self._fast)

    def describe(self, row: Array, *, keep: Callable[[str], bool], frame: int = 0) -> Wd14:
        tags = self._tags
        # Rounded as the record shows them, so that thresholds and order are those that a reader of the record sees.
        rounded = np.rint(row.astype(np.float64) * 10**jsonl.SCORE_DECIMALS) / 10**jsonl.SCORE_DECIMALS
        ranked = tags.general[np.lexsort((tags.alphabetical[tags.general], -rounded[tags.general]))]
        kept = self._kept(keep)[ranked]
        kept[:RAW_TAGS] = True
        character = tags.character[np.lexsort((tags.alphabetical[tags.character], -rounded[tags.character]))]

        def pairs(indices: NDArray[np.intp]) -> list[TagScore]:
            return [(tags.names[i], score) for i, score in zip(indices, rounded[indices].tolist(), strict=True)]

        return Wd14(
            model=self.name,
            revision=self.revision,
            input_size=self.input_size,
            rating=Rating(**{name: float(rounded[i]) for name, i in tags.ratings.items()}),
            general=pairs(ranked[rounded[ranked] >= self._thresholds.general]),
            character=pairs(character[rounded[character] >= self._thresholds.character]),
            general_raw=pairs(ranked[kept]),
            frame=frame,
        )

    def badness(self, row: Array) -> float:
        # The larger of both would take a frame that is surely questionable for worse than one that is all but explicit.
        questionable, explicit = (row[self._tags.ratings[rating]] for rating in ("questionable", "explicit"))
        return float(explicit + questionable / 2) / 1.5

    def _select(self, keep: Callable[[str], bool]) -> NDArray[np.bool_]:
        return np.array([keep(normalise(name)) for name in self._tags.names], dtype=np.bool_)


class TagList(msgspec.Struct, frozen=True):
    """The outputs of a WD14 tagger.

    `names` of all, in the model's order; the indices of the `ratings`, by name, of the `general` tags and of the
    `character` tags; and each one's place in the `alphabetical` order.
    """

    names: list[str]
    ratings: dict[str, int]
    general: NDArray[np.intp]
    character: NDArray[np.intp]
    alphabetical: NDArray[np.intp]


_RATING, _GENERAL, _CHARACTER = "9", "0", "4"


def read_tags(path: Path) -> TagList:
    """Reads `selected_tags.csv`: tag_id, name, category (9 rating, 0 general, 4 character), count; one output a row.

    Raises:
        ModelError: there is no such file, or it is no such list; file and line are named.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"name", "category"} <= set(rows.fieldnames or ()):
                raise _bad_tags(path, "has no columns name and category")
            names, categories = _columns(path, rows)
    except FileNotFoundError:
        raise _bad_tags(path, "is missing") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _bad_tags(path, f"cannot be read ({error})") from None
    ratings = {names[i]: i for i, category in enumerate(categories) if category == _RATING}
    if set(ratings) != set(Rating.__struct_fields__):
        wanted = ", ".join(Rating.__struct_fields__)
        raise _bad_tags(path, f"has the ratings {', '.join(ratings) or 'none'}; {wanted} are needed")
    order = np.empty(len(names), dtype=np.intp)
    order[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return TagList(
        names=names,
        ratings=ratings,
        general=np.flatnonzero([category == _GENERAL for category in categories]),
        character=np.flatnonzero([category == _CHARACTER for category in categories]),
        alphabetical=order,
    )


def _columns(path: Path, rows: csv.DictReader[str]) -> tuple[list[str], list[str]]:
    names: list[str] = []
    categories: list[str] = []
    for row in rows:
        name, category = row["name"], row["category"]
        if not name or category not in {_RATING, _GENERAL, _CHARACTER}:
            raise _bad_tags(path, f"line {rows.line_num}: name {name!r}, category {category!r} are no tag")
        names.append(name)
        categories.append(category)
    return names, categories


def _bad_tags(path: Path, what: str) -> ModelError:
    return ModelError(what, where=str(path), remedy="It has to be the selected_tags.csv of the model's own release.")


def _input_size(model: registry.Installed, session: Session) -> int:
    """The side of the square input [N, side, side, 3]; where the model takes any, the one that the catalogue names."""
    shape = session.inputs
    side = (shape[1] if len(shape) == 4 else None) or model.input_size  # noqa: PLR2004 - batch, height, width, channels
    if side is None or shape[1:] not in {(side, side, 3), (None, None, 3)}:
        raise ModelError(f"takes {shape}; [batch, side, side, 3] is needed", where=str(model.model))
    if model.input_size not in {None, side}:
        what = f"takes pictures of {side} pixels, the catalogue says {model.input_size}"
        raise ModelError(what, where=str(model.model), remedy="Mend its input_size in configs/models.yaml.")
    return side
