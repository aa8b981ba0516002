"""The lines of a JSONL file, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modbot.errors import InputError

BUFFER_BYTES = 1024 * 1024


def numbered_lines(path: Path, *, what: str, remedy: str) -> Iterator[tuple[int, bytes]]:
    """The lines that hold something, with their numbers from 1.

    Raises:
        InputError: the file cannot be read; the message says `what` it is and the `remedy`.
    """
    try:
        with path.open("rb", buffering=BUFFER_BYTES) as lines:
            for number, line in enumerate(lines, 1):
                if not line.isspace():
                    yield number, line
    except OSError as error:
        raise InputError(f"{what} cannot be read ({error.strerror})", where=str(path), remedy=remedy) from None
