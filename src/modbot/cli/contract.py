"""`modbot contract`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modbot.cli.options import PATH, partition, partition_options
from modbot.errors import UnmetError
from modbot.settings import load
from modbot.words import counted

if TYPE_CHECKING:
    from modbot.stages.contract import Checked


@click.group(epilog="Example: modbot contract check-findings --date 2025-10-01")
def contract() -> None:
    """Check findings or a report against their contract."""


@contract.command(epilog="Example: modbot contract check-findings --date 2025-10-01")
@partition_options
@click.option("--findings", type=PATH, help="Findings.  [default: OUT_DIR/profiles/NAME/p3/findings_DAY.jsonl]")
def check_findings(profile: str | None, date: str, findings: Path | None) -> None:
    """Validate every line of the findings against docs/contracts/p3_findings.schema.json.

    Exit code 1 and the line and key of what is wrong, where something is.
    """
    from modbot.stages.contract import check_findings as check

    path = findings or partition(load(), profile, date).findings
    _tell(path, check(path), "finding")


@contract.command(epilog="Example: modbot contract check-report --date 2025-10-01")
@partition_options
@click.option("--report", type=PATH, help="Report.  [default: OUT_DIR/profiles/NAME/p3/report_DAY.csv]")
@click.option("--findings", type=PATH, help="The findings that the report is of.  [default: the day's, where they are]")
def check_report(profile: str | None, date: str, report: Path | None, findings: Path | None) -> None:
    """Check the report's header, each row's severity and numbers, and its rows against the findings.

    Exit code 1 and the row and column of what is wrong, where something is.
    """
    from modbot.stages.contract import check_report as check

    part = partition(load(), profile, date)
    path = report or part.report
    usual = part.findings if report is None and part.findings.exists() else None
    _tell(path, check(path, findings or usual), "row")


def _tell(path: Path, checked: Checked, what: str) -> None:
    if not checked.count:
        click.echo(f"{path}: {counted(checked.lines, what)}, as the contract says")
        return
    for problem in checked.problems:
        click.echo(f"{path}, {problem}")
    if checked.count > len(checked.problems):
        click.echo(f"… and {checked.count - len(checked.problems)} more")
    raise UnmetError(
        f"{counted(checked.count, 'breach', 'breaches')} of the contract in {counted(checked.lines, what)}",
        where=str(path),
        remedy="docs/contracts/p3.md says what is expected.",
    )
