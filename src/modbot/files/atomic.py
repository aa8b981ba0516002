"""Files that a reader sees whole or not at all: written beside their place, synced, renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from modbot.errors import StorageError

TMP_SUFFIX = ".tmp"

_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space and run the same command again: what was finished is kept."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space and run the same command again."),
    errno.EROFS: ("the disk is read-only", "Mount it writable, or set OUT_DIR and CACHE_DIR to folders that are."),
    errno.EACCES: ("not allowed to write here", "Change the folder's owner or mode, or name another folder."),
    errno.EPERM: ("not allowed to write here", "Change the folder's owner or mode, or name another folder."),
    errno.ENOTDIR: ("a part of the path is a file", "Move that file away, or name another folder."),
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
        raise StorageError(what, where=str(error.filename or where), remedy=remedy) from error


def tmp_of(path: Path) -> Path:
    """Where the bytes of `path` lie until they are complete."""
    return path.with_name(path.name + TMP_SUFFIX)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends well, and is removed when it does not.

    Raises:
        StorageError: the disk refused.
    """
    tmp = tmp_of(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with tmp.open("wb") as out:
                yield out
            publish(tmp, path)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise


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
