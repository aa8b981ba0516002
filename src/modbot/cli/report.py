"""`modbot report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modbot.cli.judging import kept_of, severities, severity_option
from modbot.cli.options import PATH, partition, partition_options
from modbot.files.outputs import refuse_clashes
from modbot.settings import load
from modbot.words import counted

if TYPE_CHECKING:
    from modbot.records.finding import Severity


@click.command(epilog="Example: modbot report --date 2025-10-01 --severity red,orange --out red.csv")
@partition_options
@severity_option
@click.option("--findings", type=PATH, help="Findings.  [default: OUT_DIR/profiles/NAME/p3/findings_DAY.jsonl]")
@click.option("--out", type=PATH, help="Report CSV.  [default: OUT_DIR/profiles/NAME/p3/report_DAY.csv]")
def report(
    profile: str | None, date: str, severity: tuple[tuple[Severity, ...], ...], findings: Path | None, out: Path | None
) -> None:
    """Write the report CSV from the findings.

    A report that leaves findings out is report_DAY.part.csv, unless --out names another: the day's own report is only
    ever replaced by the whole day's.
    """
    from modbot.stages.report import report_files, write_report

    part = partition(load(), profile, date)
    files = report_files(part, findings=findings, out=out)
    refuse_clashes(
        [*kept_of(part), ("--findings", findings or part.findings)],
        [("--out", files.whole), ("--out", files.part)],
    )
    written = write_report(part, severities(severity), findings=findings, out=out)
    left_out = f", {written.left_out} left out" if written.left_out else ""
    click.echo(f"{counted(written.rows, 'finding')}{left_out}: {written.path}")
