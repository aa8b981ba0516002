"""`modbot explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modbot.cli.judging import const_option, environment_mode, mode_option, unjudged_option
from modbot.cli.options import PATH, partition, partition_options
from modbot.errors import RequestError
from modbot.files.paths import RULES_FILE
from modbot.settings import load

if TYPE_CHECKING:
    from modbot.records.finding import Severity
    from modbot.rules import Mode
    from modbot.stages.explain import Wanted


@click.command(
    epilog="Example: modbot explain --date 2025-10-01 --message https://discord.com/channels/1/2/3 "
    "--rules configs/rules.yaml"
)
@partition_options
@click.option("--message", metavar="LINK", help="The images of this message.")
@click.option("--sha256", metavar="HEX", help="The image of this digest; its first 8 digits are enough.")
@click.option("--row", type=click.IntRange(min=0), help="The image of this row of the index; they count from 0.")
@click.option("--rules", "rules_file", type=PATH, default=RULES_FILE, show_default=True, help="Rules file.")
@click.option("--analysis", type=PATH, help="p2 records.  [default: OUT_DIR/profiles/NAME/p2/p2_DAY.jsonl]")
@mode_option
@const_option
@unjudged_option
@click.option("--json", "as_json", is_flag=True, help="The explanation as JSON.")
def explain(
    *,
    profile: str | None,
    date: str,
    message: str | None,
    sha256: str | None,
    row: int | None,
    rules_file: Path,
    analysis: Path | None,
    dsl_mode: Mode | None,
    consts: tuple[tuple[str, float], ...],
    unjudged: Severity,
    as_json: bool,
) -> None:
    """Why a record got its verdict: every rule, every part of it, and how near the next worse verdict is.

    Judges the record anew by the rules file as it is now; writes nothing. A message of several images gives one
    explanation for each.
    """
    from modbot.cli.explaining import Line, echo, explained, unlogged
    from modbot.records.jsonl import encode_document
    from modbot.stages.explain import explain as explain_record
    from modbot.stages.explain import find
    from modbot.stages.rulebook import ModeRequest, open_rulebook

    wanted, what = _wanted(message, sha256, row)
    settings = load()
    part = partition(settings, profile, date)
    modes = ModeRequest(flag=dsl_mode, environment=environment_mode(settings))
    book = open_rulebook(rules_file, modes, consts=dict(consts))
    judge = book.judge(unjudged)
    source = analysis or part.merged("p2")
    with unlogged():
        records = [explain_record(judge, judge(reading)) for reading in find(source, wanted, what)]
    if as_json:
        shown = {
            "profile": part.profile,
            "date": part.date,
            "analysis": str(source),
            "rules": book.shown,
            "records": [record.shown for record in records],
        }
        click.echo(encode_document(shown).decode(), nl=False)
        return
    click.echo(book.banner, err=True)
    for place, record in enumerate(records, 1):
        if len(records) > 1:
            echo([Line(0, f"record {place} of {len(records)}", "head")])
        echo(explained(record))
        if place < len(records):
            click.echo()


def _wanted(message: str | None, sha256: str | None, row: int | None) -> tuple[Wanted, str]:
    """Which records are asked for, and the same in words."""
    from modbot.stages.explain import by_message, by_row, by_sha256

    match message, sha256, row:
        case str(), None, None:
            return by_message(message), f"the message {message}"
        case None, str(), None:
            return by_sha256(sha256), f"the image {sha256}"
        case None, None, int():
            return by_row(row), f"row {row}"
        case _:
            raise RequestError("which record?", remedy="Name it by one of --message, --sha256 and --row.")
