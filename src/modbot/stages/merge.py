"""Shard files into the day's file: grouped by content, ordered by first row, every row accounted for exactly once.

Of the lines only numbers are held in memory, and of the records one group's messages at a time.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from modbot.errors import IncompleteError
from modbot.files.atomic import writing
from modbot.files.journal import AGAIN, Numbered, decode_line
from modbot.records import jsonl
from modbot.records.index import attachment_key
from modbot.records.p1 import Attachment, Message, P1Record, RecordError

OPEN_FILES = 64
"""So many shard files are open at once, however many there are."""


def merge_p1(sources: Sequence[Path], target: Path, *, rows: Sequence[int]) -> int:
    """Merges p1 shard files into `target` and gives the number of records.

    Rows with the same content become one record, rows of one message one message with several attachments; rows
    without an image are grouped by attachment. `rows`: the row numbers that must be there, ascending.

    Raises:
        IncompleteError: a row is missing, there twice, or not among `rows`; nothing is written.
        StorageError: the disk refused.
    """
    lines = _survey(sources)
    _require_each_row_once(lines.row, rows, target)
    count = 0
    with _Shelf(sources) as shelf, writing(target) as out:
        for members in _groups(lines):
            out.write(jsonl.encode_line(_combined(shelf, lines, members)))
            count += 1
    return count


def merge_in_order(sources: Sequence[Path], target: Path, *, rows: Sequence[int]) -> int:
    """Merges shard files that have a line for each of `rows` (ascending) into `target`, in that order.

    Shard follows shard, and within one the lines ascend as well.

    Raises:
        IncompleteError: a row is missing, or a line is of no row or of one that was there before; nothing is written.
        StorageError: the disk refused.
    """
    expected = iter(rows)
    with writing(target) as out:
        for source in sources:
            with source.open("rb") as lines:
                for line in lines:
                    found = decode_line(line, Numbered, str(source)).row
                    wanted = next(expected, None)
                    if found != wanted:
                        what = f"row {found} where row {wanted} should be"
                        raise IncompleteError(what, where=str(source), remedy=AGAIN)
                    out.write(line)
        missing = next(expected, None)
        if missing is not None:
            raise IncompleteError(f"row {missing} is in no shard", where=str(target), remedy=AGAIN)
    return len(rows)


@dataclass(frozen=True)
class _Lines:
    """Where each line is (file, offset, length in bytes), its row, and the 32 bytes that name its group."""

    file: NDArray[np.uint32]
    offset: NDArray[np.uint64]
    length: NDArray[np.uint32]
    row: NDArray[np.uint64]
    group: NDArray[np.uint64]


class _Url(msgspec.Struct):
    url: str | None = None


class _Key(msgspec.Struct):
    """What decides where a p1 line belongs."""

    row: int
    sha256: str | None = None
    messages: list[_Url] = []


class _Posted(msgspec.Struct):
    """What a further line of a group adds to its record: its messages, and whether its scores are any good."""

    messages: list[Message]
    error: RecordError | None = None


class _Shelf:
    """The shard files, the last used of them open."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._open: OrderedDict[int, BinaryIO] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def line(self, lines: _Lines, member: np.int64) -> bytes:
        file = self._file(int(lines.file[member]))
        file.seek(int(lines.offset[member]))
        return file.read(int(lines.length[member]))

    def path(self, lines: _Lines, member: np.int64) -> str:
        return str(self._paths[int(lines.file[member])])

    def _file(self, number: int) -> BinaryIO:
        file = self._open.get(number)
        if file is None:
            while len(self._open) >= OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            file = self._open[number] = self._paths[number].open("rb")
        self._open.move_to_end(number)
        return file


def _survey(sources: Sequence[Path]) -> _Lines:
    files, offsets, lengths, rows, groups = array("I"), array("Q"), array("I"), array("Q"), bytearray()
    for number, source in enumerate(sources):
        offset = 0
        with source.open("rb") as lines:
            for line in lines:
                key = decode_line(line, _Key, str(source))
                files.append(number)
                offsets.append(offset)
                lengths.append(len(line))
                rows.append(key.row)
                groups += _group_of(key)
                offset += len(line)
    return _Lines(
        np.frombuffer(files, np.uint32),
        np.frombuffer(offsets, np.uint64),
        np.frombuffer(lengths, np.uint32),
        np.frombuffer(rows, np.uint64),
        np.frombuffer(groups, np.uint64).reshape(-1, 4),
    )


def _group_of(key: _Key) -> bytes:
    if key.sha256 is not None:
        return bytes.fromhex(key.sha256)
    url = key.messages[0].url if key.messages else None
    name = f"row:{key.row}" if url is None else attachment_key(url)
    return hashlib.sha256(b"no image\0" + name.encode("utf-8", "surrogatepass")).digest()


def _require_each_row_once(found: NDArray[np.uint64], rows: Sequence[int], target: Path) -> None:
    wanted = np.asarray(rows, np.uint64)
    have, times = np.unique(found, return_counts=True)
    for wrong, state in (
        (have[times > 1], "there more than once"),
        (np.setdiff1d(wanted, have, assume_unique=True), "missing"),
        (np.setdiff1d(have, wanted, assume_unique=True), "not of this index"),
    ):
        if len(wrong):
            more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise IncompleteError(f"row {wrong[0]} is {state}{more}", where=str(target), remedy=AGAIN)


def _groups(lines: _Lines) -> Iterator[NDArray[np.int64]]:
    """Positions of the lines of each group, rows ascending; groups ascending by their first row."""
    if not len(lines.row):
        return
    order = np.lexsort((lines.row, *lines.group.T))
    group = lines.group[order]
    starts = np.flatnonzero(np.r_[True, np.any(group[1:] != group[:-1], axis=1)])
    ends = np.r_[starts[1:], len(order)]
    for first in np.argsort(lines.row[order[starts]]):
        yield order[starts[first] : ends[first]]


def _combined(shelf: _Shelf, lines: _Lines, members: NDArray[np.int64]) -> P1Record:
    """One record with the messages of all members; its scores are those of the first member that has any."""
    messages: dict[tuple[object, ...], Message] = {}
    judged = members[0]
    found = False
    for member in members:
        posted = decode_line(shelf.line(lines, member), _Posted, shelf.path(lines, member))
        if posted.error is None and not found:
            judged, found = member, True
        for message in posted.messages:
            known = messages.setdefault(_message_key(message), message)
            if known is not message:
                _join(known, message)
    record = decode_line(shelf.line(lines, judged), P1Record, shelf.path(lines, judged))
    record.row = int(lines.row[members[0]])
    record.messages = list(messages.values())
    return record


def _message_key(message: Message) -> tuple[object, ...]:
    if message.message_id is not None:
        return (message.guild_id, message.channel_id, message.message_id)
    if message.message_link is not None:
        return (message.message_link,)
    return ("row", message.attachments[0].row)


def _join(into: Message, other: Message) -> None:
    into.is_spoiler = into.is_spoiler or other.is_spoiler
    if other.is_nsfw_channel is False:
        into.is_nsfw_channel = False
    for attachment in other.attachments:
        into.attachments.append(_with_own_extra(attachment, into.extra, other.extra))


def _with_own_extra(attachment: Attachment, known: dict[str, str], own: dict[str, str]) -> Attachment:
    differing = {name: value for name, value in own.items() if known.get(name) != value}
    if differing:
        attachment.extra = differing
    return attachment
