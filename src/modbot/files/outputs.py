"""Refuses, before anything is read or written, outputs that would cost an input or one another."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from modbot.errors import SettingError

Named = Iterable[tuple[str, Path]]
"""Paths with the flag, or the words, that a person knows each by."""


def refuse_clashes(inputs: Named, outputs: Named) -> None:
    """Holds every output against the inputs and the other outputs.

    Outputs of one name may be one file: they get the same bytes.

    Raises:
        SettingError: an output is an input, is another's file, or is something other than a file; names both.
    """
    read = {_identity(path): name for name, path in inputs}
    written: dict[object, str] = {}
    for name, path in outputs:
        _refuse_no_file(name, path)
        identity = _identity(path)
        if (reader := read.get(identity)) is not None:
            raise _refused(name, f"{path} is what {reader} reads")
        if (writer := written.setdefault(identity, name)) != name:
            raise _refused(name, f"{path} is what {writer} writes")


def same_file(a: Path, b: Path) -> bool:
    """Whether both name one file, be it there or not."""
    return _identity(a) == _identity(b)


def _identity(path: Path) -> object:
    """Equal for all names of one file: links and letter case are the file system's to judge where it is there."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def _refuse_no_file(name: str, path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        # What keeps it from being looked at keeps it from being written, and is told there.
        return
    if not stat.S_ISREG(mode):
        raise _refused(name, f"{path} is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}")


def _refused(name: str, what: str) -> SettingError:
    return SettingError(what, where=name, remedy="Name another file.")
