"""The flags that several commands share, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click

from modbot.errors import SettingError
from modbot.files.paths import Partition, check_date, check_profile
from modbot.settings import Settings, count, qps
from modbot.words import counted, printable

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


class Size(click.ParamType[int]):
    """A number of bytes of at least 1: `50MB`, `1.5GiB`, `20G` (a thousand each, or 1,024 with an i)."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else size(str(value))
        except ValueError:
            self.fail(f"{value!r} is no size: give bytes, or a number with KB, MB, GB or TB", param, ctx)


class Age(click.ParamType[float]):
    """A length of time: `30d`, `12h`, `90m`, `2w`."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else age(str(value))
        except ValueError:
            self.fail(f"{value!r} is no length of time: give a number with m, h, d or w, for example 30d", param, ctx)


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i)?b?|b)?", re.ASCII | re.IGNORECASE)
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([mhdw])", re.ASCII)
_SECONDS = {"m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}


def size(text: str) -> int:
    """Bytes of a size as people write it. Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError("no size")
    number, unit, binary = found.groups()
    power = "bkmgt".index((unit or "b").lower())
    amount: float = float(number) * (1024.0 if binary else 1000.0) ** power
    if not 1 <= amount < 1 << 62:
        raise ValueError("out of range")
    return round(amount)


def age(text: str) -> float:
    """Seconds of a length of time as people write it. Raises ValueError."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise ValueError("no length of time")
    return float(found[1]) * _SECONDS[found[2]]


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
SIZE = Size()
AGE = Age()
MAX_BYTES = "50MB"
"""What an image may have at most, where nothing else is said."""


def partition_options(command: F) -> F:
    """`--profile` and `--date`; the command turns them into its partition by `partition()`."""
    profile = click.option("--profile", metavar="NAME", help="Partition tree under OUT_DIR.  [default: MODBOT_PROFILE]")
    date = click.option(
        "--date", metavar="DAY", default="today", show_default=True, help="YYYY-MM-DD, 'today' or 'yesterday'."
    )
    return profile(date(command))


def fetching_options(command: F) -> F:
    """What every step takes that fetches."""
    for option in (
        click.option(
            "--max-bytes", type=SIZE, default=MAX_BYTES, show_default=True, help="A larger image is too_large."
        ),
        click.option(
            "--allow-host", multiple=True, metavar="HOST[:PORT]", help="A further host to fetch from; repeatable."
        ),
        click.option(
            "--retry-failed",
            is_flag=False,
            flag_value="",
            metavar="[KIND,…]",
            help="Of finished shards, only the failed rows again (of those kinds).",
        ),
        click.option("--qps", type=QPS, help="Requests a second, or 'unlimited'.  [default: ANALYSIS_QPS]"),
        click.option("--concurrency", type=COUNT, help="Requests under way at once.  [default: ANALYSIS_CONCURRENCY]"),
    ):
        command = option(command)
    return command


def failures(metrics: Mapping[str, Any]) -> str:
    """`2 failed (expired 1, timeout 1)`, or `none failed`."""
    counts = {key.removeprefix("failed_"): number for key, number in metrics.items() if key.startswith("failed_")}
    kinds = ", ".join(f"{kind} {number}" for kind, number in counts.items() if number)
    return f"{metrics['failed']} failed ({kinds})" if kinds else "none failed"


def this_run(metrics: Mapping[str, Any], unit: str) -> str:
    """`3.9 s`, and where the day's counts are of more than this run, how many rows or records this run did."""
    done, total = metrics["run"]["done"], metrics[f"{unit}s"]
    text = f"{metrics['wall_time_s']:.1f} s"
    return text if done == total else f"{text} in this run, which did {counted(done, unit)}; the counts are the day's"


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


def failure_kinds(text: str) -> tuple[str, ...]:
    """The kinds that `--retry-failed` names. Raises SettingError for one that is none."""
    from modbot.records.p1 import ERROR_KINDS

    kinds = tuple(kind.strip() for kind in text.split(",") if kind.strip())
    unknown = sorted(set(kinds) - set(ERROR_KINDS))
    if unknown:
        remedy = f"The kinds are {', '.join(ERROR_KINDS)}."
        raise SettingError(f"there is no kind {unknown[0]!r}", where="--retry-failed", remedy=remedy)
    return kinds


def require_engine(engine: str) -> None:
    """The shards run on this machine; further engines have their place behind this flag."""
    if engine != "local":
        raise SettingError(f"there is no engine {engine!r} yet", where="--engine", remedy="Use --engine local.")


def tell_unmatchable(models: Sequence[str], rules: Path | None) -> None:
    """Says under which small tagger the day stands, and which rules cannot match what it sees."""
    from modbot.stages.rulebook import unmatchable_under

    unmatchable = unmatchable_under(models, rules)
    if unmatchable:
        click.echo(printable(f"cannot match under {', '.join(models)}: {', '.join(unmatchable)}"))
