"""Reading and writing the index and its shards: CSV, UTF-8, LF, with a header.

A malformed row never takes others with it: where a stray quote swallows the lines behind it, only the line that holds
the quote is malformed, and reading goes on with the next.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from modbot.errors import InputError
from modbot.records.index import COLUMNS, IndexRow
from modbot.words import counted

ROW_COLUMN = "row"
BAD_COLUMN = "bad_row"
"""In shards: why the row is malformed, with its line number in the index. Empty for a good row."""

MAX_CELL = 128 * 1024
MAX_URL = 8 * 1024
MAX_DIGITS = 18
_MESSAGE_COLUMNS = frozenset(COLUMNS) - {"phash_hex", "phash_distance_ref", "note"}
_SCHEMES = ("https", "http", "file")


@dataclass(frozen=True)
class RawRow:
    """One row as it stands in the file: as many cells as the header has, and what is wrong with it, if anything."""

    line: int
    cells: list[str]
    bad: str | None


class IndexFile:
    """An open index or shard CSV; iterate once for its rows."""

    def __init__(self, path: Path, stream: TextIO) -> None:
        self.path = path
        self._lines = _Lines(stream)
        self.header = self._read_header()
        self._url = self.header.index("url")

    def _read_header(self) -> list[str]:
        where = str(self.path)
        try:
            first = next(self._records(), None)
        except UnicodeDecodeError:
            first = None
        if first is None:
            raise InputError("empty: not even a header", where=where, remedy=_HEADER_REMEDY)
        header = [name.strip() for name in first[1] or []]
        if "url" not in header:
            shown = ", ".join(header)[:80]
            if not shown.isprintable() or "\ufffd" in shown or _has_surrogates(shown):
                raise InputError("not a CSV file", where=where, remedy=_HEADER_REMEDY)
            raise InputError(f"no column 'url' (the header is: {shown})", where=where, remedy=_HEADER_REMEDY)
        if any(map(_has_surrogates, header)):
            raise InputError("the header is not UTF-8", where=where, remedy="Save it as CSV in UTF-8.")
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise InputError(
                f"column {twice[0]!r} stands twice in the header", where=where, remedy="Rename one of them."
            )
        return header

    def __iter__(self) -> Iterator[RawRow]:
        width = len(self.header)
        for line, found, problem in self._records():
            if found == []:
                continue
            bad, cells = problem, found or []
            if bad is None and len(cells) != width:
                bad = f"{counted(len(cells), 'cell')} where the header has {width}"
            if any(map(_has_surrogates, cells)):
                cells = [cell.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for cell in cells]
                bad = bad or "not UTF-8"
            cells = (cells + [""] * width)[:width]
            bad = bad or _bad_url(cells[self._url])
            yield RawRow(line, cells, f"line {line}: {bad}" if bad else None)

    def _records(self) -> Iterator[tuple[int, list[str] | None, str | None]]:
        """(line number, cells or None where they cannot be told, what is wrong) of each record."""
        width: int | None = None
        while True:
            line, mark = self._lines.number + 1, self._lines.mark()
            try:
                cells = next(csv.reader(self._lines, strict=True))
                problem = None
            except StopIteration:
                return
            except csv.Error as error:
                cells, problem = None, str(error)
            broken = cells is None or (width is not None and cells != [] and len(cells) != width)
            if broken and self._lines.number > line:
                # A quote that was not meant as one ran on over the end of its line: only that line is malformed.
                first = self._lines.rewind_behind_first(mark)
                cells, problem = next(csv.reader([first.rstrip("\r\n")])), "a quotation mark that is not closed"
            if width is None and cells:
                width = len(cells)
            yield line, cells, problem


_HEADER_REMEDY = "An index is a CSV file in UTF-8 whose header names at least the column 'url'."


class _Lines:
    """Physical lines with their number, which can be given back down to the last mark."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._since_mark: list[str] = []
        self._ahead: list[str] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._ahead.pop() if self._ahead else self._read()
        if not line:
            raise StopIteration
        self._since_mark.append(line)
        self.number += 1
        return line

    def _read(self) -> str:
        """The next line; of one that is too long its beginning, with more than any cell may hold at its end."""
        line = self._stream.readline(MAX_CELL)
        if len(line) < MAX_CELL or line.endswith("\n"):
            return line
        while (more := self._stream.readline(MAX_CELL)) and not more.endswith("\n"):
            pass
        return line + "x" * MAX_CELL + "\n"

    def mark(self) -> int:
        self._since_mark.clear()
        return self.number

    def rewind_behind_first(self, mark: int) -> str:
        self._ahead.extend(reversed(self._since_mark[1:]))
        del self._since_mark[1:]
        self.number = mark + 1
        return self._since_mark[0]


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text) if not text.isascii() else False


@contextmanager
def open_index(path: Path) -> Iterator[IndexFile]:
    """Opens an index or a shard while the block runs.

    Raises:
        InputError: it is missing, cannot be read, is no CSV, or has no column `url`.
    """
    try:
        with path.open("rb") as head:
            if head.read(2) in {b"\xff\xfe", b"\xfe\xff"}:
                raise InputError("UTF-16 text", where=str(path), remedy="Save it as CSV in UTF-8.")
        # Bytes that are not UTF-8 come back as surrogates, so that they spoil their row and not the file.
        stream = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except FileNotFoundError:
        remedy = "Make it with `modbot index`, or name another with --input."
        raise InputError("there is no such index", where=str(path), remedy=remedy) from None
    except OSError as error:
        remedy = "Name a CSV file that can be read."
        raise InputError(f"cannot be read ({error.strerror})", where=str(path), remedy=remedy) from None
    with stream:
        yield IndexFile(path, stream)


def read_rows(path: Path) -> Iterator[IndexRow]:
    """The rows of an index (numbered from 0 as they come) or of a shard (with the numbers that it carries)."""
    with open_index(path) as index:
        names = index.header
        is_shard = names[-2:] == [BAD_COLUMN, ROW_COLUMN]
        if not is_shard:
            refuse_shard_columns(index)
        for position, raw in enumerate(index):
            cells = dict(zip(names, raw.cells, strict=True))
            if not is_shard:
                yield to_row(cells, row=position, bad=raw.bad)
                continue
            number, bad = cells.pop(ROW_COLUMN), cells.pop(BAD_COLUMN) or raw.bad
            if not (number.isascii() and number.isdecimal() and len(number) <= MAX_DIGITS):
                raise InputError(f"line {raw.line}: no row number", where=str(path), remedy="Split the index again.")
            yield to_row(cells, row=int(number), bad=bad)


def refuse_shard_columns(index: IndexFile) -> None:
    """Raises InputError if an index has a column of a name that only shards have."""
    clash = {BAD_COLUMN, ROW_COLUMN} & set(index.header)
    if clash:
        what = f"column {min(clash)!r} is one that shards add"
        raise InputError(what, where=str(index.path), remedy="Rename it in the index.")


def to_row(cells: dict[str, str], *, row: int, bad: str | None = None) -> IndexRow:
    """One row, its cells checked; what cannot be used as what it should be is kept in `extra` as it stands."""
    known = {name: value for name, value in cells.items() if value and name in _MESSAGE_COLUMNS}
    extra = {name: value for name, value in cells.items() if value and name not in _MESSAGE_COLUMNS}
    nsfw = _truth(known.pop("is_nsfw_channel", ""), "is_nsfw_channel", extra)
    spoiler = _truth(known.pop("is_spoiler", ""), "is_spoiler", extra)
    size = known.pop("file_size", "")
    if size and not (size.isascii() and size.isdecimal() and len(size) <= MAX_DIGITS):
        extra["file_size"], size = size, ""
    filename = known.get("filename", "")
    return IndexRow(
        row=row,
        is_nsfw_channel=nsfw,
        is_spoiler=bool(spoiler) or filename.startswith("SPOILER_"),
        file_size=int(size) if size else None,
        extra=extra,
        bad=bad,
        **known,
    )


def _truth(text: str, name: str, extra: dict[str, str]) -> bool | None:
    value = {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())
    if value is None and text:
        extra[name] = text
    return value


def _bad_url(url: str) -> str | None:
    if not url:
        return "no url"
    if len(url) > MAX_URL or not url.isprintable() or " " in url:
        return "the url is no link"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "the url is no link"
    if parts.scheme not in _SCHEMES or not (parts.hostname or parts.scheme == "file"):
        return "the url does not begin with https://"
    return None


def to_csv_line(cells: Sequence[object]) -> str:
    """One CSV line, LF included."""
    out = io.StringIO()
    # The writer quotes what its line end holds: written with CR LF, so that a lone CR in a cell is quoted, too.
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n") + "\n"


def index_lines(rows: Iterable[dict[str, object]]) -> Iterator[bytes]:
    """The lines of an index file: header, then a line for each row (missing columns are empty)."""
    yield to_csv_line(COLUMNS).encode()
    for row in rows:
        yield to_csv_line([row.get(name, "") for name in COLUMNS]).encode()
