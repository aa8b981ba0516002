"""The shards of an index: written as a set, and known to belong together by `shards.json`."""

from __future__ import annotations

import glob
from itertools import islice
from pathlib import Path

import msgspec

from modbot.errors import InputError
from modbot.files.atomic import storage_errors, write_bytes, writing
from modbot.files.index_csv import BAD_COLUMN, ROW_COLUMN, open_index, refuse_shard_columns, to_csv_line
from modbot.files.journal import file_digest
from modbot.files.outputs import refuse_clashes
from modbot.files.paths import Partition
from modbot.records import jsonl
from modbot.words import counted

SET_FILE = "shards.json"
MAX_SHARDS = 100_000


class ShardSet(msgspec.Struct, frozen=True, kw_only=True):
    """`shards.json`: which index the shards are of.

    `digest`: the index file's SHA-256. `rows` and `digests`: the number of rows and the SHA-256 of each shard's file.
    """

    source: str
    digest: str
    date: str
    count: int
    rows: list[int]
    bad_rows: int = 0
    profile: str | None = None
    digests: list[str] = []

    @property
    def total(self) -> int:
        return sum(self.rows)

    def names(self) -> list[str]:
        """The shards' names without suffix, in order of rows."""
        return [shard_name(number, self.count) for number in range(self.count)]

    def starts(self) -> list[int]:
        """The first row of each shard, and behind them the number of rows in all."""
        starts = [0]
        for rows in self.rows:
            starts.append(starts[-1] + rows)
        return starts


def shard_name(number: int, count: int) -> str:
    """`shard_07`: as many digits as the last shard of `count` needs, at least two."""
    return f"shard_{number:0{max(2, len(str(count - 1)))}d}"


def read_set(folder: Path) -> ShardSet | None:
    """The set that lies in the folder; None if there is none, or one that is being written."""
    try:
        return jsonl.decode((folder / SET_FILE).read_bytes(), ShardSet)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.DecodeError as error:
        raise InputError(
            f"not a shard set ({error})", where=str(folder / SET_FILE), remedy="Split the index again."
        ) from None


def write_set(index_path: Path, folder: Path, *, profile: str, date: str, count: int) -> tuple[ShardSet, list[str]]:
    """Splits an index into `count` shards of consecutive rows, with the columns `bad_row` and `row` behind its own.

    Gives the set and what is malformed about rows, one text each. `shards.json` goes first and comes back last, so that
    a set that is not whole is never taken for one.

    Raises:
        InputError: the index is missing, no CSV, or has no rows.
        StorageError: the disk refused.
    """
    files = [folder / f"{shard_name(number, count)}.csv" for number in range(count)]
    refuse_clashes([("the split", index_path)], [("a shard", file) for file in files])
    problems: list[str] = []
    with open_index(index_path) as index:
        total = sum(1 for _ in index)
        refuse_shard_columns(index)
    if total == 0:
        raise InputError("no rows: there is nothing to split", where=str(index_path), remedy="Make the index again.")
    digest = file_digest(index_path)
    sizes = [total // count + (number < total % count) for number in range(count)]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SET_FILE).unlink(missing_ok=True)
    with open_index(index_path) as index:
        header = to_csv_line([*index.header, BAD_COLUMN, ROW_COLUMN]).encode()
        rows = enumerate(index)
        for file, size in zip(files, sizes, strict=True):
            with writing(file) as out:
                out.write(header)
                for row, raw in islice(rows, size):
                    if raw.bad:
                        problems.append(raw.bad)
                    out.write(to_csv_line([*raw.cells, raw.bad or "", row]).encode())
        surplus = next(rows, None)
    if surplus is not None or file_digest(index_path) != digest:
        raise InputError("it changed while it was split", where=str(index_path), remedy="Split it again.")
    shards = ShardSet(
        source=str(index_path),
        digest=digest,
        date=date,
        count=count,
        rows=sizes,
        bad_rows=len(problems),
        profile=profile,
        digests=[file_digest(file) for file in files],
    )
    names = {file.name for file in files}
    with storage_errors(folder):
        for old in folder.glob("shard_*"):
            if old.name not in names:
                old.unlink()
    write_bytes(folder / SET_FILE, jsonl.encode_document(shards))
    return shards, problems


def find_set(partition: Partition, pattern: str | None) -> tuple[Path, ShardSet]:
    """The folder and the set that `--shard-glob` names (default: the partition's own).

    Raises:
        InputError: nothing matches, or the shards are of another date, another index, or not all there; the message
            names the split command that mends it.
    """
    pattern = pattern or f"{glob.escape(str(partition.shards))}/shard_*.csv"
    matches = glob.glob(pattern)  # noqa: PTH207 - the pattern is relative to where we are
    found = [path for path in map(Path, matches) if path.suffix == ".csv" and path.is_file()]
    mend = f"Mend it with: modbot split --profile {partition.profile} --date {partition.date} --shards N"
    if not found:
        where = f"OUT_DIR is {partition.out_dir}"
        raise InputError(f"no shard matches {pattern} ({where})", where="--shard-glob", remedy=mend)
    folders = {path.parent for path in found}
    if len(folders) > 1:
        raise InputError(
            f"{pattern} matches shards of several folders", where="--shard-glob", remedy="Name one folder."
        )
    folder = folders.pop()
    shards = read_set(folder)
    if shards is None:
        raise InputError("no shards.json: the split did not end", where=str(folder), remedy=mend)
    mend = mend.replace(" N", f" {shards.count}")
    of_this_day = shards.date == partition.date and shards.profile in {None, partition.profile}
    if of_this_day and Path(shards.source) != partition.index:
        # Only then is that source this day's own: another day's index must never be offered for it.
        mend += f" --input {shards.source}"
    what = _mismatch(shards, partition, {path.name for path in found}, folder)
    if what is not None:
        raise InputError(what, where=str(folder), remedy=mend)
    return folder, shards


def _mismatch(shards: ShardSet, partition: Partition, found: set[str], folder: Path) -> str | None:
    """What makes these shards others than those of the partition's index as it is now; None if nothing does."""
    if shards.date != partition.date:
        return f"the shards are of {shards.date}, not of {partition.date}"
    if shards.profile not in {None, partition.profile}:
        return f"the shards are of profile {shards.profile}, not of {partition.profile}"
    files = [f"{name}.csv" for name in shards.names()]
    if found != set(files):
        return f"{counted(len(found), 'shard matches', 'shards match')} where shards.json counts {shards.count}"
    source = Path(shards.source)
    if source.exists() and file_digest(source) != shards.digest:
        return f"the shards are not of {source} as it is now"
    changed = (
        file for file, digest in zip(files, shards.digests, strict=False) if file_digest(folder / file) != digest
    )
    file = next(changed, None)
    return None if file is None else f"{file} was changed after the split"
