"""A file whose name is settled when its bytes are complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from modbot.files.atomic import publish, storage_errors, tmp_of

BUFFER_BYTES = 1024 * 1024
"""Large, because on a network volume every write is a round trip."""


class Draft:
    """Bytes on their way to `path`, which may be changed to another name of the same folder before the end."""

    def __init__(self, path: Path, out: BinaryIO) -> None:
        self.path = path
        self.out = out


@contextmanager
def drafting(path: Path) -> Iterator[Draft]:
    """A draft that becomes its `path` when the block ends well, and is removed when it does not.

    Raises:
        StorageError: the disk refused.
    """
    tmp = tmp_of(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with tmp.open("wb", buffering=BUFFER_BYTES) as out:
                draft = Draft(path, out)
                yield draft
            publish(tmp, draft.path)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
