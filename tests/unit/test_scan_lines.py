from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from modbot.records.finding import SEVERITIES
from modbot.records.tags import Group
from modbot.rules import load_rules
from modbot.signals import SignalConfig
from modbot.stages.compare import Difference, Largest
from modbot.stages.hashlists import HashLists
from modbot.stages.judge import Judged, RulesJudge
from modbot.stages.rulebook import signals_of
from modbot.stages.scan import judge_lines
from modbot.stages.select import Selection
from modbot.stages.tally import Tally
from tests.p2_records import DAY, RULES, lines, odd_lines

RECORDS = [*lines(25, raw_tags=10), *odd_lines().values()]
MOMENTS = st.none() | st.integers(-30, 60).map(lambda hours: DAY + timedelta(hours=hours))
SELECTIONS = st.builds(
    Selection,
    since=MOMENTS,
    until=MOMENTS,
    channels=st.frozensets(st.sampled_from(["1", "2", "room-3"])),
    severities=st.frozensets(st.sampled_from(SEVERITIES)),
    offset=st.integers(0, 60),
    limit=st.none() | st.integers(1, 60),
)


@lru_cache
def judge() -> RulesJudge:
    loaded = load_rules(RULES.encode(), file="rules.yaml")
    assert loaded.ruleset is not None
    signals = signals_of(Group(()), SignalConfig())
    return RulesJudge(loaded.ruleset, unjudged="yellow", lists=HashLists(), signals=signals)


def scanned(records: list[bytes], selection: Selection) -> tuple[Tally, list[Judged]]:
    tally, found = Tally(), list[Judged]()
    judge_lines(enumerate(records, 1), judge(), selection, tally, [found.append])
    return tally, found


@given(SELECTIONS)
def test_what_is_written_and_what_is_left_out_are_all_there_is(selection: Selection) -> None:
    tally, found = scanned(RECORDS, selection)
    assert tally.total == len(found) == tally.severity.total() == tally.winning.total()
    assert tally.total + tally.filtered.total() == tally.read == len(RECORDS)


@settings(max_examples=20)
@given(SELECTIONS)
def test_pages_of_a_selection_are_the_selection(selection: Selection) -> None:
    everything = replace(selection, offset=0, limit=None)
    pages = []
    for offset in range(0, len(RECORDS), 7):
        pages += scanned(RECORDS, replace(everything, offset=offset, limit=7))[1]
    assert [page.reading for page in pages] == [found.reading for found in scanned(RECORDS, everything)[1]]


@settings(max_examples=20)
@given(st.permutations(RECORDS))
def test_the_order_of_the_records_does_not_matter(records: list[bytes]) -> None:
    assert sorted(map(verdict, scanned(records, Selection())[1])) == sorted(
        map(verdict, scanned(RECORDS, Selection())[1])
    )


def verdict(judged: Judged) -> tuple[str, ...]:
    """All that p3 says of a record, but for the time that it took and the number of a line that is no record."""
    told = msgspec.to_builtins(judged.outcome)
    del told["metrics"]["eval_ms"]
    line, said = judged.reading.line.decode(), json.dumps(told, sort_keys=True)
    return re.sub(r"line \d+", "line", line), re.sub(r"line \d+", "line", said), str(judged.matched)


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0])), st.integers(0, 5))
def test_the_largest_are_those_that_sorting_finds(sizes: list[float], count: int) -> None:
    (one,) = scanned(RECORDS[:1], Selection())[1]
    differences = [Difference(one.reading, one.outcome, one.outcome, size) for size in sizes]
    largest = Largest(count)
    for difference in differences:
        largest.add(difference)
    assert [id(found) for found in largest.largest()] == [
        id(found) for found in sorted(differences, key=lambda found: -found.size)[:count]
    ]
