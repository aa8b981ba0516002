from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.errors import RateLimitError
from modbot.fetch.budget import (
    CONCURRENCY_LADDER,
    DISCORD_QPS,
    FOREIGN_PATIENCE_S,
    INVALID_SLOW,
    INVALID_STOP,
    LONGEST_HOLD_S,
    PATIENCE_S,
    QPS_LADDER,
    QUIET_S,
    Answer,
    Budget,
    Lane,
    Saved,
    SavedPace,
    Ticket,
    read_answer,
)
from modbot.records.progress import Adjustment, Rate

CDN = Lane("cdn.discordapp.com:443", discord=True)
MEDIA = Lane("media.discordapp.net:443", discord=True)
API = Lane("discord.com:443", discord=True, route="GET /channels/messages", major="1")
OTHER_ROUTE = Lane("discord.com:443", discord=True, route="GET /channels/messages", major="2")
HERE = Lane("127.0.0.1:8080")
WALL = 1_700_000_000.0


def budget(qps: float = 4.0, concurrency: int = 24, *, now: float = 0.0, saved: Saved | None = None) -> Budget:
    return Budget(qps, concurrency, now=now, wall=WALL + now, saved=() if saved is None else (saved,))


def slowed(rate: Rate, quiet_since: float, **rest: Any) -> Saved:  # noqa: ANN401 - what else was saved
    return Saved(paces={CDN.realm: SavedPace(rate, quiet_since)}, **rest)


def admit(b: Budget, lane: Lane, now: float) -> Ticket:
    assert b.delay(lane, now) == 0
    return b.admit(lane, now)


def limited(b: Budget, now: float, *, lane: Lane = CDN, retry_after: float = 1.0, scope: str | None = None) -> None:
    b.answer(admit(b, lane, now), Answer(429, retry_after=retry_after, scope=scope), now)


def test_paced_from_the_first_request_on_and_never_in_bursts() -> None:
    b = budget(4.0)
    admit(b, CDN, 100.0)
    assert b.delay(CDN, 100.0) == pytest.approx(0.25)
    assert b.delay(CDN, 100.25) == 0
    admit(b, CDN, 200.0)  # a long rest saves nothing up
    assert b.delay(CDN, 200.0) == pytest.approx(0.25)


def test_discord_never_gets_more_than_its_cap_whatever_is_asked() -> None:
    for qps in (1_000.0, math.inf):
        b = budget(qps)
        admit(b, CDN, 0.0)
        assert b.delay(MEDIA, 0.0) == pytest.approx(1 / DISCORD_QPS)
        assert b.delay(HERE, 0.0) == pytest.approx(0 if qps == math.inf else 1 / qps)


def test_no_more_under_way_than_the_concurrency() -> None:
    b = budget(math.inf, 2)
    first = admit(b, HERE, 0.0)
    admit(b, HERE, 0.0)
    assert b.delay(HERE, 0.0) == math.inf
    b.answer(first, None, 0.0)
    assert b.delay(HERE, 0.0) == 0


def test_the_ladder_goes_down_to_the_floor_and_only_then_narrows() -> None:
    b = budget(10.0, 24)
    now = 0.0
    seen = [b.rate(CDN)]
    for _ in range(15):
        now += 10.0
        limited(b, now)
        seen.append(b.rate(CDN))
    paces = [Rate(qps, 24) for qps in (10.0, *QPS_LADDER)]
    widths = [Rate(QPS_LADDER[-1], width) for width in CONCURRENCY_LADDER[1:]]
    steps = paces + widths
    assert seen == steps + [steps[-1]] * (len(seen) - len(steps))
    assert [(a.before, a.after) for a in b.adjustments] == list(pairwise(steps))


def test_a_start_below_the_ladder_keeps_its_pace() -> None:
    b = budget(0.3, 10)
    limited(b, 0.0)
    assert b.rate(CDN) == Rate(0.3, 8)


def test_unlimited_steps_onto_the_ladder() -> None:
    b = budget(math.inf)
    limited(b, 0.0, lane=HERE)
    assert b.rate(HERE) == Rate(4.0, 24)


def test_answers_to_requests_under_way_cause_no_further_step() -> None:
    b = budget(4.0)
    tickets = [admit(b, CDN, i * 0.25) for i in range(5)]
    for ticket in tickets[:4]:
        b.answer(ticket, Answer(429, retry_after=2.0), 1.5)
    assert b.rate(CDN) == Rate(3.0, 24)
    assert len(b.adjustments) == 1
    late = admit(b, CDN, 3.5)
    b.answer(tickets[4], Answer(429, retry_after=4.0), 3.6)  # waits are obeyed all the same
    assert b.delay(CDN, 3.6) == pytest.approx(4.0)
    b.answer(late, Answer(429, retry_after=0.0), 3.7)
    assert b.rate(CDN) == Rate(2.5, 24)


@pytest.mark.parametrize(
    ("scope", "met_by", "waits", "goes"),
    [
        (None, CDN, [CDN, MEDIA, API], [HERE]),
        ("global", API, [API, OTHER_ROUTE, CDN], [HERE]),
        ("user", API, [API], [OTHER_ROUTE, CDN, HERE]),
        ("shared", API, [API], [OTHER_ROUTE, CDN, HERE]),
        ("user", CDN, [CDN], [MEDIA, API, HERE]),
        (None, HERE, [HERE], [CDN, Lane("127.0.0.1:9090")]),
        ("global", HERE, [HERE], [CDN, Lane("127.0.0.1:9090")]),
    ],
)
def test_whom_a_scope_names_waits(scope: str | None, met_by: Lane, waits: list[Lane], goes: list[Lane]) -> None:
    b = budget(4.0)
    limited(b, 0.0, lane=met_by, retry_after=60.0, scope=scope)
    assert [b.delay(lane, 1.0) for lane in waits] == [59.0] * len(waits)
    assert [b.delay(lane, 1.0) for lane in goes] == [0.0] * len(goes)


def test_a_shorter_wait_does_not_shorten_a_longer_one() -> None:
    b = budget(4.0)
    first, second = admit(b, CDN, 0.0), admit(b, CDN, 1.0)
    b.answer(first, Answer(429, retry_after=30.0), 1.0)
    b.answer(second, Answer(429, retry_after=1.0), 1.0)
    assert b.delay(CDN, 1.0) == 30.0


def test_a_route_that_is_used_up_waits_for_its_reset_and_its_bucket_with_it() -> None:
    b = budget(4.0)
    b.answer(admit(b, API, 0.0), Answer(200, remaining=0, reset_after=5.0, bucket="abc"), 0.1)
    assert b.delay(API, 1.0) == pytest.approx(4.1)
    assert b.delay(OTHER_ROUTE, 1.0) == 0
    sister = Lane(API.host, discord=True, route="GET /channels/other", major=API.major)
    b.answer(admit(b, sister, 1.0), Answer(200, remaining=3, bucket="abc"), 1.1)
    assert b.delay(sister, 2.0) == pytest.approx(3.1)


def test_quiet_time_takes_the_steps_back_one_by_one() -> None:
    b = budget(3.0, 16)
    for now in range(0, 80, 10):
        limited(b, float(now))
    assert b.rate(CDN) == Rate(0.5, 8)
    last = 71.0  # 70, and its Retry-After of 1
    b.delay(CDN, last + QUIET_S - 0.1)
    assert b.rate(CDN) == Rate(0.5, 8)
    seen = []
    for step in range(1, 10):
        b.delay(CDN, last + step * QUIET_S)
        seen.append(b.rate(CDN))
    up = [Rate(0.5, 12), Rate(0.5, 16), *(Rate(qps, 16) for qps in (1.0, 1.5, 2.0, 2.5, 3.0))]
    assert seen == [*up, up[-1], up[-1]]
    assert {a.cause for a in b.adjustments[7:]} == {"quiet"}


def test_an_adjustment_is_data_and_is_told() -> None:
    told: list[Adjustment] = []
    b = Budget(4.0, 24, now=50.0, wall=WALL, on_adjustment=told.append)
    limited(b, 51.5, retry_after=2.5)
    assert told == b.adjustments
    assert msgspec.to_builtins(told[0]) == {
        "time": datetime.fromtimestamp(WALL + 1.5, UTC).isoformat(timespec="milliseconds"),
        "host": "discord",
        "cause": "http_429",
        "status": 429,
        "retry_after": 2.5,
        "assumed": False,
        "from": {"qps": 4.0, "concurrency": 24},
        "to": {"qps": 3.0, "concurrency": 24},
    }


def test_refusals_slow_the_run_and_it_recovers() -> None:
    b = budget(40.0)
    now = 0.0
    for _ in range(INVALID_SLOW):
        now += 0.1
        b.answer(admit(b, CDN, now), Answer(403), now)
    assert b.rate(CDN) == Rate(1.0, 24)
    assert b.adjustments[-1].cause == "invalid_answers"
    b.delay(CDN, now + 700.0)
    assert b.rate(CDN) == Rate(40.0, 24)


@pytest.mark.parametrize(
    ("lane", "status", "counts"),
    [
        (CDN, 401, True),
        (CDN, 403, True),
        (API, 403, True),
        (MEDIA, 429, True),
        (CDN, 404, False),
        (CDN, 500, False),
        (CDN, 200, False),
        (HERE, 403, False),
    ],
)
def test_what_counts_towards_a_ban_and_is_known_to_the_next_process(lane: Lane, status: int, *, counts: bool) -> None:
    b = budget(4.0)
    b.answer(admit(b, lane, 0.0), Answer(status, retry_after=0.0), 0.0)
    saved = msgspec.json.decode(msgspec.json.encode(b.export(1.0)), type=Saved)
    assert saved.invalid == ({int(WALL // 10): 1} if counts else {})
    assert budget(4.0, now=5.0, saved=saved).export(5.0).invalid == saved.invalid
    assert budget(4.0, now=700.0, saved=saved).export(700.0).invalid == {}


def test_shared_limits_and_other_hosts_do_not_count_towards_a_ban() -> None:
    b = budget(math.inf)
    for i in range(INVALID_SLOW + 10):
        b.answer(admit(b, HERE, float(i)), Answer(403), float(i))
    assert b.rate(CDN) == Rate(None, 24)
    assert not Answer(429, scope="shared").invalid


def test_too_many_refusals_stop_the_run_until_they_are_ten_minutes_old() -> None:
    saved = Saved(invalid={int(WALL // 10): INVALID_STOP})
    b = budget(4.0, saved=saved)
    with pytest.raises(RateLimitError, match=r"3000 requests.*\n.*run the same command again"):
        b.delay(CDN, 1.0)
    assert b.delay(HERE, 1.0) == 0
    assert b.delay(CDN, 620.0) == 0


def test_a_refused_token_stops_discord_at_once() -> None:
    b = budget(4.0)
    b.answer(admit(b, CDN, 0.0), Answer(401), 0.0)  # a file's 401 says nothing about the token
    assert b.delay(CDN, 1.0) == 0
    b.answer(admit(b, API, 1.0), Answer(401), 1.0)
    with pytest.raises(RateLimitError, match="DISCORD_BOT_TOKEN"):
        b.delay(CDN, 2.0)


def test_nobody_waits_for_hours() -> None:
    b = budget(4.0)
    limited(b, 0.0, retry_after=PATIENCE_S + 100)
    with pytest.raises(RateLimitError, match="left alone until 2023-11-14T23:"):
        b.delay(MEDIA, 1.0)
    assert b.delay(MEDIA, 200.0) == pytest.approx(PATIENCE_S - 100)


@pytest.mark.parametrize(("lane", "patience"), [(CDN, PATIENCE_S), (HERE, FOREIGN_PATIENCE_S)])
def test_so_long_is_waited(lane: Lane, patience: float) -> None:
    b = budget(4.0)
    limited(b, 0.0, lane=lane, retry_after=patience)
    assert b.delay(lane, 0.0) == patience
    assert b.delay(lane, patience) == 0


def test_another_host_that_asks_for_longer_is_given_up_for_the_run_and_no_other() -> None:
    b = budget(4.0)
    limited(b, 0.0, lane=HERE, retry_after=FOREIGN_PATIENCE_S + 30)
    with pytest.raises(RateLimitError, match=r"127\.0\.0\.1:8080 asks to be left alone until 2023-"):
        b.delay(HERE, 1.0)
    saved = b.export(1.0)
    for now in (40.0, 10_000.0):
        with pytest.raises(RateLimitError, match="answers nothing but 429, and is given up for this run"):
            b.delay(HERE, now)
    assert b.delay(CDN, 1.0) == 0
    assert b.rate(CDN) == Rate(4.0, 24)
    assert b.delay(Lane("127.0.0.1:9090"), 1.0) == 0
    later = Budget(4.0, 24, now=0.0, wall=WALL + FOREIGN_PATIENCE_S + 31, saved=[saved])
    assert later.delay(HERE, 0.0) == 0
    assert later.rate(HERE) == Rate(3.0, 24)
    assert later.rate(CDN) == Rate(4.0, 24)


def test_another_host_that_answers_429_and_nothing_else_is_given_up_in_bounded_time() -> None:
    b = budget(40.0)
    now, asked = 0.0, 0
    while now <= FOREIGN_PATIENCE_S:
        now += b.delay(HERE, now)
        b.answer(b.admit(HERE, now), Answer(429, retry_after=0.0), now)
        asked += 1
    with pytest.raises(RateLimitError, match="given up"):
        b.delay(HERE, now)
    assert now <= FOREIGN_PATIENCE_S + 2
    assert asked < 80
    now = 1_000.0
    for _ in range(200):  # one that lets something through now and then is not
        for status in (429, 200):
            now += b.delay(CDN if asked % 2 else MEDIA, now)
            now += b.delay(Lane("other"), now)
            b.answer(b.admit(Lane("other"), now), Answer(status, retry_after=0.0), now)


def test_a_host_that_limits_us_costs_no_other_its_pace() -> None:
    b = budget(4.0)
    now = 0.0
    for _ in range(20):
        now += max(b.delay(HERE, now), 5.0)
        b.answer(b.admit(HERE, now), Answer(429, retry_after=1.0), now)
        now += 1.0
        b.answer(admit(b, HERE, now + b.delay(HERE, now)), Answer(200), now)
    assert b.rate(HERE).qps == 0.5
    assert b.rate(CDN) == Rate(4.0, 24)
    assert {a.host for a in b.adjustments} == {HERE.host}
    now += 10.0
    admit(b, CDN, now)
    assert b.delay(CDN, now) == pytest.approx(0.25)
    limited(b, now + 1.0)
    assert b.rate(CDN) == Rate(3.0, 24)
    assert b.adjustments[-1].host == "discord"


def test_slots_that_one_host_may_not_use_are_left_to_the_others() -> None:
    b = budget(math.inf, 10, saved=Saved(paces={HERE.realm: SavedPace(Rate(0.5, 8), WALL)}))
    now = 0.0
    for _ in range(8):
        now += b.delay(HERE, now)
        b.admit(HERE, now)
    assert b.delay(HERE, now + 10) == math.inf
    assert not b.full
    admit(b, CDN, now)
    admit(b, CDN, now + 1)
    assert b.full


def test_all_together_never_pass_the_start_rate() -> None:
    b = budget(4.0)
    admit(b, CDN, 0.0)
    assert b.delay(HERE, 0.0) == pytest.approx(0.25)


def test_a_long_rest_is_told_even_where_it_costs_no_step() -> None:
    b = budget(4.0)
    tickets = [admit(b, CDN, i * 0.25) for i in range(4)]
    for ticket, wait in zip(tickets, (1.0, 5.0, 600.0, 605.0), strict=True):
        b.answer(ticket, Answer(429, retry_after=wait), 1.0)
    assert [(a.retry_after, a.before == a.after) for a in b.adjustments] == [(1.0, False), (600.0, True)]
    assert str(b.adjustments[1]) == "discord: stays at 3/s, 24 at once (http_429, rests 600 s)"
    b.answer(admit(b, API, 700.0), Answer(200, remaining=0, reset_after=90.0), 700.0)
    assert str(b.adjustments[2]) == "discord: stays at 3/s, 24 at once (used_up, rests 90 s)"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(429), "rests 1 s (assumed)"),
        (Answer(429, retry_after=2.345678), "rests 2.3 s)"),
        (Answer(429, retry_after=89.63827), "rests 90 s)"),
        (Answer(429, reset_after=3.0), "rests 3 s)"),
    ],
)
def test_a_wait_is_told_as_it_was_said_or_as_assumed(answer: Answer, told: str) -> None:
    b = budget(4.0)
    b.answer(admit(b, CDN, 0.0), answer, 0.0)
    [adjustment] = b.adjustments
    assert told in str(adjustment)
    assert adjustment.assumed == (answer.retry_after is None and answer.reset_after is None)


def test_what_several_processes_left_is_put_together() -> None:
    stale = slowed(Rate(0.5, 8), WALL - 100 * QUIET_S)  # recovered long ago
    lately = slowed(Rate(2.5, 24), WALL - 1.5 * QUIET_S, holds={CDN.realm: WALL + 50}, invalid={int(WALL // 10): 7})
    other = slowed(Rate(3.0, 24), WALL - 10, holds={CDN.realm: WALL + 20}, invalid={int(WALL // 10): 5})
    for order in ((stale, lately, other), (other, lately, stale), (lately, other, stale)):
        b = Budget(4.0, 24, now=0.0, wall=WALL, saved=order)
        assert b.delay(CDN, 0.0) == 50.0
        assert b.rate(CDN) == Rate(3.0, 24)
        assert b.export(0.0).paces == {"discord": SavedPace(Rate(3.0, 24), WALL - 10)}
        assert b.export(0.0).invalid == {int(WALL // 10): 7}


@pytest.mark.parametrize("lane", [CDN, API])
def test_nobody_is_left_alone_for_more_than_a_day(lane: Lane) -> None:
    b = budget(4.0)
    limited(b, 0.0, lane=lane, retry_after=1e300)
    with pytest.raises(RateLimitError, match="left alone until 2023-11-15T22:13:20"):
        b.delay(lane, 1.0)
    assert b.export(2.0).holds == {lane.realm: WALL + LONGEST_HOLD_S}
    assert b.export(2.0).paces[lane.realm].quiet_since == WALL + LONGEST_HOLD_S
    assert b.delay(lane, LONGEST_HOLD_S) == 0
    b.delay(lane, LONGEST_HOLD_S + QUIET_S)
    assert b.rate(CDN) == Rate(4.0, 24)


def test_a_route_that_is_used_up_is_asked_again_after_a_day() -> None:
    b = budget(4.0)
    b.answer(admit(b, API, 0.0), Answer(200, remaining=0, reset_after=1e300), 0.0)
    assert b.delay(API, LONGEST_HOLD_S) == 0


def test_what_was_cut_of_a_saved_state_is_to_be_written() -> None:
    """Else the next start would wait a day again."""
    assert budget(4.0, saved=Saved(holds={CDN.realm: 1e300})).revision > 0


def test_a_saved_state_from_the_far_future_is_cut() -> None:
    far = slowed(Rate(3.0, 24), 1e300, holds={CDN.realm: 1e300, "x": -1e300}, invalid={10**15: 5_000})
    b = budget(4.0, saved=far)
    assert b.rate(CDN) == Rate(1.0, 24)  # by the refusals, which count as new
    with pytest.raises(RateLimitError, match="left alone until 2023-11-15T22:13:20"):
        b.delay(CDN, 0.0)
    assert b.export(0.0) == slowed(
        Rate(3.0, 24),
        WALL + LONGEST_HOLD_S,
        holds={CDN.realm: WALL + LONGEST_HOLD_S},
        invalid={int(WALL // 10): 5_000},
    )
    assert b.delay(CDN, LONGEST_HOLD_S) == 0
    b.delay(CDN, LONGEST_HOLD_S + QUIET_S)
    assert b.rate(CDN) == Rate(4.0, 24)


def test_the_next_process_waits_the_rest_and_keeps_the_step() -> None:
    b = budget(4.0)
    limited(b, 0.0)
    limited(b, 2.0, retry_after=60.0)
    saved = msgspec.json.decode(msgspec.json.encode(b.export(3.0)), type=Saved)
    later = budget(4.0, now=1_000_000.0, saved=saved)
    assert later.delay(CDN, 1_000_000.0) == 0
    assert later.rate(CDN) == Rate(4.0, 24)  # the time in between was quiet
    soon = Budget(4.0, 24, now=77.0, wall=WALL + 12.0, saved=[saved])
    assert soon.rate(CDN) == Rate(2.5, 24)
    assert soon.adjustments[0].cause == "restored"
    assert soon.delay(CDN, 77.0) == pytest.approx(50.0)


def test_a_restored_step_is_never_faster_than_the_new_start() -> None:
    for qps, concurrency, expected in [(2.0, 24, Rate(2.0, 24)), (4.0, 16, Rate(3.0, 16)), (0.5, 8, Rate(0.5, 8))]:
        b = budget(qps, concurrency, saved=slowed(Rate(3.0, 24), WALL))
        assert b.rate(CDN) == expected


def test_a_run_that_was_begun_with_fewer_at_once_slows_the_next_by_its_steps_alone() -> None:
    few = budget(3.5, 8)
    limited(few, 0.0)
    assert few.rate(CDN) == Rate(3.0, 8)
    assert budget(4.0, 24, saved=few.export(1.0)).rate(CDN) == Rate(3.0, 24)
    # At the floor nothing tells what the refusals took from what was asked for.
    assert budget(4.0, 24, saved=slowed(Rate(0.5, 12), WALL)).rate(CDN) == Rate(0.5, 12)


def test_only_a_change_that_must_be_kept_moves_the_revision() -> None:
    b = budget(4.0)
    b.answer(admit(b, CDN, 0.0), Answer(200), 0.1)
    assert b.revision == 0
    b.answer(admit(b, CDN, 1.0), Answer(403), 1.1)
    assert b.revision == 1


# --- what a response says ---


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({}, b"", None),
        ({"Retry-After": "2"}, b"", 2.0),
        ({"Retry-After": "0.25"}, b"", 0.25),
        ({"Retry-After": "1"}, b'{"retry_after": 1.337, "global": false}', 1.337),
        ({}, b'{"retry_after": "3"}', 3.0),
        ({"Retry-After": format_datetime(datetime.fromtimestamp(WALL + 90, UTC), usegmt=True)}, b"", 90.0),
        ({"Retry-After": format_datetime(datetime.fromtimestamp(WALL - 90, UTC), usegmt=True)}, b"", 0.0),
        ({"Retry-After": "-5"}, b"", None),
        ({"Retry-After": "nan"}, b"", None),
        ({"Retry-After": "inf"}, b"", None),
        ({"Retry-After": "soon"}, b"[]", None),
        ({"Retry-After": "7"}, b'{"retry_after": true}', 7.0),
        ({"Retry-After": "7"}, b'{"retry_after": 1e999}', 7.0),
        ({"Retry-After": "7"}, b'{"message": "\xff"}', 7.0),
        ({"Retry-After": "7"}, b'{"message": ' + b"[" * 60_000, 7.0),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], body: bytes, expected: float | None) -> None:
    assert read_answer(429, headers, wall=WALL, body=body).retry_after == expected


def test_a_429_without_a_time_still_waits() -> None:
    b = budget(4.0)
    b.answer(admit(b, CDN, 0.0), Answer(429), 0.0)
    assert b.delay(CDN, 0.0) == 1.0


def test_scope_and_bucket_are_read() -> None:
    headers = {
        "X-RateLimit-Scope": "Shared",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset-After": "1.5",
        "X-RateLimit-Bucket": "b",
    }
    assert read_answer(200, headers, wall=WALL) == Answer(200, None, "shared", 0, 1.5, "b")
    assert read_answer(429, {}, wall=WALL, body=b'{"global": true}').scope == "global"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RateLimit-Remaining": "1e300", "X-RateLimit-Reset-After": "1e300", "Retry-After": "1e300"},
        {"X-RateLimit-Bucket": "\udcff", "X-RateLimit-Scope": "\udcff"},  # as the client hands on a byte 0xff
    ],
)
def test_whatever_the_headers_hold_can_be_sent_to_the_coordinator_and_kept(headers: dict[str, str]) -> None:
    for status in (200, 429):
        answer = read_answer(status, headers, wall=WALL)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=Answer) == answer
        b = budget(4.0)
        b.answer(admit(b, CDN, 0.0), answer, 0.0)
        assert msgspec.json.decode(msgspec.json.encode(b.export(0.0)), type=Saved) == b.export(0.0)


# --- laws ---


class Sent(NamedTuple):
    """A request that was let go: when, where to, and what its realm's rate was."""

    at: float
    lane: Lane
    qps: float


class World:
    """Servers that answer as told, and a budget before them that may be killed and started again."""

    def __init__(self, qps: float, concurrency: int) -> None:
        self.qps, self.concurrency = qps, concurrency
        self.now = 0.0
        self.budget = budget(qps, concurrency)
        self.under_way: list[tuple[Ticket, Answer | None]] = []
        self.sent: list[Sent] = []
        self.rests: list[tuple[float, float, Lane, bool]] = []
        self.restarts: list[float] = []

    def request(self, lane: Lane, answer: Answer | None) -> None:
        """Waits for leave as a fetcher does; gives the oldest answer where nothing goes before one comes."""
        try:
            while (delay := self.budget.delay(lane, self.now)) > 0:
                if delay == math.inf:
                    self.answer_oldest()
                else:
                    self.now += delay
        except RateLimitError:
            assert not lane.discord  # which never asked for more than a few seconds
            return
        for since, until, met_by, narrow in self.rests:
            concerned = lane.path == met_by.path if narrow else lane.realm == met_by.realm
            # What outlives a process is kept in Unix seconds, which a float tells to a quarter of a microsecond.
            assert not (concerned and since <= self.now < until - 1e-6), "sent before its time"
        self.sent.append(Sent(self.now, lane, self.budget.rate(lane).qps or math.inf))
        self.under_way.append((self.budget.admit(lane, self.now), answer))
        assert len(self.under_way) <= self.concurrency
        assert sum(t.lane.realm == lane.realm for t, _ in self.under_way) <= self.budget.rate(lane).concurrency

    def answer_oldest(self) -> None:
        ticket, answer = self.under_way.pop(0)
        self.budget.answer(ticket, answer, self.now)
        if answer is not None and answer.status == 429:
            until = self.now + (1.0 if answer.retry_after is None else answer.retry_after)
            self.rests.append((self.now, until, ticket.lane, answer.scope in {"user", "shared"}))

    def restart(self) -> None:
        """The process dies with what was under way; the next one starts with what was saved."""
        saved = msgspec.json.decode(msgspec.json.encode(self.budget.export(self.now)), type=Saved)
        self.under_way.clear()
        self.restarts.append(self.now)
        self.budget = budget(self.qps, self.concurrency, now=self.now, saved=saved)

    def check_pace(self) -> None:
        """In any second no more than the rate in force, and one; and one for each process that began in it."""
        for start in [each.at for each in self.sent]:
            window = [each for each in self.sent if start <= each.at < start + 1]
            spare = 1 + sum(start <= at < start + 1 for at in self.restarts)
            assert len(window) <= self.qps + spare
            for realm in {each.lane.realm for each in window}:
                there = [each for each in window if each.lane.realm == realm]
                assert len(there) <= max(each.qps for each in there) + spare
            assert sum(each.lane.discord for each in window) <= DISCORD_QPS + spare


_events = st.lists(
    st.tuples(
        st.sampled_from([CDN, MEDIA, API, OTHER_ROUTE, HERE, Lane("127.0.0.1:9090")]),
        st.floats(0, 1.5),  # how long nobody asks
        st.sampled_from([200, 200, 200, 403, 429, 429, 503, None]),
        st.one_of(st.none(), st.floats(0, 3)),  # Retry-After
        st.sampled_from([None, "user", "global", "shared"]),
        st.integers(0, 6),  # how many answers are still out
        st.sampled_from([False] * 9 + [True]),  # whether the process is killed then
    ),
    max_size=120,
)


@given(st.sampled_from([0.5, 2.0, 4.0, 45.0, 300.0, math.inf]), st.integers(1, 30), _events)
def test_never_more_than_the_budget_and_nothing_before_its_time(
    qps: float, concurrency: int, events: list[tuple[Lane, float, int | None, float | None, str | None, int, bool]]
) -> None:
    world = World(qps, concurrency)
    for lane, pause, status, retry_after, scope, still_out, killed in events:
        world.now += pause
        world.request(lane, None if status is None else Answer(status, retry_after=retry_after, scope=scope))
        while len(world.under_way) > still_out:
            world.answer_oldest()
        if killed:
            world.restart()
    world.check_pace()


@given(
    st.lists(st.tuples(st.sampled_from([4.0, 3.0, 1.0, 0.5]), st.floats(-2_000, 100)), max_size=4),
    st.lists(st.floats(-100, 100), max_size=4),
    st.randoms(),
)
def test_in_whatever_order_states_are_put_together_the_same_comes_of_it(
    paces: list[tuple[float, float]], holds: list[float], random: Random
) -> None:
    states = [slowed(Rate(qps, 24), WALL + since) for qps, since in paces]
    states += [Saved(holds={CDN.realm: WALL + until}) for until in holds]
    once = Budget(4.0, 24, now=0.0, wall=WALL, saved=states).export(0.0)
    random.shuffle(states)
    assert Budget(4.0, 24, now=0.0, wall=WALL, saved=[*states, *states[:2], once]).export(0.0) == once
