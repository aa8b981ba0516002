"""Which records of a day a command takes: by time, channel, verdict and place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

from modbot.errors import SettingError
from modbot.records.evidence import Evidence, Post
from modbot.records.finding import Severity

Filter = Literal["time", "channel", "severity", "offset", "limit"]
FILTERS: tuple[Filter, ...] = ("time", "channel", "severity", "offset", "limit")
"""In the order in which they are asked; a record that is left out is counted for the first that leaves it out."""

_RELATIVE = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What to take. `since` is included, `until` is not; None is open. Empty sets take all.

    `tz` is what a time without an offset is in. `channels` holds ids or names.
    """

    since: datetime | None = None
    until: datetime | None = None
    channels: frozenset[str] = frozenset()
    severities: frozenset[Severity] = frozenset()
    offset: int = 0
    limit: int | None = None
    tz: tzinfo = UTC

    @property
    def shown(self) -> dict[str, Any]:
        """As `--print-config` tells it."""
        return {
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "channels": sorted(self.channels),
            "severities": sorted(self.severities),
            "offset": self.offset,
            "limit": self.limit,
            "tz": str(self.tz),
        }

    @property
    def by_time(self) -> bool:
        return self.since is not None or self.until is not None

    def look(self, evidence: Evidence) -> tuple[Filter | None, bool]:
        """The message filter that leaves the record out, and whether its time was asked for and is not known.

        A record is kept where one message is both in the time and in the channels; a message without a usable date is
        in any time.
        """
        if not self.by_time:
            timely, undated = evidence.posts, False
        else:
            dated = [(post, moment(post.created_at, self.tz)) for post in evidence.posts]
            timely = [post for post, at in dated if at is None or self._includes(at)]
            undated = all(at is None for _, at in dated)
        if not timely:
            return "time", undated
        if self.channels and not any(self._in_channels(post) for post in timely):
            return "channel", undated
        return None, undated

    def _includes(self, at: datetime) -> bool:
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)

    def _in_channels(self, post: Post) -> bool:
        return post.channel_id in self.channels or post.channel_name in self.channels


def channels(names: Iterable[str]) -> frozenset[str]:
    """Channel ids, names, and names written with a leading `#`."""
    return frozenset(name.removeprefix("#") for name in names)


def moment(text: str | None, tz: tzinfo) -> datetime | None:
    """The time that an ISO 8601 text names, in `tz` where it says no offset; None if it names none."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return at if at.tzinfo is not None else at.replace(tzinfo=tz)
    except ValueError:
        return None


def since(text: str, tz: tzinfo, now: datetime) -> datetime:
    """The first moment that `--since` takes in. Raises SettingError."""
    return _bound(text, tz, now, "--since")


def until(text: str, tz: tzinfo, now: datetime) -> datetime:
    """The first moment that `--until` leaves out: of a bare date, the midnight that ends it. Raises SettingError."""
    at = _bound(text, tz, now, "--until")
    try:
        if _DAY.fullmatch(text.strip()):
            return at + timedelta(days=1)
        return at if _RELATIVE.fullmatch(text.strip()) else at + timedelta(microseconds=1)
    except OverflowError:
        return datetime.max.replace(tzinfo=tz)


def _bound(text: str, tz: tzinfo, now: datetime, flag: str) -> datetime:
    relative = _RELATIVE.fullmatch(text.strip())
    try:
        if relative:
            return now - timedelta(**{_UNITS[relative[2]]: int(relative[1])})
        at = moment(text.strip(), tz)
    except OverflowError:
        at = None
    if at is None:
        raise SettingError(
            f"{text!r} is no time", where=flag, remedy="Give YYYY-MM-DD, an ISO 8601 time, or how long ago: 7d, 24h."
        )
    return at
