"""`modbot rules`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modbot.cli.judging import MODES, const_option, environment_mode
from modbot.cli.options import PATH, partition, partition_options
from modbot.errors import RulesError, UnmetError
from modbot.files.paths import RULES_FILE
from modbot.settings import load
from modbot.words import counted

if TYPE_CHECKING:
    from modbot.cli.explaining import Line
    from modbot.rules import Loaded, Mode
    from modbot.stages.rule_tests import RanTests, Tested
    from modbot.stages.rulebook import Rulebook

LEFT_OUT = frozenset({"R2-E001", "R2-E002", "R2-D001", "R2-V001"})
"""The codes of what leaves a single rule or feature out."""


@click.group(epilog="Example: modbot rules validate --rules configs/rules.yaml --mode strict")
def rules() -> None:
    """Check a rules file, and run its own tests."""


@rules.command(epilog="Example: modbot rules validate --rules configs/rules_candidate.yaml --mode strict")
@click.option("--rules", "path", type=PATH, default=RULES_FILE, show_default=True, help="Rules file.")
@click.option("--mode", type=MODES, help="Mode.  [default: MODBOT_DSL_MODE, the file's dsl_mode, warn]")
@click.option("--vocabulary", type=PATH, help="A tagger's selected_tags.csv: warn of tags that it does not have.")
@click.option("--print-config", is_flag=True, help="Print the file's digest, the mode and which source won.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@click.option("--treat-warnings-as-errors", is_flag=True, help="Exit 2 for a warning, too.")
@click.option("--allow-disabled", is_flag=True, help="Exit 0 where only rules and features were left out.")
def validate(
    *,
    path: Path,
    mode: Mode | None,
    vocabulary: Path | None,
    print_config: bool,
    as_json: bool,
    treat_warnings_as_errors: bool,
    allow_disabled: bool,
) -> None:
    """Check a rules file: exit code 0 where all of it runs and all of its own tests pass, 2 otherwise."""
    from modbot.cli.explaining import unlogged
    from modbot.records.jsonl import encode_document
    from modbot.rules import render
    from modbot.stages.rule_tests import run_tests
    from modbot.stages.rulebook import ModeRequest, open_rulebook

    modes = ModeRequest(flag=mode, environment=environment_mode(load()), name="--mode")
    book = open_rulebook(path, modes, tags=None if vocabulary is None else _tags(vocabulary))
    loaded = book.loaded
    with unlogged():
        ran = None if loaded.ruleset is None else run_tests(book)
    if as_json:
        click.echo(encode_document(_document(book, ran)).decode(), nl=False)
    else:
        if print_config:
            click.echo(encode_document(book.shown).decode(), nl=False)
        if loaded.issues:
            click.echo(render(loaded.issues))
        _tell_failed(path, ran)
    errors, warnings = (sum(issue.level == level for issue in loaded.issues) for level in ("error", "warning"))
    counts = f"{counted(errors, 'error')}, {counted(warnings, 'warning')}{_tests(ran)} (mode {loaded.mode})"
    refused = not _accepted(loaded, allow_disabled=allow_disabled) or (treat_warnings_as_errors and warnings > 0)
    if refused or (ran is not None and not ran.is_good):
        status = "refused" if loaded.status == "ok" else loaded.status
        raise RulesError(f"{status}: {counts}", where=str(path))
    if not as_json:
        count = 0 if loaded.ruleset is None else len(loaded.ruleset.rules)
        click.echo(f"{path}: {loaded.status}, {counted(count, 'rule')}, {counts}")


def _tags(vocabulary: Path) -> frozenset[str]:
    """The normalised tags that records have from a tagger: those of images in general, none of characters."""
    from modbot.models.tagger import read_tags
    from modbot.records.tags import normalise

    known = read_tags(vocabulary)
    return frozenset(normalise(known.names[index]) for index in known.general)


def _accepted(loaded: Loaded, *, allow_disabled: bool) -> bool:
    if loaded.status == "ok":
        return True
    left_out = all(issue.code in LEFT_OUT for issue in loaded.issues if issue.level == "error")
    return loaded.status == "invalid" and allow_disabled and left_out


def _tests(ran: RanTests | None) -> str:
    return f", {ran.summary}" if ran is not None and (ran.results or ran.broken) else ""


def _document(book: Rulebook, ran: RanTests | None) -> dict[str, Any]:
    ruleset = book.loaded.ruleset
    return {
        **book.shown,
        "legacy": book.loaded.legacy,
        "rule_ids": [] if ruleset is None else [rule.id for rule in ruleset.rules],
        "groups": {} if ruleset is None else {name: len(group.items) for name, group in ruleset.groups.items()},
        "thresholds": {} if ruleset is None else dict(ruleset.thresholds),
        "issues": book.loaded.issues,
        "tests": None if ran is None else ran.shown,
    }


@rules.command(epilog="Example: modbot rules test --rules configs/rules_candidate.yaml")
@click.option("--rules", "path", type=PATH, default=RULES_FILE, show_default=True, help="Rules file.")
@click.option("--mode", type=MODES, help="Mode.  [default: MODBOT_DSL_MODE, the file's dsl_mode, warn]")
@const_option
@click.option("--json", "as_json", is_flag=True, help="The results as JSON.")
@click.option("--record", metavar="LINK", help="Run no tests: print the images of this message as tests.")
@partition_options
@click.option("--analysis", type=PATH, help="With --record: p2 records.  [default: the day's own]")
def test(
    *,
    path: Path,
    mode: Mode | None,
    consts: tuple[tuple[str, float], ...],
    as_json: bool,
    record: str | None,
    profile: str | None,
    date: str,
    analysis: Path | None,
) -> None:
    """Run the tests of a rules file: exit code 1 where one does not come out as it expects.

    With --record, --profile and --date, print what a message's images were judged as, ready to stand under `tests:`:
    no links, no members, and of the tags those that the rules can see.
    """
    from modbot.cli.explaining import unlogged
    from modbot.rules import render
    from modbot.stages.rule_tests import run_tests
    from modbot.stages.rulebook import ModeRequest, open_rulebook

    settings = load()
    modes = ModeRequest(flag=mode, environment=environment_mode(settings), name="--mode")
    book = open_rulebook(path, modes, consts=dict(consts))
    if record is not None:
        part = partition(settings, profile, date)
        _print_records(book, record, part.date, analysis or part.merged("p2"))
        return
    with unlogged():
        ran = run_tests(book)
    if as_json:
        from modbot.records.jsonl import encode_document

        click.echo(encode_document({**book.shown, "tests": ran.shown}).decode(), nl=False)
    else:
        if ran.broken:
            click.echo(render(book.loaded.issues))
        _tell_failed(path, ran)
    if not ran.is_good:
        raise UnmetError(f"{ran.summary} (mode {book.mode})", where=str(path))
    if not as_json:
        click.echo(f"{path}: {ran.summary}{', all passed' if ran.results else ''} (mode {book.mode})")


def _print_records(book: Rulebook, link: str, date: str, analysis: Path) -> None:
    from modbot.cli.explaining import unlogged
    from modbot.records.finding import UNJUDGED
    from modbot.stages.explain import by_message, find
    from modbot.stages.rule_tests import as_test, as_yaml

    judge = book.judge(UNJUDGED)
    with unlogged():
        judged = [judge(reading) for reading in find(analysis, by_message(link), f"the message {link}")]
    tests = [as_test(judge, each, f"{date}, row {each.reading.evidence.row}") for each in judged]
    click.echo(as_yaml(tests), nl=False)


def _tell_failed(path: Path, ran: RanTests | None) -> None:
    from modbot.cli.explaining import echo

    for result in () if ran is None else ran.failed:
        echo(_failed(path, result))


def _failed(path: Path, result: Tested) -> Iterator[Line]:
    """A test that came out otherwise: what was expected, what it got, and why."""
    from modbot.cli.explaining import line, of_rules, verdict

    expected, got = result.case.expect, result.got
    yield line(0, f"{path}:{result.case.line}: {result.case.name}", "head")
    yield line(1, f"expected {_outcome({**got, **expected})}, got {_outcome(got)}", "bad")
    yield from verdict(result.explained, depth=1)
    yield from of_rules(result.explained, {expected.get("rule_id"), got["rule_id"]}, depth=1)
    yield line(0, "")


def _outcome(told: Mapping[str, str | None]) -> str:
    return f"{told['severity']} ({told['rule_id'] or 'no rule'})"
