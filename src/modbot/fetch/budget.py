"""How fast requests may be sent, how many at once, and until when not at all.

A state machine: the clock is handed in, nothing here waits or reads. `now` is always seconds of one monotonic
clock; what is written down is in wall-clock time, by the offset between the two at the start.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from modbot.errors import RateLimitError
from modbot.records.jsonl import decode
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
"""Longer than this nobody waits for Discord: the run ends and goes on another time."""

FOREIGN_PATIENCE_S = 120.0
"""A host other than Discord that answers nothing but 429 for so long, or asks for so long a rest, is given up for the
run: one among many must not hold up the day."""

LONG_WAIT_S = 10.0
"""A rest that lasts so much longer than the one that is known is told, also where it costs no step."""

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


class SavedPace(msgspec.Struct, frozen=True):
    """How slow a host's rate had become, and since when it has been quiet, in Unix seconds."""

    rate: Rate
    quiet_since: float


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What must outlive the process; times are Unix seconds.

    `paces`: of whom is not at the start rate. `holds`: until when whom must not be asked. `invalid`: number of such
    answers by the ten seconds in which they came.
    """

    paces: dict[str, SavedPace] = {}
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


class _Pace:
    """The pace of one realm (Discord, or one other host): its place on the ladder, and what is under way there."""

    def __init__(self, realm: str, rates: Sequence[Rate], now: float) -> None:
        self.realm = realm
        self.rates = rates
        self.step = 0
        self.generation = 0
        self.quiet_since = now
        self.last = -math.inf
        self.under_way = 0
        self.slowed = False
        """Whether refusals have come near a ban; Discord's alone."""
        self.limited_since: float | None = None
        """Since when there has been no answer but 429."""
        self.given_up = False

    @property
    def rate(self) -> Rate:
        """The rate in force."""
        rate = self.rates[self.step]
        return Rate(min(rate.qps or math.inf, INVALID_QPS), rate.concurrency) if self.slowed else rate

    @property
    def interval(self) -> float:
        """Seconds from one request to the next."""
        return max(self.rate.interval, DISCORD_INTERVAL_S if self.realm == _DISCORD else 0.0)

    def go_on_from(self, saved: SavedPace, since: float, now: float) -> None:
        """Takes over a step and `since` when it has been quiet, less what quiet time has earned, if that is slower.

        Refusals lower the number at once only at the floor: above it, that of `saved` is what its run was begun with.
        """
        known = saved.rate
        if known.qps is None or known.qps > QPS_LADDER[-1]:
            known = Rate(known.qps, self.rates[0].concurrency)
        step = next((i for i, rate in enumerate(self.rates) if rate.within(known)), len(self.rates) - 1)
        earned = min(step, max(0, int((now - since) // QUIET_S)))
        if (place := (step - earned, since + earned * QUIET_S)) > (self.step, self.quiet_since) and place[0]:
            self.step, self.quiet_since = place


class Budget:
    """The one budget of a run.

    Ask `delay`; when it is 0, `admit` gives the ticket for one request, which `answer` takes back. Admissions are
    at least one interval of the start rate apart, whatever happened before: no bursts, nothing saved up. A 429 slows
    down whom it came from: Discord, all of it, or one other host.
    """

    def __init__(
        self,
        qps: float,
        concurrency: int,
        *,
        now: float,
        wall: float,
        saved: Iterable[Saved] = (),
        on_adjustment: Callable[[Adjustment], None] | None = None,
    ) -> None:
        self._rates = _rates(qps, concurrency)
        self._epoch = wall - now
        self._paces: dict[str, _Pace] = {}
        self._holds: dict[str, float] = {}
        self._buckets: dict[str, str] = {}
        self._invalid: dict[int, int] = {}
        self._token_refused = False
        self._under_way: dict[int, _Pace] = {}
        self._tickets = 0
        self._last = -math.inf
        self._tell = on_adjustment
        self.adjustments: list[Adjustment] = []
        self.revision = 0
        """Grows when something changed that must outlive the process."""
        for each in saved:
            self.learn(each, now)

    @property
    def full(self) -> bool:
        """Whether as many requests are under way as may be."""
        return len(self._under_way) >= self._rates[0].concurrency

    def rate(self, lane: Lane) -> Rate:
        """The rate in force for whom the lane leads to."""
        pace = self._paces.get(lane.realm)
        return self._rates[0] if pace is None else pace.rate

    def rest(self, lane: Lane, now: float) -> float:
        """Seconds for which whom the lane leads to still asks to be left alone."""
        return max(0.0, self._held(lane) - now)

    def delay(self, lane: Lane, now: float) -> float:
        """Seconds until a request may be sent; 0: now; infinity: not before an answer comes back.

        Raises:
            RateLimitError: nothing may be sent there any more in this run.
        """
        pace = self._pace(lane.realm, now)
        self._recover(pace, now)
        self._check(lane, pace, now)
        if self.full or pace.under_way >= pace.rate.concurrency:
            return math.inf
        ready = max(self._held(lane), self._last + self._rates[0].interval, pace.last + pace.interval)
        return max(0.0, ready - now)

    def admit(self, lane: Lane, now: float) -> Ticket:
        """The ticket for one request; only when `delay` is 0."""
        pace = self._pace(lane.realm, now)
        self._last = pace.last = now
        self._tickets += 1
        self._under_way[self._tickets] = pace
        pace.under_way += 1
        interval = max(self._rates[0].interval, pace.interval)
        return Ticket(self._tickets, lane, pace.generation, now + interval if interval else math.inf)

    def answer(self, ticket: Ticket, answer: Answer | None, now: float) -> None:
        """Takes a ticket back. `answer` is None when there was none: never sent, or the connection broke."""
        pace = self._under_way.pop(ticket.id, None)
        if pace is None:
            return
        pace.under_way -= 1
        if answer is None:
            return
        if ticket.lane.discord:
            self._learn_from(ticket.lane, answer, now)
        if answer.status == _TOO_MANY:
            self._limited(ticket, pace, answer, now)
        else:
            pace.limited_since = None

    def export(self, now: float) -> Saved:
        """What the next process must know."""
        self._forget(now)
        return Saved(
            paces={
                pace.realm: SavedPace(pace.rates[pace.step], pace.quiet_since + self._epoch)
                for pace in self._paces.values()
                if pace.step
            },
            holds={name: until + self._epoch for name, until in self._holds.items()},
            invalid=dict(self._invalid),
        )

    def learn(self, saved: Saved, now: float) -> None:
        """Takes over what another process left, as far as it asks for more restraint than what is known here.

        What is too far ahead to be true is cut.
        """
        latest = now + LONGEST_HOLD_S
        for name, until in saved.holds.items():
            self._holds[name] = max(self._holds.get(name, -math.inf), min(until - self._epoch, latest))
        newest = self._bin(now)
        counts = Counter[int]()
        for bin_, count in saved.invalid.items():
            counts[min(bin_, newest)] += count
        for bin_, count in counts.items():
            self._invalid[bin_] = max(self._invalid.get(bin_, 0), count)
        for realm, known in saved.paces.items():
            pace = self._pace(realm, now)
            before = pace.rate
            pace.go_on_from(known, min(known.quiet_since - self._epoch, latest), now)
            self._record("restored", pace, before, now)
        self.revision += 1  # the cut must be written, or every start would begin the same wait anew
        self._weigh_invalid(now)

    def _pace(self, realm: str, now: float) -> _Pace:
        pace = self._paces.get(realm)
        if pace is None:
            pace = self._paces[realm] = _Pace(realm, self._rates, now)
        return pace

    def _recover(self, pace: _Pace, now: float) -> None:
        """Takes back what quiet time allows, one step each."""
        while pace.step and now - pace.quiet_since >= QUIET_S:
            before = pace.rate
            pace.step -= 1
            pace.quiet_since += QUIET_S
            self._record("quiet", pace, before, now)
        if pace.slowed:
            self._weigh_invalid(now)

    def _check(self, lane: Lane, pace: _Pace, now: float) -> None:
        if lane.discord and self._token_refused:
            raise token_refused()
        held = self._held(lane)
        if held - now > (PATIENCE_S if lane.discord else FOREIGN_PATIENCE_S):
            raise RateLimitError(
                f"{lane.realm} asks to be left alone until {self._iso(held)}",
                remedy="Run the same command again after that: what was finished is kept.",
            )
        if pace.given_up:
            raise RateLimitError(f"{lane.realm} answers nothing but 429, and is given up for this run")
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
        """Leaves `name` alone for `wait` seconds, as far as that may be, and says how much longer that is."""
        until, known = now + min(wait, LONGEST_HOLD_S), max(self._holds.get(name, now), now)
        if until > known:
            self._holds[name] = until
            self.revision += 1
        return until - known

    def _learn_from(self, lane: Lane, answer: Answer, now: float) -> None:
        """What only Discord's answers say: buckets, routes used up, refusals that add up to a ban."""
        if answer.bucket:
            self._buckets[lane.path] = f"{lane.host} {answer.bucket} {lane.major}"
        if answer.remaining == 0 and answer.reset_after and answer.status != _TOO_MANY:
            name = self._buckets.get(lane.path, lane.path)
            if self._hold(name, answer.reset_after, now) >= LONG_WAIT_S:
                pace = self._pace(lane.realm, now)
                self._record("used_up", pace, pace.rate, now, status=answer.status, retry_after=answer.reset_after)
        if answer.invalid:
            self._invalid[self._bin(now)] = self._invalid.get(self._bin(now), 0) + 1
            self.revision += 1
            self._weigh_invalid(now)
        if answer.status == 401 and lane.route:  # noqa: PLR2004 - its name is its number
            self._token_refused = True

    def _limited(self, ticket: Ticket, pace: _Pace, answer: Answer, now: float) -> None:
        """A 429: whom it names waits; and the first of its generation costs its realm a step."""
        lane = ticket.lane
        said = answer.retry_after if answer.retry_after is not None else answer.reset_after
        wait = DEFAULT_RETRY_AFTER_S if said is None else said
        narrow = answer.scope in {"user", "shared"}
        longer = self._hold(self._buckets.get(lane.path, lane.path) if narrow else lane.realm, wait, now)
        until = now + min(wait, LONGEST_HOLD_S)
        pace.quiet_since = max(pace.quiet_since, until)
        pace.limited_since = now if pace.limited_since is None else pace.limited_since
        pace.given_up |= not lane.discord and until - pace.limited_since > FOREIGN_PATIENCE_S
        self.revision += 1
        before = pace.rate
        if ticket.generation == pace.generation:
            pace.generation += 1
            pace.step = min(pace.step + 1, len(pace.rates) - 1)
        if longer >= LONG_WAIT_S or before != pace.rate:
            self._record("http_429", pace, before, now, status=answer.status, retry_after=wait, assumed=said is None)

    def _bin(self, now: float) -> int:
        return int((now + self._epoch) // INVALID_BIN_S)

    def _weigh_invalid(self, now: float) -> None:
        self._forget(now)
        count = sum(self._invalid.values())
        pace = self._pace(_DISCORD, now)
        before = pace.rate
        if not pace.slowed and count >= INVALID_SLOW:
            pace.slowed = True
        elif pace.slowed and count <= INVALID_SLOW // 2:
            pace.slowed = False
        self._record("invalid_answers", pace, before, now)

    def _forget(self, now: float) -> None:
        """Drops what no longer counts."""
        oldest = self._bin(now - INVALID_WINDOW_S)
        self._invalid = {bin_: count for bin_, count in self._invalid.items() if bin_ >= oldest}
        self._holds = {name: until for name, until in self._holds.items() if until > now}

    def _record(
        self,
        cause: str,
        pace: _Pace,
        before: Rate,
        now: float,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        assumed: bool = False,
    ) -> None:
        """Tells a change of the rate, or a rest without one."""
        if before == pace.rate and retry_after is None:
            return
        self.revision += 1
        adjustment = Adjustment(
            time=self._iso(now),
            host=pace.realm,
            cause=cause,
            status=status,
            retry_after=None if retry_after is None else round(retry_after, 3),
            assumed=assumed,
            before=before,
            after=pace.rate,
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
        return decode(body, dict[str, object])
    except msgspec.DecodeError:
        return {}
