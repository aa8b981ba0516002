"""Files that a reader sees whole or not at all: written beside their place, synced, renamed.

Several runs may write the same file at once: each writes `NAME.<process table>.<pid>.<start>.<number>.tmp`, the last
to end wins, and what a killed run left is removed by the next that writes the same file.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter, FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from modbot.errors import StorageError
from modbot.files.processes import lives, owner

TMP_SUFFIX = ".tmp"

BUFFER_BYTES = 1024 * 1024
"""Large, because on a network volume every write is a round trip."""

ABANDONED_S = 86_400.0
"""A temporary file of another machine that has not grown for this long is nobody's."""

_numbers = itertools.count()

_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space and run the same command again: what was finished is kept."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space and run the same command again."),
    errno.EROFS: ("the disk is read-only", "Mount it writable, or set OUT_DIR and CACHE_DIR to folders that are."),
    errno.EACCES: ("not allowed to write here", "Change the folder's owner or mode, or name another folder."),
    errno.EPERM: ("not allowed to write here", "Change the folder's owner or mode, or name another folder."),
    errno.ENOTDIR: ("a part of the path is a file", "Move that file away, or name another folder."),
    errno.EEXIST: ("a file of that name is in the way of the folder", "Move it away, or name another folder."),
    errno.EISDIR: ("there is a folder of that name", "Move that folder away, or name another file."),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter name."),
}


@contextmanager
def storage_errors(where: Path | str) -> Iterator[None]:
    """Translates what the disk refuses into `StorageError`, which names `where`, the cause and the way out."""
    try:
        yield
    except OSError as error:
        what, remedy = _REASONS.get(error.errno or 0, (f"cannot be written ({error.strerror or error})", None))
        raise StorageError(what, where=str(error.filename2 or error.filename or where), remedy=remedy) from error


def tmp_of(path: Path) -> Path:
    """Where bytes of `path` lie until they are complete: a new name for each call, which tells whose it is."""
    return path.with_name(f"{path.name}.{owner()}.{next(_numbers)}{TMP_SUFFIX}")


class _Raw(FileIO):
    """A new file; what the disk refuses it is told as `path`'s."""

    def __init__(self, tmp: Path, path: Path) -> None:
        self._path = path
        super().__init__(tmp, "xb")

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - a buffer, which has a type from Python 3.12 on
        with storage_errors(self._path):
            return super().write(data)

    def close(self) -> None:
        with storage_errors(self._path):
            super().close()


class Draft(BufferedWriter):
    """A file on its way to `path`, which may be changed to another name of the same folder before the end."""

    def __init__(self, tmp: Path, path: Path) -> None:
        super().__init__(_Raw(tmp, path), BUFFER_BYTES)
        self.path = path


@contextmanager
def writing(path: Path) -> Iterator[Draft]:
    """A binary file that becomes its `path` when the block ends well, and is removed when it does not.

    Raises:
        StorageError: the disk refused this file; an OSError of the block's own goes through as it is.
    """
    tmp = tmp_of(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Draft(tmp, path)
    try:
        with draft:
            with storage_errors(path):
                _sweep(path, now=tmp.stat().st_mtime)
            yield draft
        with storage_errors(draft.path):
            publish(tmp, draft.path)
    except BaseException:
        with storage_errors(path):
            tmp.unlink(missing_ok=True)
        raise


def sweep(path: Path) -> None:
    """Removes at once what processes of this machine that were killed left of `path`. Raises StorageError."""
    with storage_errors(path):
        if path.parent.is_dir():
            _sweep(path, now=-math.inf)


def _sweep(path: Path, *, now: float) -> None:
    """Removes what dead runs left of `path`. `now`: see `is_abandoned`."""
    left = re.compile(rf"{re.escape(path.name)}\.(\w+\.\d+\.\w+)\.\d+{re.escape(TMP_SUFFIX)}", re.ASCII)
    for other in path.parent.iterdir():
        if (found := left.fullmatch(other.name)) and is_abandoned(other, found[1], now=now):
            other.unlink(missing_ok=True)


def is_abandoned(tmp: Path, name: str | None, *, now: float, after: float = ABANDONED_S) -> bool:
    """Whether the temporary file of the process that `owner()` gave this name is nobody's any more.

    `name` None: it tells of no process. `now`: by the clock that stamps the files there, which need not be this
    machine's (`disk_time`). `after`: seconds without a change after which another machine's is nobody's.
    """
    alive = None if name is None else lives(name)
    if alive is not None:
        return not alive
    try:
        return now - tmp.stat().st_mtime > after
    except FileNotFoundError:
        return False


def disk_time(folder: Path) -> float:
    """Now, by the clock that stamps the files in `folder`."""
    # Without a name, where the disk can do that; elsewhere by one that is swept if this process is killed.
    with TemporaryFile(prefix=f"{owner()}.", suffix=TMP_SUFFIX, dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


def write_all(file: FileIO, data: bytes) -> None:
    """Writes the whole of `data`: a raw file may take less at once."""
    written = 0
    while written < len(data):
        written += file.write(data[written:])


def write_bytes(path: Path, data: bytes) -> None:
    """Makes `path` hold `data`, whole or not at all."""
    with writing(path) as out:
        out.write(data)


def publish(tmp: Path, path: Path) -> None:
    """Syncs `tmp`, renames it to `path`, syncs the folder: from here on `path` survives a power cut."""
    sync_file(tmp)
    tmp.rename(path)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Waits until the file's bytes are on disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Waits until the folder's entries are on disk; a file system that cannot is taken as it is."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(fd)
