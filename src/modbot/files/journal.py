"""A shard's lines while they come about, and the receipt that says they are complete.

The journal is `NAME.jsonl.DIGEST.tmp`, where DIGEST stands for the settings and the input that shape its lines: a
journal of other settings is never gone on with. Lines are appended whole; what a kill left torn is cut off.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from modbot.errors import BusyError, IncompleteError
from modbot.files.atomic import TMP_SUFFIX, publish, storage_errors, write_all, write_bytes, writing
from modbot.records import jsonl
from modbot.records.p1 import RecordError
from modbot.records.progress import Receipt
from modbot.words import counted

T = TypeVar("T")

AGAIN = "Run the step again without --resume: what is stored is not fetched again."

SYNC_EVERY = 64
"""Lines between two syncs: more than a sync a line costs more than the work it saves."""


class Numbered(msgspec.Struct):
    """A line of which only the row matters."""

    row: int


def decode_line(line: bytes, kind: type[T], where: str) -> T:
    """The line as a `kind`. Raises IncompleteError, which says `where`, if it is none."""
    try:
        return jsonl.decode(line, kind)
    except msgspec.DecodeError as error:
        raise IncompleteError(f"not a record ({error})", where=where, remedy=AGAIN) from None


class JournalLine(msgspec.Struct):
    """What a journal must know of a line: which row it is of, and whether it failed. A step may have its own kind."""

    row: int
    error: RecordError | None = None

    @property
    def failure(self) -> str | None:
        """The kind of the failure, if the line is one."""
        return None if self.error is None else self.error.kind


@dataclass(frozen=True)
class ShardFiles:
    """The files of one shard of one step."""

    folder: Path
    name: str

    @property
    def lines(self) -> Path:
        return self.folder / f"{self.name}.jsonl"

    @property
    def receipt(self) -> Path:
        return self.folder / f"{self.name}.receipt.json"

    @property
    def counters(self) -> Path:
        """What the runs counted so far of a shard that is not finished."""
        return self.folder / f"{self.name}.counters.json"

    def journal(self, digest: str) -> Path:
        return self.folder / f"{self.name}.jsonl.{digest[:16]}{TMP_SUFFIX}"

    def journals(self) -> list[Path]:
        """Every journal that any run left."""
        return sorted(self.folder.glob(f"{self.name}.jsonl.*{TMP_SUFFIX}"))


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """Additive numbers of an unfinished shard, and the journal that they belong to."""

    journal: str
    counters: dict[str, float]


def read_counters(files: ShardFiles, journal: Path) -> dict[str, float] | None:
    """What earlier runs counted of this journal; None if they counted nothing, or another one."""
    try:
        counted = jsonl.decode(files.counters.read_bytes(), Counted)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return counted.counters if counted.journal == journal.name else None


def write_counters(files: ShardFiles, journal: Path, counters: Mapping[str, float]) -> None:
    """Keeps the numbers for a run that goes on with this journal. Raises StorageError."""
    write_bytes(files.counters, jsonl.encode_document(Counted(journal=journal.name, counters=dict(counters))))


def digest_of(*parts: object) -> str:
    """SHA-256 in hex of the parts as JSON: what a settings or input digest is made of."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 in hex of the file's bytes."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def read_receipt(files: ShardFiles, *, settings: str, inputs: str) -> Receipt | None:
    """The receipt of a finished shard, if it is of these settings and this input and its file stands."""
    try:
        receipt = jsonl.decode(files.receipt.read_bytes(), Receipt)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    if (receipt.settings, receipt.input) != (settings, inputs) or not files.lines.exists():
        return None
    return receipt if file_digest(files.lines) == receipt.output else None


def reopen_failed(files: ShardFiles, kinds: Collection[str], *, settings: str, inputs: str) -> int:
    """Opens a finished shard again without its failed lines (of those kinds; none named: all) and gives their number.

    The lines that stay become the shard's journal, so that a resumed job does only the failed rows.
    """
    receipt = read_receipt(files, settings=settings, inputs=inputs)
    if receipt is None:
        return 0
    journal, dropped = files.journal(digest_of(settings, inputs)), 0
    with files.lines.open("rb") as lines, writing(journal) as kept:
        for line in lines:
            failure = jsonl.decode(line, JournalLine).failure
            if failure is not None and (not kinds or failure in kinds):
                dropped += 1
            else:
                kept.write(line)
    with storage_errors(files.receipt):
        if dropped:
            write_counters(files, journal, receipt.counters)
            files.receipt.unlink()
        else:
            journal.unlink()
    return dropped


def _was_published(files: ShardFiles, journal: Path) -> bool:
    """Whether a kill came when this journal had become the shard's lines, but had no receipt yet.

    What was counted of it goes only when the receipt is there.
    """
    left = read_counters(files, journal) is not None and not files.receipt.exists()
    return left and files.lines.exists()


class Journal:
    """The growing file of one shard. Use as a context manager; `finish` publishes it."""

    def __init__(
        self,
        files: ShardFiles,
        *,
        settings: str,
        inputs: str,
        resume: bool,
        kind: type[JournalLine] = JournalLine,
    ) -> None:
        self._kind = kind
        self._files = files
        self._settings = settings
        self._inputs = inputs
        self.path = files.journal(digest_of(settings, inputs))
        self.rows: set[int] = set()
        self.errors: Counter[str] = Counter()
        self._unsynced = 0
        with storage_errors(self.path):
            files.folder.mkdir(parents=True, exist_ok=True)
            for other in files.journals():
                if other != self.path or not resume:
                    other.unlink()
            if not self.path.exists():
                if resume and _was_published(files, self.path):
                    files.lines.rename(self.path)
                else:
                    files.counters.unlink(missing_ok=True)  # they counted what is gone, and would be counted on
            self._recover()
            self._file = self.path.open("rb+", buffering=0)
            self._file.seek(0, os.SEEK_END)

    @property
    def failed(self) -> int:
        """Lines with an error."""
        return self.errors.total()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _recover(self) -> None:
        """Copies the whole lines that an earlier run left; what is behind them is left out.

        Copied into a new file of the same name: a run that seemed dead and wakes up goes on writing into the old one,
        which nobody reads any more.
        """
        new = self.path.with_name(f"{self.path.name.removesuffix(TMP_SUFFIX)}.new{TMP_SUFFIX}")
        with new.open("wb") as kept:
            if self.path.exists():
                with self.path.open("rb") as lines:
                    for line in lines:
                        if not line.endswith(b"\n") or not self._account(line):
                            break
                        kept.write(line)
        new.rename(self.path)

    def _account(self, line: bytes) -> bool:
        try:
            known = jsonl.decode(line, self._kind)
        except msgspec.DecodeError:
            return False
        if known.row in self.rows:
            return False
        self.rows.add(known.row)
        failure = known.failure
        if failure is not None:
            self.errors[failure] += 1
        return True

    def append(self, line: bytes) -> None:
        """Appends one whole line. Raises StorageError; a part that was written is cut off by the next resume."""
        if not self._account(line):
            raise AssertionError("a journal line without a row of its own")
        with storage_errors(self.path):
            write_all(self._file, line)
            self._unsynced += 1
            if self._unsynced >= SYNC_EVERY:
                os.fsync(self._file.fileno())
                self._unsynced = 0

    def finish(
        self, *, step: str, rows: int, finished_at: str, counters: dict[str, float], detail: dict[str, object]
    ) -> Receipt:
        """Publishes the lines, then the receipt. An older receipt is gone before its file is replaced.

        Raises:
            IncompleteError: not every row has its line.
            BusyError: another run has taken the shard over.
            StorageError: the disk refused.
        """
        self._require_ours()
        self._file.close()
        receipt = Receipt(
            step=step,
            shard=self._files.name,
            rows=rows,
            lines=len(self.rows),
            errors=dict(sorted(self.errors.items())),
            settings=self._settings,
            input=self._inputs,
            output=file_digest(self.path),
            finished_at=finished_at,
            counters=counters,
            detail=detail,
        )
        if receipt.lines != rows:
            what = f"{counted(receipt.lines, 'line')} for {counted(rows, 'row')}"
            raise IncompleteError(what, where=str(self.path), remedy=AGAIN)
        with storage_errors(self._files.lines):
            self._files.receipt.unlink(missing_ok=True)
            publish(self.path, self._files.lines)
        write_bytes(self._files.receipt, jsonl.encode_document(receipt))
        return receipt

    def _require_ours(self) -> None:
        try:
            same = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            same = False
        if not same:
            raise BusyError("another run has taken this shard over", where=str(self.path))
