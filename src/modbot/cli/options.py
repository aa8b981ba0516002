"""The flags that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click

from modbot.errors import InputError, SettingError
from modbot.files.paths import Partition, check_date, check_profile
from modbot.settings import Settings, count, qps

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


class Count(click.ParamType[int]):
    """A whole number of at least 1."""

    name = "count"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return count(str(value))
        except ValueError:
            self.fail(f"{value!r} is no whole number of at least 1", param, ctx)


class Qps(click.ParamType[float]):
    """Requests a second: a number above 0, or `unlimited`."""

    name = "qps"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else qps(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a number above 0 nor 'unlimited'", param, ctx)


COUNT = Count()
QPS = Qps()


def partition_options(command: F) -> F:
    """`--profile` and `--date`; the command turns them into its partition by `partition()`."""
    profile = click.option("--profile", metavar="NAME", help="Partition tree under OUT_DIR.  [default: MODBOT_PROFILE]")
    date = click.option(
        "--date", metavar="DAY", default="today", show_default=True, help="YYYY-MM-DD, 'today' or 'yesterday'."
    )
    return profile(date(command))


def partition(settings: Settings, profile: str | None, date: str) -> Partition:
    """The partition that `--profile` and `--date` name. Raises SettingError for a name or a date that is none."""
    name = check_profile(settings.profile if profile is None else profile)
    return Partition(settings.out_dir, name, day(date, settings.tz))


def day(text: str, tz: str) -> str:
    """`YYYY-MM-DD`, `today` or `yesterday` (at midnight of `tz`) as YYYY-MM-DD."""
    back = {"today": 0, "yesterday": 1}.get(text)
    if back is None:
        return check_date(text)
    return (datetime.now(ZoneInfo(tz)).date() - timedelta(days=back)).isoformat()


def read_input(path: Path, *, what: str, remedy: str) -> bytes:
    """The bytes of an input file; raises InputError that names it, what it is and how to come by it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{what} cannot be read ({error.strerror})", where=str(path), remedy=remedy) from None


def require_engine(engine: str) -> None:
    """The shards run on this machine; further engines have their place behind this flag."""
    if engine != "local":
        raise SettingError(f"there is no engine {engine!r} yet", where="--engine", remedy="Use --engine local.")


def tell_unmatchable(models: Sequence[str], rules: Path | None) -> None:
    """Says under which small tagger the day stands, and which rules cannot match what it sees."""
    from modbot.stages.rulebook import unmatchable_under

    unmatchable = unmatchable_under(models, rules)
    if unmatchable:
        click.echo(f"cannot match under {', '.join(models)}: {', '.join(unmatchable)}")
