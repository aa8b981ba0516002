from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.records.evidence import OWN_KEYS, Reading, read
from tests.p2_records import lines, odd_lines, plain

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def reading(record: object) -> Reading:
    return read(json.dumps(record).encode(), 1)


def test_a_good_line_keeps_its_bytes() -> None:
    for line in lines(30):
        found = read(line, 1)
        assert found.line == line.rstrip()
        assert found.skipped_tags == 0


def test_both_readings_of_a_good_line_agree() -> None:
    for row in range(60):
        record = plain(row)
        fast, slow = reading(record), reading({**record, "is_spoiler": 0})
        assert slow.doubts == fast.doubts
        assert msgspec.to_builtins(slow.evidence) == msgspec.to_builtins(fast.evidence)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"wd14": None}, ["scores_missing"]),
        ({"wd14": 5}, ["scores_missing"]),
        ({"wd14": {"rating": {}}}, ["scores_missing"]),
        ({"wd14": {"rating": {"explicit": float("nan")}}}, ["not_finite", "scores_missing"]),
        ({"wd14": {"rating": {"explicit": "inf", "general": 1}}}, ["not_finite"]),
        ({"wd14": {"rating": {"explicit": [], "general": 1}}}, ["not_finite"]),
        ({"wd14": {"rating": {"general": 1}, "general_raw": [["dog", None]]}}, ["not_finite"]),
        (
            {"nudity_detections": [{"class": "X", "score": float("inf"), "box": [1, 2, 3, 4]}]},
            ["not_finite", "unreadable"],
        ),
        ({"nudity_detections": [{"class": "X", "score": 0.5, "box": None}]}, ["unreadable"]),
        ({"nudity_detections": "none"}, ["unreadable"]),
        ({"meta": {"nudenet_error": "boom"}}, ["detector_failed"]),
        ({"meta": {"nudenet_error": ["boom"]}}, ["detector_failed"]),
        ({"image": {"truncated": True, "width": "8"}}, ["not_finite", "truncated"]),
        ({"image": {"width": None}}, ["not_finite"]),
        ({"wd14": {"rating": {"general": 1, "explicit": "0.9"}}}, ["not_finite"]),
        ({"wd14": {"rating": {"general": 1}, "general_raw": [["dog", "0.5"]]}}, ["not_finite"]),
        ({"xsignals": {**plain(1)["xsignals"], "exposure_score": "0.1"}}, ["not_finite"]),
        ({"nudity_detections": [{"class": "X", "score": "0.5", "box": [1, 2, 3, 4]}]}, ["not_finite"]),
        ({"nudity_detections": [{"class": "X", "score": 0.5, "box": ["1", 2, 3, 4]}]}, ["unreadable"]),
        ({"image": {"truncated": "true"}}, ["truncated"]),
        ({"xsignals": {"exposure_score": float("nan")}}, ["not_finite"]),
        ({"xsignals": {"exposure_score": None}}, ["not_finite"]),
        ({"xsignals": {"exposure_score": float("inf")}}, ["not_finite"]),
        ({"xsignals": {"exposure_score": []}}, ["not_finite"]),
        ({"xsignals": []}, ["unreadable"]),
        ({"xsignals": None}, []),
        ({"nudity_detections": None}, ["evidence_missing"]),
        ({"nudity_detections": None, "meta": {"nudenet_ran": False}}, []),
        ({"nudity_detections": None, "meta": {"nudenet_ran": "true"}}, ["evidence_missing"]),
        ({"sha256": None}, ["evidence_missing"]),
        ({"image": None}, ["evidence_missing"]),
        ({"image": "x"}, ["evidence_missing"]),
        ({"meta": [True]}, ["evidence_missing"]),
        ({"sha256": None, "image": None, "error": {"kind": "expired"}}, []),
        ({"wd14": {"rating": {"general": 1, "explicit": -5}}}, ["out_of_range"]),
        ({"wd14": {"rating": {"general": 7}}}, ["out_of_range"]),
        ({"wd14": {"rating": {"general": 1, "aesthetic": 7}}}, []),
        ({"wd14": {"rating": {"general": 1}, "general_raw": [["dog", -1]]}}, ["out_of_range"]),
        ({"wd14": {"rating": {"general": 1}, "general_raw": {"dog": 1}}}, ["unreadable"]),
        ({"nudity_detections": [{"class": "X", "score": 1.5, "box": [1, 2, 3, 4]}]}, ["out_of_range"]),
        ({"messages": 7}, []),
        ({}, []),
    ],
)
def test_what_is_missing_or_broken_is_a_doubt(change: dict[str, Any], kinds: list[str]) -> None:
    assert [doubt.kind for doubt in reading(plain(1, **change)).doubts] == kinds


@pytest.mark.parametrize("key", ["sha256", "image", "meta", "nudity_detections"])
def test_a_key_that_is_not_there_is_missing_as_well(key: str) -> None:
    record = plain(1)
    assert record["meta"]["nudenet_ran"]
    del record[key]
    (doubt,) = reading(record).doubts
    assert doubt.kind == "evidence_missing"
    assert key in doubt.detail


def test_signals_are_whole_or_none() -> None:
    assert reading(plain(1)).evidence.signals == plain(1)["xsignals"]
    for name in plain(1)["xsignals"]:
        signals = plain(1)["xsignals"]
        assert reading(plain(1, xsignals={**signals, name: "x"})).evidence.signals is None
        del signals[name]
        assert reading(plain(1, xsignals=signals)).evidence.signals is None


def test_tags_are_normalised_and_a_repeated_one_keeps_its_largest_score() -> None:
    pairs = [["Long  Hair", 0.2], ["long-hair", 0.9], ["long_hair", 0.5], ["\uff44\uff4f\uff47", 0.1]]
    assert reading(plain(1, wd14={"general_raw": pairs})).evidence.tags() == {"long_hair": 0.9, "dog": 0.1}


def test_the_raw_tags_come_first_and_the_others_stand_in() -> None:
    assert reading(plain(1, wd14={"general_raw": [], "general": [["cat", 0.4]]})).evidence.tags() == {"cat": 0.4}
    both = {"general_raw": [["dog", 0.1]], "general": [["cat", 0.4]]}
    assert reading(plain(1, wd14=both)).evidence.tags() == {"dog": 0.1}


def test_items_that_are_no_tags_are_skipped_and_counted() -> None:
    pairs = [["dog", 0.5], {"name": "cat", "score": 0.4}, ["owl"], [1, 2], "fox", None, ["elk", {}], ["emu", True]]
    found = reading(plain(1, wd14={"rating": {"general": 1}, "general_raw": pairs}))
    assert found.evidence.tags() == {"dog": 0.5, "cat": 0.4}
    assert found.skipped_tags == 6
    assert found.doubts == ()


@pytest.mark.parametrize(
    ("said", "own", "nsfw"),
    [
        ([True, True], False, True),
        ([True, False], True, False),
        ([None], True, True),
        ([None, True], False, False),
        ([], True, True),
        ([], False, False),
    ],
)
def test_a_channel_is_nsfw_only_where_every_message_is(said: list[bool | None], own: bool, nsfw: bool) -> None:  # noqa: FBT001 - cases
    messages = [{"is_nsfw_channel": flag} for flag in said]
    assert reading(plain(1, messages=messages, is_nsfw_channel=own)).evidence.channel_is_nsfw is nsfw


@pytest.mark.parametrize(
    "change",
    [
        {"is_spoiler": True},
        {"messages": [{}, {"is_spoiler": True}]},
        {"messages": [{}, {"attachments": [{}, {"is_spoiler": True}]}]},
        {"messages": [{"is_spoiler": "true"}]},
    ],
)
def test_one_spoiler_is_enough(change: dict[str, Any]) -> None:
    assert not reading(plain(1)).evidence.shown_as_spoiler
    assert reading(plain(1, **change)).evidence.shown_as_spoiler


def test_what_p3_adds_is_taken_off_a_finding_that_is_read_again() -> None:
    record = plain(1)
    found = reading({**record, **dict.fromkeys(OWN_KEYS, "x")})
    assert json.loads(found.line) == record


@pytest.mark.parametrize("name", odd_lines())
def test_an_odd_line_is_read_or_stands_as_an_error(name: str) -> None:
    found = read(odd_lines()[name], 7)
    record = json.loads(found.line, parse_constant=pytest.fail)
    assert isinstance(record, dict)
    assert b"\n" not in found.line
    if found.evidence.error is not None and found.evidence.error.kind == "unreadable":
        assert record["error"]["detail"].startswith("line 7: ")


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_valid_object(data: bytes) -> None:
    found = read(data, 3)
    assert isinstance(msgspec.json.decode(found.line), dict)
    assert found.line.decode()


@given(st.dictionaries(st.sampled_from(sorted(plain(1))), JSON))
def test_any_values_under_the_records_keys_are_read(change: dict[str, Any]) -> None:
    found = reading({**plain(1), **change})
    assert isinstance(msgspec.json.decode(found.line), dict)
    assert all(score == score for score in found.evidence.tags().values())  # noqa: PLR0124 - NaN is not itself
    assert found.evidence.posts
