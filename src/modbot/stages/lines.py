"""The lines of a JSONL file, one at a time: all of them, or those of a span of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from modbot.errors import InputError

BUFFER_BYTES = 1024 * 1024

HEAD_START_BYTES = 24 * BUFFER_BYTES
"""What this process has judged when the others have started and counted the lines before theirs.

Less is not worth a process.
"""


class Span(NamedTuple):
    """Whole lines of a file: those from byte `start` up to byte `stop`; None: all that follow."""

    start: int = 0
    stop: int | None = None


WHOLE = Span()


def spans(path: Path, count: int) -> list[Span]:
    """At most `count` spans that take equally long when all are begun at once, the first of them in this process.

    A file that cannot be read, or is none, is one span: what is wrong with it is told by who reads it.
    """
    size = _size(path)
    count = min(count, worth([path]))
    if count <= 1:
        return [WHOLE]
    share = (size - HEAD_START_BYTES) // count
    with path.open("rb") as data:
        starts = sorted({_next_line(data, size - share * others) for others in range(1, count)} - {size})
    ends: list[int | None] = [*starts, None]
    return [Span(start, end) for start, end in zip([0, *starts], ends, strict=True)]


def worth(paths: Iterable[Path]) -> int:
    """How many processes there is enough to do for."""
    return sum(map(_size, paths)) // HEAD_START_BYTES


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _next_line(data: BinaryIO, at: int) -> int:
    """Where the first line begins behind byte `at`."""
    data.seek(at)
    data.readline()
    return data.tell()


def numbered_lines(path: Path, *, what: str, remedy: str, span: Span = WHOLE) -> Iterator[tuple[int, bytes]]:
    """The lines that hold something, with their numbers in the file, from 1.

    Raises:
        InputError: the file cannot be read; the message says `what` it is and the `remedy`.
    """
    try:
        with path.open("rb", buffering=BUFFER_BYTES) as lines:
            first = _skip(lines, span.start) + 1 if span.start else 1
            left = -1 if span.stop is None else span.stop - span.start
            for number, line in enumerate(lines, first):
                if not line.isspace():
                    yield number, line
                left -= len(line)
                if not left:
                    return
    except OSError as error:
        raise InputError(f"{what} cannot be read ({error.strerror})", where=str(path), remedy=remedy) from None


def _skip(data: BinaryIO, size: int) -> int:
    """Reads so many bytes, and counts the lines that end in them."""
    ended = 0
    while size and (block := data.read(min(size, BUFFER_BYTES))):
        ended += block.count(b"\n")
        size -= len(block)
    return ended
