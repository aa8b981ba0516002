"""p0: the day's index, from wherever it comes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from modbot.errors import InputError
from modbot.files.atomic import writing
from modbot.files.index_csv import index_lines
from modbot.files.lease import hold
from modbot.files.outputs import refuse_clashes
from modbot.files.paths import Partition


def write_index(
    partition: Partition, rows: Iterable[dict[str, object]], *, source: Path, out: Path | None, replace: bool
) -> int:
    """Writes the rows, which `source` gave, as the partition's index (or to `out`), and gives their number.

    Raises:
        InputError: there is an index already and `replace` is not set, or there are no rows.
        BusyError, StorageError
    """
    path = out or partition.index
    refuse_clashes([("SOURCE", source)], [("--out", path)])
    with hold(partition, "modbot index"):
        if path.exists() and not replace:
            raise InputError("there is an index already", where=str(path), remedy="Add --replace to replace it.")
        count = -1  # the header
        with writing(path) as target:
            for line in index_lines(rows):
                target.write(line)
                count += 1
            if count == 0:
                raise InputError("nothing to index", where=str(path), remedy="Name a folder or list that holds images.")
    return count
