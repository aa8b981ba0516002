from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.errors import SettingError
from modbot.records.evidence import Evidence, read
from modbot.stages import select
from modbot.stages.select import Selection

TOKYO = ZoneInfo("Asia/Tokyo")
NOW = datetime(2025, 10, 8, 12, tzinfo=UTC)


def evidence(*messages: dict[str, Any]) -> Evidence:
    return read(json.dumps({"messages": messages}).encode(), 1).evidence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-10-01", datetime(2025, 10, 1, tzinfo=TOKYO)),
        ("2025-10-01T05:00", datetime(2025, 10, 1, 5, tzinfo=TOKYO)),
        ("2025-10-01T05:00:00Z", datetime(2025, 10, 1, 5, tzinfo=UTC)),
        ("7d", NOW - timedelta(days=7)),
        ("24h", NOW - timedelta(hours=24)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2w", NOW - timedelta(weeks=2)),
    ],
)
def test_since(text: str, expected: datetime) -> None:
    assert select.since(text, TOKYO, NOW) == expected


def test_a_bare_until_date_includes_that_day() -> None:
    assert select.until("2025-10-01", TOKYO, NOW) == datetime(2025, 10, 2, tzinfo=TOKYO)
    assert select.until("24h", TOKYO, NOW) == NOW - timedelta(hours=24)
    at_five = select.until("2025-10-01T05:00", TOKYO, NOW)
    assert Selection(until=at_five).look(evidence({"created_at": "2025-10-01T05:00:00+09:00"}))[0] is None
    assert Selection(until=at_five).look(evidence({"created_at": "2025-10-01T05:00:01+09:00"}))[0] == "time"


def test_the_day_after_the_clocks_change_is_a_midnight_too() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    until = select.until("2025-10-26", berlin, NOW)
    assert Selection(until=until).look(evidence({"created_at": "2025-10-26T23:30:00+01:00"}))[0] is None
    assert Selection(until=until).look(evidence({"created_at": "2025-10-27T00:00:00+01:00"}))[0] == "time"


@pytest.mark.parametrize("text", ["", "soon", "7", "7y", "2025-13-01", "-1d", "999999w"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="--since"):
        select.since(text, UTC, NOW)


def test_the_last_day_there_is_can_be_asked_for() -> None:
    assert Selection(until=select.until("9999-12-31", UTC, NOW)).look(evidence({"created_at": "2025-10-01"}))[0] is None


def test_one_message_must_be_in_the_time_and_in_the_channel() -> None:
    wanted = Selection(since=datetime(2025, 10, 1, tzinfo=UTC), channels=frozenset({"5", "art"}))
    early = {"created_at": "2025-09-30T00:00:00+00:00", "channel_id": "5"}
    elsewhere = {"created_at": "2025-10-02T00:00:00+00:00", "channel_id": "6"}
    named = {"created_at": "2025-10-02T00:00:00+00:00", "channel_id": "7", "channel_name": "art"}
    assert wanted.look(evidence(early))[0] == "time"
    assert wanted.look(evidence(elsewhere))[0] == "channel"
    assert wanted.look(evidence(early, elsewhere))[0] == "channel"
    assert wanted.look(evidence(early, elsewhere, named))[0] is None


@pytest.mark.parametrize("created_at", [None, "", "yesterday", 12345])
def test_a_message_without_a_usable_date_is_in_any_time(created_at: object) -> None:
    wanted = Selection(since=datetime(2025, 10, 1, tzinfo=UTC))
    found = evidence({"created_at": created_at})
    assert wanted.look(found)[0] is None
    assert wanted.look(found)[1]
    assert not Selection().look(found)[1]


@given(st.datetimes(), st.datetimes(), st.datetimes())
def test_before_within_and_after_are_all_there_is(at: datetime, low: datetime, high: datetime) -> None:
    low, high = (bound.replace(tzinfo=UTC) for bound in sorted((low, high)))
    found = evidence({"created_at": at.replace(tzinfo=UTC).isoformat()})
    inside = [
        Selection(until=low).look(found)[0] is None,
        Selection(since=low, until=high).look(found)[0] is None,
        Selection(since=high).look(found)[0] is None,
    ]
    assert inside.count(True) == 1


def test_a_record_is_undated_where_none_of_its_messages_has_a_date() -> None:
    wanted = Selection(since=NOW)
    early, undated = {"created_at": "2001-01-01"}, {"created_at": "yesterday"}
    assert wanted.look(evidence(undated)) == (None, True)
    assert wanted.look(evidence(early, undated)) == (None, False)
    assert wanted.look(evidence(early)) == ("time", False)
