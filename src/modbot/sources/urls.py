"""An index of a list of links."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from posixpath import basename
from urllib.parse import unquote, urlsplit

from modbot.errors import InputError


def rows(path: Path) -> Iterator[dict[str, object]]:
    """An index row for each line of the file; empty lines and lines that begin with `#` are passed over.

    A line that is no link is carried as it is: p1 makes it a record with the error `bad_row`.

    Raises:
        InputError: the file is missing or no UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start})", where=str(path)) from None
    for line in lines:
        url = line.strip()
        if url and not url.startswith("#"):
            yield {"message_link": url, "source": "link", "filename": _filename(url), "url": url}


def _filename(url: str) -> str:
    try:
        return unquote(basename(urlsplit(url).path))
    except ValueError:
        return ""
