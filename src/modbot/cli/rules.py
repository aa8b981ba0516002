"""`modbot rules`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modbot.cli.judging import MODES, environment_mode
from modbot.cli.options import PATH
from modbot.errors import RulesError
from modbot.files.paths import RULES_FILE
from modbot.settings import load

if TYPE_CHECKING:
    from modbot.rules import Loaded, Mode
    from modbot.stages.rulebook import Rulebook

LEFT_OUT = frozenset({"R2-E001", "R2-E002", "R2-D001", "R2-V001"})
"""The codes of what leaves a single rule or feature out."""


@click.group(epilog="Example: modbot rules validate --rules configs/rules.yaml --mode strict")
def rules() -> None:
    """Check a rules file."""


@rules.command(epilog="Example: modbot rules validate --rules configs/rules_candidate.yaml --mode strict")
@click.option("--rules", "path", type=PATH, default=RULES_FILE, show_default=True, help="Rules file.")
@click.option("--mode", type=MODES, help="Mode.  [default: MODBOT_DSL_MODE, the file's dsl_mode, warn]")
@click.option("--print-config", is_flag=True, help="Print the file's digest, the mode and which source won.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@click.option("--treat-warnings-as-errors", is_flag=True, help="Exit 2 for a warning, too.")
@click.option("--allow-disabled", is_flag=True, help="Exit 0 where only rules and features were left out.")
def validate(
    *,
    path: Path,
    mode: Mode | None,
    print_config: bool,
    as_json: bool,
    treat_warnings_as_errors: bool,
    allow_disabled: bool,
) -> None:
    """Check a rules file: exit code 0 where all of it runs, 2 otherwise."""
    from modbot.records.jsonl import encode_document
    from modbot.rules import render
    from modbot.stages.rulebook import ModeRequest, open_rulebook

    book = open_rulebook(path, ModeRequest(flag=mode, environment=environment_mode(load()), name="--mode"))
    loaded = book.loaded
    if as_json:
        click.echo(encode_document(_document(book)).decode(), nl=False)
    else:
        if print_config:
            click.echo(encode_document(book.shown).decode(), nl=False)
        if loaded.issues:
            click.echo(render(loaded.issues))
    errors, warnings = (sum(issue.level == level for issue in loaded.issues) for level in ("error", "warning"))
    refused = not _accepted(loaded, allow_disabled=allow_disabled) or (treat_warnings_as_errors and warnings > 0)
    if refused:
        raise RulesError(f"{loaded.status}: {errors} errors, {warnings} warnings (mode {loaded.mode})", where=str(path))
    if not as_json:
        count = 0 if loaded.ruleset is None else len(loaded.ruleset.rules)
        click.echo(f"{path}: {loaded.status}, {count} rules, {errors} errors, {warnings} warnings (mode {loaded.mode})")


def _accepted(loaded: Loaded, *, allow_disabled: bool) -> bool:
    if loaded.status == "ok":
        return True
    left_out = all(issue.code in LEFT_OUT for issue in loaded.issues if issue.level == "error")
    return loaded.status == "invalid" and allow_disabled and left_out


def _document(book: Rulebook) -> dict[str, Any]:
    ruleset = book.loaded.ruleset
    return {
        **book.shown,
        "legacy": book.loaded.legacy,
        "rule_ids": [] if ruleset is None else [rule.id for rule in ruleset.rules],
        "groups": {} if ruleset is None else {name: len(group.items) for name, group in ruleset.groups.items()},
        "thresholds": {} if ruleset is None else dict(ruleset.thresholds),
        "issues": book.loaded.issues,
    }
