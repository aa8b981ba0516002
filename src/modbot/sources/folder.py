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
    for entry in _files(root):
        path = Path(entry.path)
        try:
            stat = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # gone since
            continue
        yield {
            "message_link": path.as_uri(),
            "channel_name": _text(str(path.parent.relative_to(root))),
            "created_at": _time(stat.st_mtime),
            "source": "file",
            "filename": _text(path.name),
            "file_size": stat.st_size,
            "url": path.as_uri(),
        }


def _files(root: Path) -> Iterator[os.DirEntry[str]]:
    waiting = _entries(root)
    while waiting:
        entry = waiting.pop()
        if entry.is_dir(follow_symlinks=False):
            waiting += _entries(entry.path)
        elif entry.is_file(follow_symlinks=False):
            yield entry


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """What is in the folder and not hidden, by name, the first one last."""
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=_text(str(folder))) from None
    return sorted(seen, key=lambda entry: entry.name, reverse=True)


def _time(seconds: float) -> str:
    """Unix seconds as ISO 8601; empty for what no calendar has, as a broken file system may tell."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return ""


def _text(name: str) -> str:
    """A file's name as text, whatever its bytes are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
