"""An index of the files below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from modbot.errors import InputError


def rows(folder: Path) -> Iterator[dict[str, object]]:
    """An index row for each file below `folder`, in the order of their paths; `channel_name` is the file's folder.

    Hidden files and links are passed over. Nothing is opened: what is no image becomes a record that says so.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder", where=str(folder))
    root = folder.resolve()
    for path in _files(root):
        stat = path.stat()
        yield {
            "message_link": path.as_uri(),
            "channel_name": _text(str(path.parent.relative_to(root))),
            "created_at": datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="seconds"),
            "source": "file",
            "filename": _text(path.name),
            "file_size": stat.st_size,
            "url": path.as_uri(),
        }


def _files(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=_text(str(folder))) from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def _text(name: str) -> str:
    """A file's name as text, whatever its bytes are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
