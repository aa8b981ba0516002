"""A shard's lines while they come about, and the receipt that says they are complete.

The journal is `NAME.jsonl.DIGEST.tmp`, where DIGEST stands for the settings and the input that shape its lines: a
journal of other settings is never gone on with. Lines are appended whole; what a kill left torn is cut off.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from modbot.errors import InputError
from modbot.files.atomic import TMP_SUFFIX, publish, storage_errors, write_bytes
from modbot.records import jsonl
from modbot.records.p1 import RecordError
from modbot.records.progress import Receipt

SYNC_EVERY = 64
"""Lines between two syncs: more than a sync a line costs more than the work it saves."""


class JournalLine(msgspec.Struct):
    """What a journal must know of a line: which row it is of, and whether it failed."""

    row: int
    error: RecordError | None = None


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

    def journal(self, digest: str) -> Path:
        return self.folder / f"{self.name}.jsonl.{digest[:16]}{TMP_SUFFIX}"

    def journals(self) -> list[Path]:
        """Every journal that any run left."""
        return sorted(self.folder.glob(f"{self.name}.jsonl.*{TMP_SUFFIX}"))


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


class Journal:
    """The growing file of one shard. Use as a context manager; `finish` publishes it."""

    def __init__(self, files: ShardFiles, *, settings: str, inputs: str, resume: bool) -> None:
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
            self._file = self.path.open("rb+" if self.path.exists() else "wb+", buffering=0)
            self._recover()

    @property
    def failed(self) -> int:
        """Lines with an error."""
        return self.errors.total()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _recover(self) -> None:
        """Reads the whole lines that an earlier run left, and cuts off what is behind them."""
        size = 0
        with self.path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n") or not self._account(line):
                    break
                size += len(line)
        self._file.truncate(size)
        self._file.seek(size)

    def _account(self, line: bytes) -> bool:
        try:
            known = jsonl.decode(line, JournalLine)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        if known.row in self.rows:
            return False
        self.rows.add(known.row)
        if known.error is not None:
            self.errors[known.error.kind] += 1
        return True

    def append(self, line: bytes) -> None:
        """Appends one whole line. Raises StorageError; a part that was written is cut off by the next resume."""
        if not self._account(line):
            raise AssertionError("a journal line without a row of its own")
        with storage_errors(self.path):
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            self._unsynced += 1
            if self._unsynced >= SYNC_EVERY:
                os.fsync(self._file.fileno())
                self._unsynced = 0

    def finish(
        self, *, step: str, rows: int, finished_at: str, counters: dict[str, float], detail: dict[str, object]
    ) -> Receipt:
        """Publishes the lines, then the receipt. An older receipt is gone before its file is replaced."""
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
            raise InputError(
                f"{receipt.lines} lines for {rows} rows", where=str(self.path), remedy="Run the step again."
            )
        with storage_errors(self._files.lines):
            self._files.receipt.unlink(missing_ok=True)
            publish(self.path, self._files.lines)
        write_bytes(self._files.receipt, jsonl.encode_document(receipt))
        return receipt
