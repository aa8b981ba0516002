"""Shard files into the day's file: grouped by content, ordered by first row, every row accounted for exactly once.

Only numbers about the lines are held in memory (about 60 bytes a line), never the records.
"""

from __future__ import annotations

import hashlib
import mmap
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from modbot.errors import InputError
from modbot.files.atomic import writing
from modbot.records import jsonl
from modbot.records.index import attachment_key
from modbot.records.p1 import Attachment, Message, P1Record

T = TypeVar("T")

REMEDY = "Run the step again without --resume."


@dataclass(frozen=True)
class _Lines:
    """Where each line is (file, offset, length), its row, and the 32 bytes that name its group."""

    file: NDArray[np.uint32]
    offset: NDArray[np.uint64]
    length: NDArray[np.uint32]
    row: NDArray[np.uint64]
    group: NDArray[np.uint64]


def merge_p1(sources: Sequence[Path], target: Path, *, rows: int) -> int:
    """Merges p1 shard files into `target` and gives the number of records.

    Rows with the same content become one record, rows of one message one message with several attachments; rows
    without an image are grouped by attachment.

    Raises:
        InputError: a row of 0 … rows-1 is missing or there twice; nothing is written.
        StorageError: the disk refused.
    """
    lines = _survey(sources)
    _require_each_row_once(lines.row, rows, target)
    count = 0
    with ExitStack() as stack, writing(target) as out:
        maps = [_mapped(stack, path) for path in sources]
        for members in _groups(lines):
            records = [_line(maps, lines, member) for member in members]
            out.write(jsonl.encode_line(_combined(records)))
            count += 1
    return count


def merge_in_order(sources: Sequence[Path], target: Path, *, rows: Sequence[int]) -> int:
    """Merges shard files that have a line for each of `rows` (ascending) into `target`, in that order.

    Raises:
        InputError: a row is missing, or a line is of no row or of one that was there before; nothing is written.
        StorageError: the disk refused.
    """
    expected = iter(rows)
    with writing(target) as out:
        for source in sources:
            with source.open("rb") as lines:
                for line in lines:
                    found = _decode(line, _Numbered, source).row
                    wanted = next(expected, None)
                    if found != wanted:
                        what = f"row {found} where row {wanted} should be"
                        raise InputError(what, where=str(source), remedy=REMEDY)
                    out.write(line)
        missing = next(expected, None)
        if missing is not None:
            raise InputError(f"row {missing} is in no shard", where=str(target), remedy=REMEDY)
    return len(rows)


class _Url(msgspec.Struct):
    url: str | None = None


class _Numbered(msgspec.Struct):
    row: int


class _Key(msgspec.Struct):
    """What decides where a p1 line belongs."""

    row: int
    sha256: str | None = None
    messages: list[_Url] = []


def _decode(line: bytes, kind: type[T], source: Path) -> T:
    try:
        return jsonl.decode(line, kind)
    except msgspec.DecodeError as error:
        raise InputError(f"a line is no record ({error})", where=str(source), remedy=REMEDY) from None


def _survey(sources: Sequence[Path]) -> _Lines:
    files, offsets, lengths, rows, groups = array("I"), array("Q"), array("I"), array("Q"), bytearray()
    for number, source in enumerate(sources):
        offset = 0
        with source.open("rb") as lines:
            for line in lines:
                key = _decode(line, _Key, source)
                files.append(number)
                offsets.append(offset)
                lengths.append(len(line))
                rows.append(key.row)
                groups += _group_of(key)
                offset += len(line)
    return _Lines(
        np.array(files, np.uint32),
        np.array(offsets, np.uint64),
        np.array(lengths, np.uint32),
        np.array(rows, np.uint64),
        np.frombuffer(bytes(groups), np.uint64).reshape(-1, 4),
    )


def _group_of(key: _Key) -> bytes:
    if key.sha256 is not None:
        return bytes.fromhex(key.sha256)
    url = key.messages[0].url if key.messages else None
    name = f"row:{key.row}" if url is None else attachment_key(url)
    return hashlib.sha256(b"no image\0" + name.encode()).digest()


def _require_each_row_once(found: NDArray[np.uint64], rows: int, target: Path) -> None:
    times = np.bincount(found.astype(np.int64), minlength=rows)
    wrong = np.flatnonzero(times != np.where(np.arange(len(times)) < rows, 1, 0))
    if len(wrong):
        row = int(wrong[0])
        state = f"there {times[row]} times" if row < rows else "not of this index"
        more = f", and {len(wrong) - 1} more rows are wrong" if len(wrong) > 1 else ""
        raise InputError(f"row {row} is {state}{more}", where=str(target), remedy=REMEDY)


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


def _mapped(stack: ExitStack, path: Path) -> mmap.mmap | bytes:
    data = stack.enter_context(path.open("rb"))
    if path.stat().st_size == 0:
        return b""
    return stack.enter_context(mmap.mmap(data.fileno(), 0, access=mmap.ACCESS_READ))


def _line(maps: Sequence[mmap.mmap | bytes], lines: _Lines, member: np.int64) -> P1Record:
    start = int(lines.offset[member])
    return jsonl.decode(maps[lines.file[member]][start : start + int(lines.length[member])], P1Record)


def _combined(records: Sequence[P1Record]) -> P1Record:
    """The first record, with the messages of all."""
    first = records[0]
    messages: dict[tuple[object, ...], Message] = {}
    for record in records:
        for message in record.messages:
            known = messages.setdefault(_message_key(message), message)
            if known is not message:
                _join(known, message)
    first.messages = list(messages.values())
    return first


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
