"""The lines of a JSONL file, one at a time: all of them, or those of a span of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import NamedTuple

from modbot.errors import InputError

BUFFER_BYTES = 1024 * 1024

PIECE_BYTES = 8 * BUFFER_BYTES
"""What is judged in a fifth of a second: less is not worth the files of its own."""


class Span(NamedTuple):
    """Whole lines of a file: those from byte `start` up to byte `stop`; None: all that follow.

    `first` is the number of the first of them, from 1.
    """

    start: int = 0
    stop: int | None = None
    first: int = 1


WHOLE = Span()

_P2_RECORDS = "the p2 records"
_P2_REMEDY = "Analyze the day first (modbot analyze), or name them: --analysis"


def pieces(path: Path, *, what: str, remedy: str) -> Iterator[Span]:
    """The file in pieces of about PIECE_BYTES, one behind the other; each is read for the number of its lines.

    Raises:
        InputError: as `numbered_lines`.
    """
    block = bytearray(min(BUFFER_BYTES, PIECE_BYTES))
    with _reading(path, what, remedy) as data:
        start, first = 0, 1
        while True:
            stop, following = start, first
            while stop - start < PIECE_BYTES and (size := data.readinto(block)):
                stop += size
                following += block.count(b"\n", 0, size)
            rest = data.readline()
            stop += len(rest)
            following += rest.endswith(b"\n")
            if stop == start:
                return
            yield Span(start, stop, first)
            start, first = stop, following


def p2_lines(analysis: Path, span: Span = WHOLE) -> Iterator[tuple[int, bytes]]:
    """`numbered_lines` of p2 records."""
    return numbered_lines(analysis, what=_P2_RECORDS, remedy=_P2_REMEDY, span=span)


def p2_pieces(analysis: Path) -> Iterator[Span]:
    """`pieces` of p2 records."""
    return pieces(analysis, what=_P2_RECORDS, remedy=_P2_REMEDY)


def worth(paths: Iterable[Path]) -> int:
    """How many processes there is enough to do for."""
    return sum(path.stat().st_size for path in paths if path.is_file()) // PIECE_BYTES


def numbered_lines(path: Path, *, what: str, remedy: str, span: Span = WHOLE) -> Iterator[tuple[int, bytes]]:
    """The lines that hold something, with their numbers in the file.

    Raises:
        InputError: the file cannot be read; the message says `what` it is and the `remedy`.
    """
    with _reading(path, what, remedy) as lines:
        lines.seek(span.start)
        left = -1 if span.stop is None else span.stop - span.start
        for number, line in enumerate(lines, span.first):
            if not line.isspace():
                yield number, line
            left -= len(line)
            if not left:
                return


@contextmanager
def _reading(path: Path, what: str, remedy: str) -> Iterator[BufferedReader[FileIO]]:
    try:
        with BufferedReader(FileIO(path), BUFFER_BYTES) as data:
            yield data
    except OSError as error:
        raise InputError(f"{what} cannot be read ({error.strerror})", where=str(path), remedy=remedy) from None
