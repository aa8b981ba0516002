"""The content store: every image once, under its digest, in a folder that several machines may share.

    images/<aa>/<sha256>               the bytes
    images/links/<aa>/<sha256 of key>  which digest an attachment's key had, as JSON
    images/tmp/<owner>.<random>.tmp    what is being written

Nothing is locked: files appear by rename, and each says nothing that could become untrue. The link is published
before its image, so a stored image is always one that will be found again; a link without its image is simply not
stored. Nothing is synced: what a power cut damages fails its digest, is removed by whoever reads it, and is fetched
again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Annotated, Self

import msgspec

from modbot.errors import InputError, StorageError
from modbot.files.atomic import TMP_SUFFIX, disk_time, is_abandoned, storage_errors, write_all
from modbot.files.processes import owner
from modbot.records.jsonl import decode

MAX_BYTES = 50_000_000
"""Of one image, where nothing else is said."""

ABANDONED_S = 3_600.0
"""A temporary file of another machine that has not grown for this long is nobody's: no fetch may last so long."""

USED_S = 3_600.0
"""An image's time is when it was last used, to an hour: to write it each time would cost a round trip to the disk."""

_TWO_DIGITS = re.compile("[0-9a-f]{2}")
_DIGEST = re.compile("[0-9a-f]{64}")
_TMP = re.compile(rf"(\w+\.\d+\.\w+)\.\w+{re.escape(TMP_SUFFIX)}", re.ASCII)


class TooLargeError(Exception):
    """More bytes than the limit that was given."""


class Stored(msgspec.Struct, frozen=True):
    """An image in the store: the hex digest of its bytes, and how many they are."""

    sha256: Annotated[str, msgspec.Meta(pattern=f"^{_DIGEST.pattern}$", max_length=64)]
    bytes: int


class Image(msgspec.Struct, frozen=True):
    """An image in the store, as its folder tells of it. `used`: when it last was, by the clock of the disk."""

    sha256: str
    bytes: int
    used: float


class Store:
    """The store below `cache_dir`. Its methods block on the disk.

    Raises:
        StorageError: from every method, when the disk refuses.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._root = cache_dir / "images"
        self._tmp = self._root / "tmp"
        self._owner = owner()
        with storage_errors(self._tmp):
            self._tmp.mkdir(parents=True, exist_ok=True)

    def find(self, key: str, *, thorough: bool = False) -> Stored | None:
        """The image that this key had, if one of its size is stored; `thorough`: and its bytes are what they were.

        An image that is found is used: its time says so, to an hour.
        """
        try:
            with open(self._link(key), "rb", buffering=0) as link:
                stored = decode(link.readall(), Stored)
            path = self._file(stored.sha256)
            found = os.stat(path)
            if found.st_size != stored.bytes or (thorough and not self.check(stored.sha256)):
                return None
            if time.time() - found.st_mtime > USED_S:
                _touch(path)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        except OSError as error:
            raise _unreadable(error, self._link(key)) from error
        return stored

    def check(self, sha256: str) -> bool:
        """Whether the stored bytes are what their digest says. Damaged ones are removed, to be fetched anew."""
        path = self.path(sha256)
        try:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                    return True
                damaged = os.fstat(file.fileno())
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unreadable(error, path) from error
        _remove(path, damaged)
        return False

    def read(self, sha256: str) -> bytes:
        """The bytes of a stored image. A damaged one is removed, so that the next fetch gets it anew.

        Raises:
            InputError: it is not there, or was no longer what its digest says.
        """
        path = self.path(sha256)
        try:
            with path.open("rb") as file:
                data = file.read()
                if hashlib.sha256(data).hexdigest() == sha256:
                    return data
                damaged = os.fstat(file.fileno())
        except FileNotFoundError:
            raise _gone(path) from None
        except OSError as error:
            raise _unreadable(error, path) from error
        _remove(path, damaged)
        raise _gone(path)

    def images(self) -> Iterator[Image]:
        """Every image. What is no file of ours (a link, another name) is passed over."""
        for path, found in _files_below(self._root, _TWO_DIGITS):
            if _DIGEST.fullmatch(path.name):
                yield Image(path.name, found.st_size, found.st_mtime)

    def links(self) -> int:
        """How many attachments are known."""
        return sum(1 for _ in _files_below(self._root / "links", _TWO_DIGITS))

    def drop(self, image: Image) -> bool:
        """Removes an image, unless it was used since it was seen; says whether it is gone."""
        path = self.path(image.sha256)
        with storage_errors(path):
            try:
                if path.lstat().st_mtime == image.used:
                    path.unlink()
                    return True
            except FileNotFoundError:
                return True
            return False

    def drop_loose_links(self, now: float) -> int:
        """Removes what leads to no image any more, and gives the number. A young one's image may be on its way."""
        dropped = 0
        for path, found in _files_below(self._root / "links", _TWO_DIGITS):
            if now - found.st_mtime > ABANDONED_S and not self._leads_to_an_image(path):
                with storage_errors(path):
                    path.unlink(missing_ok=True)
                dropped += 1
        return dropped

    def _leads_to_an_image(self, link: Path) -> bool:
        try:
            return self.path(decode(link.read_bytes(), Stored).sha256).exists()
        except (FileNotFoundError, msgspec.DecodeError):
            return False
        except OSError as error:
            raise _unreadable(error, link) from error

    def disk_time(self) -> float:
        """Now, by the clock that stamps the files there, which need not be this machine's."""
        with storage_errors(self._tmp):
            return disk_time(self._tmp)

    def path(self, sha256: str) -> Path:
        """Where an image with this digest lies, or would.

        Raises:
            InputError: it is no digest.
        """
        if not _DIGEST.fullmatch(sha256):
            raise InputError(f"{sha256!r} is no hex SHA-256", remedy="Run p1 again: it writes the digests.")
        return Path(self._file(sha256))

    def receive(self, key: str, *, limit: int) -> Incoming:
        """A place for the bytes of the attachment `key`, at most `limit` of them."""
        return Incoming(self, key, limit)

    def sweep(self) -> int:
        """Removes what dead runs left half written, and gives the number of files; live runs' are left alone."""
        removed = 0
        with storage_errors(self._tmp):
            now = disk_time(self._tmp)
            for tmp in self._tmp.glob(f"*{TMP_SUFFIX}"):
                found = _TMP.fullmatch(tmp.name)
                if is_abandoned(tmp, found[1] if found else None, now=now, after=ABANDONED_S):
                    tmp.unlink(missing_ok=True)
                    removed += 1
        return removed

    def _file(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _link(self, key: str) -> str:
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._root}/links/{name[:2]}/{name}"

    def _new_tmp(self) -> str:
        return f"{self._tmp}/{self._owner}.{secrets.token_hex(8)}{TMP_SUFFIX}"

    def _publish_link(self, key: str, stored: Stored) -> None:
        tmp = self._new_tmp()
        try:
            with open(tmp, "wb", buffering=0) as link:
                write_all(link, msgspec.json.encode(stored))
            _place(tmp, self._link(key))
        except OSError:
            _forget(tmp)
            raise


class Incoming:
    """The bytes of one attachment on their way into the store. A context manager: `write`, then `finish`.

    Left without `finish`, nothing of them stays.

    Raises:
        TooLargeError: more bytes than the limit.
        StorageError: the disk refused.
    """

    def __init__(self, store: Store, key: str, limit: int) -> None:
        self._store = store
        self._key = key
        self._limit = limit
        self._digest = hashlib.sha256()
        self._size = 0
        self._tmp = store._new_tmp()  # noqa: SLF001 - the store's other half
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            return
        with storage_errors(self._tmp):
            self._file.close()
            _forget(self._tmp)

    def write(self, data: bytes | bytearray) -> None:
        """Takes the next bytes."""
        self._size += len(data)
        if self._size > self._limit:
            raise TooLargeError
        self._digest.update(data)
        with storage_errors(self._tmp):
            if self._file is None:
                self._file = open(self._tmp, "wb", buffering=0)  # noqa: SIM115 - `__exit__` closes it
            rest = memoryview(data)
            while rest:  # the disk may take less than it is given
                rest = rest[self._file.write(rest) :]

    def finish(self, data: bytes | bytearray = b"") -> Stored:
        """Takes the last bytes and puts the image into its place."""
        self.write(data)
        stored = Stored(self._digest.hexdigest(), self._size)
        with storage_errors(self._tmp):
            if self._file is not None:
                self._file.close()
            self._store._publish_link(self._key, stored)  # noqa: SLF001 - as above
            _place(self._tmp, self._store._file(stored.sha256))  # noqa: SLF001 - as above
        self._file = None
        return stored


def _files_below(folder: Path, name: re.Pattern[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """The files in the folders of such names; no link is followed, so that nothing outside is ever met."""
    try:
        for branch in os.scandir(folder):
            if not (name.fullmatch(branch.name) and branch.is_dir(follow_symlinks=False)):
                continue
            for file in os.scandir(branch.path):
                if file.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # gone since
                        yield Path(file.path), file.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(error, folder) from error


def _touch(path: str) -> None:
    """Says that the file is used, if that may be said: reading asks for no leave to write."""
    try:
        os.utime(path)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EACCES, errno.EROFS}:
            raise


def _place(tmp: str, path: str) -> None:
    try:
        os.rename(tmp, path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.rename(tmp, path)


def _forget(tmp: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(tmp)


def _remove(path: Path, damaged: os.stat_result) -> None:
    """Removes a damaged image, unless another process has put a whole one into its place meanwhile."""
    with storage_errors(path), contextlib.suppress(FileNotFoundError):
        if os.path.samestat(path.stat(), damaged):
            path.unlink()


def _gone(path: Path) -> InputError:
    return InputError(
        "this image is gone from the store, or damaged",
        where=str(path),
        remedy="Run p1 again: it fetches what is missing.",
    )


def _unreadable(error: OSError, path: Path | str) -> StorageError:
    return StorageError(f"cannot be read ({error.strerror or error})", where=str(path))
