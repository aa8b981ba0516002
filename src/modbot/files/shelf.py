"""What was computed of a content, kept for every later day: records under a digest, in files that only ever appear.

    <folder>/<owner>.<number>.shelf       records, then their index, then the trailer
    <folder>/<owner>.<number>.shelf.tmp   what a run is writing

A record is its head (digest, part, length, checksum) and its payload. The index repeats the heads with their places,
so that a reader takes a few KB of each file and not its gigabytes; a million records cost 24 MB of memory and one
sort. Several machines may write into one folder: nothing is locked, nothing is changed once it has its name. What a
killed run wrote is published by the next one, up to the first record that is not whole. Nothing is synced before the
file is complete, and every record is checked when it is read: what a power cut damages is computed again.
"""

from __future__ import annotations

import itertools
import os
import re
import struct
import zlib
from collections import OrderedDict
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from modbot.files.atomic import TMP_SUFFIX, disk_time, is_abandoned, publish, storage_errors, write_all
from modbot.files.processes import owner

SUFFIX = ".shelf"

_HEAD = struct.Struct("<32sIII")
"""Digest, part, length of the payload, CRC-32 of the head before it and the payload."""

_TRAILER = struct.Struct("<QQ16s")
"""Where the index begins, how many entries it has, and what kind of file this is."""

_KIND = b"modbot shelf 1\n\0"
_ENTRY = np.dtype([("digest", "<u8", 4), ("part", "<u4"), ("length", "<u4"), ("at", "<u8")])
_ENTRY_PACKED = struct.Struct("<32sIIQ")
_CHECKSUM = struct.Struct("<I")
_CHECKED = _HEAD.size - _CHECKSUM.size
_SPREAD = np.uint64(0x9E37_79B9_7F4A_7C15)

LARGEST = 1 << 24
"""Bytes of a payload; a longer one is no record of ours."""

_OPEN_FILES = 32
_TMP = re.compile(rf"(\w+\.\d+\.\w+)\.\d+{re.escape(SUFFIX + TMP_SUFFIX)}", re.ASCII)

_numbers = itertools.count()


class Shelf:
    """The records of a folder, as `refresh` finds them. Not for several threads at once.

    Raises:
        StorageError: from every method, when the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[Path] = []
        self._seen: set[str] = set()
        self._keys = np.zeros(0, np.uint64)
        self._file = np.zeros(0, np.uint32)
        self._at = np.zeros(0, np.uint64)
        self._open: OrderedDict[int, FileIO] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files that were read; what is known of them stays, and they are opened again when needed."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def __len__(self) -> int:
        """Records, those that are there twice counted twice."""
        return len(self._keys)

    def refresh(self) -> list[Path]:
        """Takes in the files that have appeared since; gives those of which only a part, or nothing, could be read."""
        damaged: list[Path] = []
        keys, files, at = [self._keys], [self._file], [self._at]
        for path in sorted(self._new_files()):
            entries = np.frombuffer(_index_of(path, damaged), _ENTRY)
            number = len(self._files)
            self._files.append(path)
            keys.append(_keys(entries["digest"][:, 0], entries["part"]))
            files.append(np.full(len(entries), number, np.uint32))
            at.append(entries["at"].copy())  # a view would keep the whole index in memory
        if len(keys) == 1:
            return damaged
        joined = np.concatenate(keys)
        order = np.argsort(joined, kind="stable")
        self._keys = joined[order]
        del joined
        self._file = np.concatenate(files)[order]
        self._at = np.concatenate(at)[order]
        return damaged

    def get(self, sha256: str, part: int = 0) -> bytes | None:
        """The payload kept under a hex digest and a part's number; None if there is none that is whole."""
        digest = bytes.fromhex(sha256)
        key = _keys(np.frombuffer(digest[:8], "<u8"), np.array([part], np.uint32))[0]
        at = int(np.searchsorted(self._keys, key))
        while at < len(self._keys) and self._keys[at] == key:
            payload = self._read(int(self._file[at]), int(self._at[at]), digest, part)
            if payload is not None:
                return payload
            at += 1
        return None

    def _new_files(self) -> list[Path]:
        with storage_errors(self.folder):
            if not self.folder.is_dir():
                return []
            new = [path for path in self.folder.iterdir() if path.suffix == SUFFIX and path.name not in self._seen]
        self._seen.update(path.name for path in new)
        return new

    def _read(self, number: int, at: int, digest: bytes, part: int) -> bytes | None:
        """The payload there, if the record is that one and whole."""
        path = self._files[number]
        with storage_errors(path):
            try:
                fd = self._opened(number).fileno()
            except FileNotFoundError:
                return None
            return _payload(fd, at, digest, part)

    def _opened(self, number: int) -> FileIO:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        file = self._open[number] = FileIO(self._files[number])
        if len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return file


class ShelfWriter:
    """Records on their way into a folder: in a file as soon as they are put, readable for others when the block ends.

    Also when it ends with an error: what was computed is true all the same. Without a record there is no file.

    Raises:
        StorageError: from every method, when the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{owner()}.{next(_numbers)}{SUFFIX}"
        self._tmp = self._path.with_name(self._path.name + TMP_SUFFIX)
        self._file: FileIO | None = None
        self._index = bytearray()
        self._places: dict[tuple[bytes, int], int] = {}
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Adds the index, and gives the file its name."""
        if self._file is not None:
            with storage_errors(self._path), self._file as file:
                _complete(file, self._at, self._index)
            with storage_errors(self._path):
                publish(self._tmp, self._path)

    def put(self, sha256: str, payload: bytes, part: int = 0) -> None:
        """Keeps `payload`, at most LARGEST bytes, under a hex digest and a part's number."""
        if len(payload) > LARGEST:
            raise ValueError(f"a payload of {len(payload):,} bytes: {LARGEST:,} are the most")
        digest = bytes.fromhex(sha256)
        with storage_errors(self._path):
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = FileIO(self._tmp, "x+b")
            # A disk that filled up may have taken a part of the last one.
            self._file.seek(self._at)
            write_all(self._file, _record(digest, part, payload))
        self._index += _ENTRY_PACKED.pack(digest, part, len(payload), self._at)
        self._places[digest, part] = self._at
        self._at += _HEAD.size + len(payload)

    def get(self, sha256: str, part: int = 0) -> bytes | None:
        """The payload that was put last under a hex digest and a part's number; None if there is none that is whole."""
        digest = bytes.fromhex(sha256)
        at = self._places.get((digest, part))
        if at is None or self._file is None:
            return None
        with storage_errors(self._path):
            return _payload(self._file.fileno(), at, digest, part)


def sweep(folder: Path) -> int:
    """Publishes what dead runs left unfinished in `folder`, and gives the number of files; live runs' are left alone.

    Raises:
        StorageError: the disk refuses.
    """
    published = 0
    with storage_errors(folder):
        left = [(tmp, found[1]) for tmp in folder.glob(f"*{SUFFIX}{TMP_SUFFIX}") if (found := _TMP.fullmatch(tmp.name))]
        now = disk_time(folder) if left else 0.0
        for tmp, name in left:
            if not is_abandoned(tmp, name, now=now):
                continue
            try:
                with tmp.open("r+b", buffering=0) as file:
                    index, end = _walked(file)
                    _complete(file, end, index)
                publish(tmp, tmp.with_suffix(""))
            except FileNotFoundError:
                continue  # another run was quicker
            published += 1
    return published


def _complete(file: FileIO, end: int, index: bytes | bytearray) -> None:
    """Makes the file end with the record that ends at `end`, then index and trailer."""
    file.truncate(end)
    file.seek(end)
    write_all(file, bytes(index) + _TRAILER.pack(end, len(index) // _ENTRY.itemsize, _KIND))


def _record(digest: bytes, part: int, payload: bytes) -> bytes:
    head = _HEAD.pack(digest, part, len(payload), 0)[:_CHECKED]
    return head + _CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(head))) + payload


def _payload(fd: int, at: int, digest: bytes, part: int) -> bytes | None:
    """The payload of the record at that place of a file, if it is that one and whole."""
    head = os.pread(fd, _HEAD.size, at)
    if len(head) < _HEAD.size or _HEAD.unpack(head)[:2] != (digest, part):
        return None
    payload = os.pread(fd, _HEAD.unpack(head)[2], at + _HEAD.size)
    return payload if _is_whole(head, payload) else None


def _is_whole(head: bytes, payload: bytes) -> bool:
    _, _, length, checksum = _HEAD.unpack(head)
    return bool(len(payload) == length and zlib.crc32(payload, zlib.crc32(head[:_CHECKED])) == checksum)


def _index_of(path: Path, damaged: list[Path]) -> bytes:
    """The file's index, or what can be told of it without one; then it is added to `damaged`."""
    with storage_errors(path), path.open("rb") as file:
        index = _index(file)
        if index is None:
            damaged.append(path)
            index, _ = _walked(file)
    return index


def _index(file: BinaryIO) -> bytes | None:
    """The index of a file that is complete; None if it is not."""
    size = file.seek(0, os.SEEK_END)
    if size < _TRAILER.size:
        return None
    file.seek(size - _TRAILER.size)
    end, count, kind = _TRAILER.unpack(file.read(_TRAILER.size))
    if kind != _KIND or end + count * _ENTRY.itemsize + _TRAILER.size != size:
        return None
    file.seek(end)
    index = file.read(count * _ENTRY.itemsize)
    return index if (np.frombuffer(index, _ENTRY)["at"] < end).all() else None


def _walked(file: BinaryIO | FileIO) -> tuple[bytes, int]:
    """The index of the records that a file begins with, and where the last whole one ends."""
    index, at = bytearray(), 0
    file.seek(0)
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        digest, part, length, _ = _HEAD.unpack(head)
        if length > LARGEST or not _is_whole(head, file.read(length)):
            break
        index += _ENTRY_PACKED.pack(digest, part, length, at)
        at += _HEAD.size + length
    return bytes(index), at


def _keys(digests: NDArray[np.uint64], parts: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """What records are sorted by: uint64 [records], of the digest's first eight bytes and the part's number."""
    return digests ^ (parts.astype(np.uint64) * _SPREAD)
