"""How fast requests may be sent, how many at once, and until when not at all.

A state machine: the clock is handed in, nothing here waits or reads. `now` is always seconds of one monotonic
clock; what is written down is in wall-clock time, by the offset between the two at the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from modbot.errors import RateLimitError
from modbot.records.progress import Adjustment, Rate

QPS_LADDER = (4.0, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5)
CONCURRENCY_LADDER = (24, 16, 12, 8)
DISCORD_QPS = 45.0
"""Discord allows 50 requests a second in all; the rest is left to the server's other bots."""
DISCORD_INTERVAL_S = 1.0 / DISCORD_QPS

QUIET_S = 600.0
"""After this long without a 429, one step back up."""

INVALID_WINDOW_S = 600
INVALID_BIN_S = 10
INVALID_SLOW = 1_000
INVALID_STOP = 3_000
INVALID_QPS = 1.0
"""Discord bans an address for a while after 10,000 answers of 401, 403 or 429 in ten minutes. From INVALID_SLOW of
them on the pace is at most INVALID_QPS (600 in ten minutes, so the number falls), until it is half that again."""

PATIENCE_S = 3_600.0
"""Longer than this nobody waits: what is asked there fails, or the run ends and goes on another time."""

LONGEST_HOLD_S = 86_400.0
"""No longer than this is a server left alone at its word: after a day it is asked whether that still holds."""

DEFAULT_RETRY_AFTER_S = 1.0
_DISCORD = "discord"
_TOO_MANY = 429
_INVALID = frozenset({401, 403, _TOO_MANY})


class Lane(msgspec.Struct, frozen=True):
    """Where a request goes.

    `route` names the route of Discord's API and is empty for a file; `major` is the route's parameter (channel,
    guild) that has limits of its own.
    """

    host: str
    discord: bool = False
    route: str = ""
    major: str = ""

    @property
    def realm(self) -> str:
        """Whom a limit without a narrower scope concerns."""
        return _DISCORD if self.discord else self.host

    @property
    def path(self) -> str:
        """Whom a limit of scope `user` or `shared` concerns, as far as no bucket is known."""
        return f"{self.host} {self.route} {self.major}"


class Answer(msgspec.Struct, frozen=True):
    """What a response says about the pace. Durations in seconds. `scope`: `user`, `global` or `shared`."""

    status: int
    retry_after: float | None = None
    scope: str | None = None
    remaining: float | None = None
    reset_after: float | None = None
    bucket: str | None = None

    @property
    def invalid(self) -> bool:
        """Whether Discord counts it towards a ban."""
        return self.status in _INVALID and self.scope != "shared"


class Ticket(msgspec.Struct, frozen=True):
    """Leave to send one request; handed back with its answer.

    `generation`: how many steps had been taken. `until`: from when on, by the budget's clock, the next ticket may be
    out: whoever has not sent by then hands it back, or two requests might go at once.
    """

    id: int
    lane: Lane
    generation: int
    until: float


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What must outlive the process; times are Unix seconds.

    `rate` is None at the start rate. `holds`: until when whom must not be asked. `invalid`: number of such
    answers by the ten seconds in which they came.
    """

    rate: Rate | None = None
    quiet_since: float = 0.0
    holds: dict[str, float] = {}
    invalid: dict[int, int] = {}


def read_answer(status: int, headers: Mapping[str, str], *, wall: float, body: bytes = b"") -> Answer:
    """What a response says about the pace.

    Args:
        status: the HTTP status.
        headers: looked up in their usual spelling; give a mapping that ignores case.
        wall: Unix seconds now, against which a date in `Retry-After` is read.
        body: of a 429, as far as it was read: Discord's JSON says `retry_after` more exactly.
    """
    waits = [_retry_after(headers.get("Retry-After"), wall)]
    scope = _text(headers.get("X-RateLimit-Scope"))
    if status == _TOO_MANY:
        told = _json_object(body)
        waits.append(_amount(told.get("retry_after")))
        scope = "global" if told.get("global") is True else scope
    return Answer(
        status=status,
        retry_after=max((wait for wait in waits if wait is not None), default=None),
        scope=scope.strip().lower() if scope else None,
        remaining=_amount(headers.get("X-RateLimit-Remaining")),
        reset_after=_amount(headers.get("X-RateLimit-Reset-After")),
        bucket=_text(headers.get("X-RateLimit-Bucket")),
    )


def token_refused() -> RateLimitError:
    """Discord's API answered 401: going on would only earn a ban."""
    return RateLimitError(
        "Discord does not accept the token (401)",
        where="DISCORD_BOT_TOKEN",
        remedy="Set the bot's current token, or unset it, and run the same command again: what was finished is kept.",
    )


class Budget:
    """The one budget of a run.

    Ask `delay`; when it is 0, `admit` gives the ticket for one request, which `answer` takes back. Admissions are
    at least one interval apart, whatever happened before: no bursts, nothing saved up.
    """

    def __init__(
        self,
        qps: float,
        concurrency: int,
        *,
        now: float,
        wall: float,
        saved: Saved | None = None,
        on_adjustment: Callable[[Adjustment], None] | None = None,
    ) -> None:
        self._rates = _rates(qps, concurrency)
        self._step = 0
        self._generation = 0
        self._epoch = wall - now
        self._quiet_since = now
        self._holds: dict[str, float] = {}
        self._buckets: dict[str, str] = {}
        self._invalid: dict[int, int] = {}
        self._slowed = False
        self._token_refused = False
        self._under_way: set[int] = set()
        self._tickets = 0
        self._last = -math.inf
        self._last_discord = -math.inf
        self._tell = on_adjustment
        self.adjustments: list[Adjustment] = []
        self.revision = 0
        """Grows when something changed that must outlive the process."""
        if saved is not None:
            self._restore(saved, now)

    @property
    def rate(self) -> Rate:
        """The rate in force."""
        rate = self._rates[self._step]
        return Rate(min(rate.qps or math.inf, INVALID_QPS), rate.concurrency) if self._slowed else rate

    @property
    def full(self) -> bool:
        """Whether as many requests are under way as may be."""
        return len(self._under_way) >= self.rate.concurrency

    def delay(self, lane: Lane, now: float) -> float:
        """Seconds until a request may be sent; 0: now; infinity: not before an answer comes back.

        Raises:
            RateLimitError: nothing may be sent there any more in this run.
        """
        self._recover(now)
        self._check(lane, now)
        if self.full:
            return math.inf
        ready = max(self._held(lane), self._last + self.rate.interval)
        if lane.discord:
            ready = max(ready, self._last_discord + DISCORD_INTERVAL_S)
        return max(0.0, ready - now)

    def admit(self, lane: Lane, now: float) -> Ticket:
        """The ticket for one request; only when `delay` is 0."""
        self._last = now
        if lane.discord:
            self._last_discord = now
        self._tickets += 1
        self._under_way.add(self._tickets)
        interval = max(self.rate.interval, DISCORD_INTERVAL_S if lane.discord else 0.0)
        return Ticket(self._tickets, lane, self._generation, now + interval if interval else math.inf)

    def answer(self, ticket: Ticket, answer: Answer | None, now: float) -> None:
        """Takes a ticket back. `answer` is None when there was none: never sent, or the connection broke."""
        self._under_way.discard(ticket.id)
        if answer is None:
            return
        lane = ticket.lane
        if lane.discord:
            self._learn(lane, answer, now)
        if answer.status == _TOO_MANY:
            self._limited(ticket, answer, now)

    def export(self, now: float) -> Saved:
        """What the next process must know."""
        self._forget(now)
        return Saved(
            rate=self._rates[self._step] if self._step else None,
            quiet_since=self._quiet_since + self._epoch,
            holds={name: until + self._epoch for name, until in self._holds.items()},
            invalid=dict(self._invalid),
        )

    def _restore(self, saved: Saved, now: float) -> None:
        """Takes over what the last process left; what is too far ahead to be true is cut."""
        latest = now + LONGEST_HOLD_S
        self._quiet_since = min(saved.quiet_since - self._epoch, latest)
        self._holds = {name: min(until - self._epoch, latest) for name, until in saved.holds.items()}
        newest = self._bin(now)
        for bin_, count in saved.invalid.items():
            self._count_invalid(min(bin_, newest), count)
        self.revision += 1  # the cut must be written, or every start would begin the same wait anew
        if saved.rate is not None:
            at_most = (i for i, rate in enumerate(self._rates) if rate.within(saved.rate))
            self._step = next(at_most, len(self._rates) - 1)
        if self._step:
            self._record("restored", self._rates[0], now)
        self._weigh_invalid(now)

    def _recover(self, now: float) -> None:
        """Takes back what quiet time allows, one step each."""
        while self._step and now - self._quiet_since >= QUIET_S:
            before = self.rate
            self._step -= 1
            self._quiet_since += QUIET_S
            self._record("quiet", before, now)
        if self._slowed:
            self._weigh_invalid(now)

    def _check(self, lane: Lane, now: float) -> None:
        if lane.discord and self._token_refused:
            raise token_refused()
        held = self._held(lane)
        if held - now > PATIENCE_S:
            raise RateLimitError(
                f"{lane.realm} asks to be left alone until {self._iso(held)}",
                remedy="Run the same command again after that: what was finished is kept.",
            )
        if lane.discord and sum(self._invalid.values()) >= INVALID_STOP:
            self._forget(now)
            if (count := sum(self._invalid.values())) >= INVALID_STOP:
                raise RateLimitError(
                    f"Discord refused {count} requests (401, 403, 429) within ten minutes, and bans at 10,000",
                    remedy="Wait ten minutes and run the same command again: what was finished is kept.",
                )

    def _held(self, lane: Lane) -> float:
        names = (lane.realm, self._buckets.get(lane.path, lane.path))
        return max(self._holds.get(name, -math.inf) for name in names)

    def _hold(self, name: str, wait: float, now: float) -> float:
        """Leaves `name` alone for `wait` seconds, as far as that may be, and says until when."""
        until = now + min(wait, LONGEST_HOLD_S)
        if until > self._holds.get(name, -math.inf):
            self._holds[name] = until
            self.revision += 1
        return until

    def _learn(self, lane: Lane, answer: Answer, now: float) -> None:
        """What only Discord's answers say: buckets, routes used up, refusals that add up to a ban."""
        if answer.bucket:
            self._buckets[lane.path] = f"{lane.host} {answer.bucket} {lane.major}"
        if answer.remaining == 0 and answer.reset_after and answer.status != _TOO_MANY:
            self._hold(self._buckets.get(lane.path, lane.path), answer.reset_after, now)
        if answer.invalid:
            self._count_invalid(self._bin(now), 1)
            self.revision += 1
            self._weigh_invalid(now)
        if answer.status == 401 and lane.route:  # noqa: PLR2004 - its name is its number
            self._token_refused = True

    def _limited(self, ticket: Ticket, answer: Answer, now: float) -> None:
        """A 429: whom it names waits; and the first of its generation costs everyone a step."""
        lane = ticket.lane
        wait = DEFAULT_RETRY_AFTER_S if answer.retry_after is None else answer.retry_after
        narrow = answer.scope in {"user", "shared"}
        until = self._hold(self._buckets.get(lane.path, lane.path) if narrow else lane.realm, wait, now)
        self._quiet_since = max(self._quiet_since, until)
        self.revision += 1
        if ticket.generation == self._generation:
            self._generation += 1
            before = self.rate
            self._step = min(self._step + 1, len(self._rates) - 1)
            self._record("http_429", before, now, status=answer.status, retry_after=wait)

    def _bin(self, now: float) -> int:
        return int((now + self._epoch) // INVALID_BIN_S)

    def _count_invalid(self, bin_: int, count: int) -> None:
        self._invalid[bin_] = self._invalid.get(bin_, 0) + count

    def _weigh_invalid(self, now: float) -> None:
        self._forget(now)
        count = sum(self._invalid.values())
        before = self.rate
        if not self._slowed and count >= INVALID_SLOW:
            self._slowed = True
            self._record("invalid_answers", before, now)
        elif self._slowed and count <= INVALID_SLOW // 2:
            self._slowed = False
            self._record("invalid_answers", before, now)

    def _forget(self, now: float) -> None:
        """Drops what no longer counts."""
        oldest = self._bin(now - INVALID_WINDOW_S)
        self._invalid = {bin_: count for bin_, count in self._invalid.items() if bin_ >= oldest}
        self._holds = {name: until for name, until in self._holds.items() if until > now}

    def _record(
        self, cause: str, before: Rate, now: float, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        if before == self.rate:
            return
        self.revision += 1
        adjustment = Adjustment(
            time=self._iso(now), cause=cause, status=status, retry_after=retry_after, before=before, after=self.rate
        )
        self.adjustments.append(adjustment)
        if self._tell is not None:
            self._tell(adjustment)

    def _iso(self, now: float) -> str:
        return datetime.fromtimestamp(now + self._epoch, UTC).isoformat(timespec="milliseconds")


def _rates(qps: float, concurrency: int) -> list[Rate]:
    """Every rate from the start down: first fewer a second, then, at the floor, fewer at once."""
    paces = [qps, *(step for step in QPS_LADDER if step < qps)]
    widths = [step for step in CONCURRENCY_LADDER if step < concurrency]
    slower = [Rate(None if math.isinf(pace) else pace, concurrency) for pace in paces]
    return slower + [Rate(slower[-1].qps, width) for width in widths]


def _amount(value: object) -> float | None:
    """A duration or a count, if it is one: a finite number of at least 0, or the text of one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        amount = float(value)
    except (ValueError, OverflowError):
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None


def _text(header: str | None) -> str | None:
    """A name in a header; bytes that no name is made of could neither be sent to the coordinator nor be kept."""
    return header if header and header.isascii() else None


def _retry_after(text: str | None, wall: float) -> float | None:
    """`Retry-After` in seconds from now: a number, or an HTTP date (one that is past is 0)."""
    if text is None or (seconds := _amount(text)) is not None:
        return None if text is None else seconds
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall)


def _json_object(body: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except msgspec.DecodeError:
        return {}
