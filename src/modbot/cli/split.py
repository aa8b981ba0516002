"""`modbot split`."""

from __future__ import annotations

from pathlib import Path

import click

from modbot.cli.options import COUNT, PATH, partition, partition_options
from modbot.files.paths import date_of_index
from modbot.settings import load
from modbot.words import counted

SHOWN_PROBLEMS = 10


@click.command(epilog="Example: modbot split --date 2025-10-01 --shards 10")
@partition_options
@click.option("--shards", "count", type=COUNT, default=10, show_default=True, help="How many shards.")
@click.option("--input", "source", type=PATH, help="Index CSV.  [default: OUT_DIR/profiles/NAME/p0/p0_DAY.csv]")
@click.option(
    "--out-dir", "folder", type=PATH, help="Folder of the shards.  [default: OUT_DIR/profiles/NAME/p0/shards]"
)
def split(profile: str | None, date: str, count: int, source: Path | None, folder: Path | None) -> None:
    """p0: split the day's index into shards.

    A malformed row is reported with its line number and carried to the end as a record with an error.
    """
    from modbot.stages.split import split as run

    part = partition(load(), profile, date)
    of = None if source is None else date_of_index(source)
    if of is not None and of != part.date:
        click.echo(
            f"warning: {source} is by its name the index of {of}; its rows become those of {part.date}", err=True
        )
    shards, problems = run(part, count=count, source=source, folder=folder)
    for problem in problems[:SHOWN_PROBLEMS]:
        click.echo(f"{shards.source}, {problem}", err=True)
    if len(problems) > SHOWN_PROBLEMS:
        click.echo(f"… and {counted(len(problems) - SHOWN_PROBLEMS, 'more malformed row')}", err=True)
    bad = f", {len(problems)} malformed (each becomes a record with an error)" if problems else ""
    click.echo(f"{counted(shards.total, 'row')}{bad} in {counted(shards.count, 'shard')}: {folder or part.shards}")
