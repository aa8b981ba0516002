"""The flags of the commands that judge, and the rules file that they name."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from modbot.cli.options import COUNT, day, partition
from modbot.errors import InputError, RequestError, SettingError
from modbot.files.paths import HASHLISTS_FILE, XSIGNALS_FILE
from modbot.records.finding import SEVERITIES, UNJUDGED
from modbot.settings import Settings

if TYPE_CHECKING:
    from modbot.files.paths import Partition
    from modbot.records.finding import Severity
    from modbot.rules import Mode
    from modbot.stages.rulebook import Rulebook

F = TypeVar("F", bound=Callable[..., Any])

MODES = click.Choice(["warn", "strict"])
FROM_TO = ".."
DATE = "{date}"
MOST_JOBS = 4
"""Processes that are begun without being asked for."""


class Severities(click.ParamType[tuple[str, ...]]):
    """One or more severities, separated by commas."""

    name = "severity"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip().lower() for name in str(value).split(","))
        for name in names:
            if name not in SEVERITIES:
                self.fail(f"{name!r} is no severity; use {', '.join(SEVERITIES)}", param, ctx)
        return names


class Const(click.ParamType[tuple[str, float]]):
    """`NAME=VALUE`: a number that the rules read as `const_NAME`."""

    name = "const"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        name, _, text = str(value).partition("=")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not name.isidentifier() or not math.isfinite(number):
            self.fail(f"{value!r} is no NAME=NUMBER", param, ctx)
        return name, number


def severity_option(command: F) -> F:
    """`--severity`: the command gets a tuple of tuples, for `severities()`."""
    return click.option(
        "--severity", "severity", type=Severities(), multiple=True, metavar="NAME[,NAME]", help="Only these severities."
    )(command)


def severities(given: Iterable[tuple[Severity, ...]]) -> frozenset[Severity]:
    """What `--severity` names."""
    return frozenset(name for names in given for name in names)


def mode_option(command: F) -> F:
    """`--dsl-mode`."""
    return click.option(
        "--dsl-mode", type=MODES, help="Mode of the rules.  [default: MODBOT_DSL_MODE, the file's dsl_mode, warn]"
    )(command)


def const_option(command: F) -> F:
    """`--const`, repeatable: the command gets pairs of name and number."""
    return click.option(
        "--const", "consts", type=Const(), multiple=True, metavar="NAME=VALUE", help="Another value for const_NAME."
    )(command)


def unjudged_option(command: F) -> F:
    """`--unjudged`."""
    return click.option(
        "--unjudged",
        type=click.Choice(["red", "orange", "yellow"]),
        default=UNJUDGED,
        show_default=True,
        help="Severity of a record that could not be judged.",
    )(command)


def jobs_option(command: F) -> F:
    """`--jobs`: the command gets a number, or None."""
    return click.option(
        "--jobs",
        type=COUNT,
        help="Processes that judge: a large day in so many parts, or so many days at once.  "
        f"[default: one a core, at most {MOST_JOBS}]",
    )(command)


def crew_size(found: Sequence[tuple[Partition, Path]], jobs: int | None, *, whole: bool = False) -> int:
    """How many processes judge beside this one: 0 where it does so itself, which it does with a few records.

    `whole`: a day must be judged in one piece.
    """
    from modbot.stages.lines import worth

    count = min(MOST_JOBS, len(os.sched_getaffinity(0))) if jobs is None else jobs
    paths = [analysis for _, analysis in found]
    if len(paths) > 1:
        count = min(count, len(paths))
    elif whole:
        return 0
    size = min(count, worth(paths))
    return size if size > 1 else 0


def environment_mode(settings: Settings) -> Mode | None:
    """What MODBOT_DSL_MODE says."""
    mode: Literal["warn", "strict"] | None = (
        "strict" if settings.dsl_mode == "strict" else "warn" if settings.dsl_mode == "warn" else None
    )
    return mode


def days(text: str, tz: str) -> list[str]:
    """The days of `A..B`, both included. Raises SettingError."""
    first, dots, last = text.partition(FROM_TO)
    if not dots:
        raise SettingError(f"{text!r} is no range", where="--dates", remedy="Give two days: 2025-09-01..2025-09-30.")
    found = list(_between(date.fromisoformat(day(first, tz)), date.fromisoformat(day(last, tz))))
    if not found:
        raise SettingError(f"{text!r} ends before it begins", where="--dates", remedy="Give the earlier day first.")
    return found


def _between(first: date, last: date) -> Iterator[str]:
    for number in range((last - first).days + 1):
        yield (first + timedelta(days=number)).isoformat()


def dated(path: Path | None, date_: str, flag: str, *, many: bool) -> Path | None:
    """The path with the day in the place of `{date}`; over several days it must hold one. Raises RequestError."""
    if path is None:
        return None
    if many and DATE not in str(path):
        raise RequestError(
            f"{path} would hold every day", where=flag, remedy=f"With --dates, put {DATE} into the path."
        )
    return Path(str(path).replace(DATE, date_)) if many else path


def days_of(
    settings: Settings, profile: str | None, date_: str, dates: str | None, analysis: Path | None
) -> tuple[list[tuple[Partition, Path]], list[str]]:
    """The partitions that `--date` or `--dates` names, each with its p2 records (`--analysis` or their own place).

    Of several days, those without p2 records are told on stderr, left out, and given by date behind the others.

    Raises:
        SettingError, RequestError: the days or `--analysis` cannot be used.
        InputError: none of several days has p2 records.
    """
    many = dates is not None
    wanted = [date_] if dates is None else days(dates, settings.tz)
    parts = [partition(settings, profile, name) for name in wanted]
    found = [(part, dated(analysis, part.date, "--analysis", many=many) or part.merged("p2")) for part in parts]
    if not many:
        return found, []
    missing = [part.date for part, path in found if not path.exists()]
    if len(missing) == len(found):
        raise InputError("no day of the range has p2 records", where="--dates", remedy="Analyze the days first.")
    if missing:
        click.echo(f"no p2 records, left out: {', '.join(missing)}", err=True)
    return [(part, path) for part, path in found if part.date not in missing], missing


def inputs_of(found: Iterable[tuple[Partition, Path]]) -> Iterator[tuple[str, Path]]:
    """What a command reads that judges these days, by flag or name: no output may be one of these."""
    for part, analysis in found:
        yield from kept_of(part)
        yield "--analysis", analysis


def kept_of(part: Partition) -> Iterator[tuple[str, Path]]:
    """What the other commands of the day read: no output of p3 may be one of these either."""
    yield "every command", HASHLISTS_FILE
    yield "every command", XSIGNALS_FILE
    yield "modbot split", part.index
    yield "modbot analyze", part.merged("p1")
    yield "modbot scan", part.merged("p2")


def tell_rules(book: Rulebook, side: str = "") -> None:
    """The banner on stderr, and what is wrong with rules that run all the same."""
    from modbot.rules import render

    click.echo(f"{side} {book.banner}".strip(), err=True)
    if book.loaded.ruleset is not None and book.loaded.issues:
        click.echo(render(book.loaded.issues), err=True)
