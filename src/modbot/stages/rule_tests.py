"""The tests of a rules file: run as a scan would judge them, and made of records that were judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import yaml

from modbot.records.evidence import Attached, Evidence, Failure, Fault, Picture, Post, Reading, Seen, Tagged
from modbot.records.finding import UNJUDGED
from modbot.records.p2 import XSignals
from modbot.rules.cases import Case, CaseRecord, counting_tags
from modbot.stages.explain import Explained, explain
from modbot.stages.hashlists import HashList, HashLists
from modbot.stages.judge import Judged, RulesJudge
from modbot.stages.rulebook import Rulebook
from modbot.words import counted

_DIGEST = "0" * 64
_WIDTH = 110


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """A test that was run. `got` holds `severity` and `rule_id`; `explained` is the whole verdict."""

    case: Case
    got: Mapping[str, str | None]
    explained: Explained

    @property
    def passed(self) -> bool:
        return all(self.got[key] == value for key, value in self.case.expect.items())

    @property
    def shown(self) -> dict[str, Any]:
        """As JSON tells it: explained where it differs."""
        case = self.case
        told = {"name": case.name, "line": case.line, "passed": self.passed, "expected": case.expect, "got": self.got}
        return told if self.passed else {**told, "explained": self.explained.shown}


class RanTests(msgspec.Struct, frozen=True, kw_only=True):
    """All tests of a file. `broken`: how many could not be read; the file's issues tell why."""

    results: tuple[Tested, ...]
    broken: int

    @property
    def failed(self) -> tuple[Tested, ...]:
        return tuple(result for result in self.results if not result.passed)

    @property
    def is_good(self) -> bool:
        return not self.failed and not self.broken

    @property
    def summary(self) -> str:
        """`21 tests, 2 failed`."""
        count = len(self.results) + self.broken
        parts = [f"{len(self.failed)} failed" if self.failed else "", f"{self.broken} broken" if self.broken else ""]
        return ", ".join([counted(count, "test"), *filter(None, parts)])

    @property
    def shown(self) -> dict[str, Any]:
        """As JSON tells it."""
        return {
            "total": len(self.results) + self.broken,
            "failed": len(self.failed),
            "broken": self.broken,
            "results": [result.shown for result in self.results],
        }


def run_tests(book: Rulebook) -> RanTests:
    """Runs the tests of a rules file. Raises RulesError where none of its rules run."""
    cases = book.loaded.cases
    judges = {frozenset[str](): book.judge(UNJUDGED, HashLists())}
    results = []
    for case in cases.tests:
        known = case.record.known
        if known not in judges:
            judges[known] = book.judge(UNJUDGED, _lists(known))
        results.append(_test(judges[known], case))
    return RanTests(results=tuple(results), broken=cases.broken)


def _test(judge: RulesJudge, case: Case) -> Tested:
    read = reading(case.record)
    if given := case.record.xsignals:
        computed = judge.facts(read, read.evidence.tags()).xsignals
        read.evidence.xsignals = {**computed, **given}
    judged = judge(read)
    got = {"severity": judged.outcome.severity, "rule_id": judged.outcome.rule_id}
    return Tested(case=case, got=got, explained=explain(judge, judged))


def _lists(known: Iterable[str]) -> HashLists:
    """Lists that hold the image of every test."""
    return HashLists({name: HashList(sha256=frozenset({_DIGEST})) for name in known})


def reading(record: CaseRecord) -> Reading:
    """The record of a test as if it had been read from a p2 file that holds no signals."""
    width, height = record.size or (0, 0)
    post = Post(
        is_nsfw_channel=record.channel_is_nsfw,
        is_spoiler=record.is_spoiler,
        attachments=[Attached()] * record.attachment_count,
    )
    evidence = Evidence(
        sha256=_DIGEST,
        image=None if record.size is None else Picture(width, height),
        messages=[post],
        wd14=Tagged(rating=dict(record.rating), general_raw=list(record.tags.items())),
        error=None if record.error is None else Failure(record.error.kind, record.error.detail),
        nudity_detections=[Seen(class_=found.name, score=found.score, box=found.box) for found in record.nudity],
    )
    doubts = tuple(Fault(doubt.kind, doubt.detail) for doubt in record.doubts)
    return Reading(b"{}", evidence, doubts)


def as_test(judge: RulesJudge, judged: Judged, name: str) -> dict[str, Any]:
    """A judged record as a test of the file: what its verdict rests on, and nothing that tells whose it is.

    Of the tags, those that the rules can see.
    """
    outcome = judged.outcome
    return {
        "name": name,
        "record": dict(_record(judge, judged)),
        "expect": {"severity": outcome.severity, "rule_id": outcome.rule_id},
    }


def _record(judge: RulesJudge, judged: Judged) -> Iterator[tuple[str, Any]]:
    evidence = judged.reading.evidence
    if evidence.error is not None:
        yield "error", evidence.error.kind
        return
    counts = counting_tags(judge.ruleset.program)
    facts = judge.facts(judged.reading, judged.tags)
    yield "rating", dict(facts.rating)
    if tags := {tag: score for tag, score in sorted(facts.tags.items(), key=lambda pair: -pair[1]) if counts(tag)}:
        yield "tags", tags
    if facts.detections:
        yield "nudity", [{"class": name, "score": score} for name, score in facts.detections]
    if facts.channel_is_nsfw:
        yield "channel", {"is_nsfw": True}
    if facts.is_spoiler:
        yield "message", {"is_spoiler": True}
    if facts.attachment_count != 1:
        yield "attachment_count", facts.attachment_count
    yield "xsignals", {name: facts.xsignals[name] for name in XSignals.__struct_fields__}
    if facts.known:
        yield "known", sorted(facts.known)
    if judged.reading.doubts:
        yield "doubts", [doubt.kind for doubt in judged.reading.doubts]


def as_yaml(tests: Iterable[Mapping[str, Any]]) -> str:
    """Tests as they stand under `tests:` of a rules file."""
    text: str = yaml.safe_dump(list(tests), allow_unicode=True, default_flow_style=None, sort_keys=False, width=_WIDTH)
    return "".join(f"  {line}\n" for line in text.removesuffix("\n").split("\n"))
