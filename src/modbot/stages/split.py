"""p0: the day's index, split into shards."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from modbot.errors import SettingError
from modbot.files.lease import hold
from modbot.files.paths import Partition
from modbot.files.shards import MAX_SHARDS, ShardSet, read_set, write_set


def split(partition: Partition, *, count: int, source: Path | None, folder: Path | None) -> tuple[ShardSet, list[str]]:
    """Splits `source` (default: the partition's index) into `count` shards below `folder` (default: the partition's).

    Gives the set and a text for each malformed row. Shards of another day in the folder are replaced, and not while a
    run is at work on that day.

    Raises:
        InputError, SettingError, BusyError, StorageError
    """
    if count > MAX_SHARDS:
        raise SettingError(f"{count} is more than {MAX_SHARDS}", where="--shards", remedy="Use fewer shards.")
    folder = folder or partition.shards
    before = read_set(folder)
    dates = {partition.date} | ({before.date} if before is not None else set())
    with ExitStack() as leases:
        for date in sorted(dates):
            leases.enter_context(hold(replace(partition, date=date), "modbot split"))
        return write_set(source or partition.index, folder, profile=partition.profile, date=partition.date, count=count)
