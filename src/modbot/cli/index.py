"""`modbot index`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from modbot.cli.options import PATH, partition, partition_options
from modbot.settings import load
from modbot.words import counted

_OUT = click.option("--out", type=PATH, help="Index CSV.  [default: OUT_DIR/profiles/NAME/p0/p0_DAY.csv]")
_REPLACE = click.option("--replace", is_flag=True, help="Replace the index that is there.")


@click.group(epilog="Example: modbot index folder photos --date 2025-10-01")
def index() -> None:
    """Make the p0 index: one row for each link to an image."""


@index.command(epilog="Example: modbot index folder photos --date 2025-10-01")
@click.argument("source", type=PATH)
@partition_options
@_OUT
@_REPLACE
def folder(source: Path, profile: str | None, date: str, out: Path | None, replace: bool) -> None:  # noqa: FBT001 - click
    """Index every file below the folder SOURCE, as file: links; hidden files and symbolic links are passed over.

    They are read only below MODBOT_FILE_ROOT: set it to SOURCE, or a folder above it, before p1.
    """
    from modbot.sources import folder as source_of

    _write(source_of.rows(source), source, profile, date, out, replace=replace)
    root = load().file_root
    if root is None or not source.resolve().is_relative_to(root.resolve()):
        now = root or "not set"
        click.echo(f"warning: p1 reads only below MODBOT_FILE_ROOT ({now}): set it to {source.resolve()}", err=True)


@index.command(epilog="Example: modbot index urls links.txt --date 2025-10-01")
@click.argument("source", type=PATH)
@partition_options
@_OUT
@_REPLACE
def urls(source: Path, profile: str | None, date: str, out: Path | None, replace: bool) -> None:  # noqa: FBT001 - click
    """Index the links in the file SOURCE, one a line; lines that begin with # are passed over.

    Links to hosts other than Discord's are fetched only if --allow-host or MODBOT_ALLOW_HOSTS names the host.
    """
    from modbot.sources import urls as source_of

    _write(source_of.rows(source), source, profile, date, out, replace=replace)


def _write(
    rows: Iterable[dict[str, object]], source: Path, profile: str | None, date: str, out: Path | None, *, replace: bool
) -> None:
    from modbot.stages.index import write_index

    part = partition(load(), profile, date)
    count = write_index(part, rows, source=source, out=out, replace=replace)
    click.echo(f"{counted(count, 'row')}: {out or part.index}")
