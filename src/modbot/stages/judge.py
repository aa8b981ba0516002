"""From a p2 line that was read to what p3 adds to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from time import perf_counter_ns
from typing import Any, NamedTuple

from modbot.records.evidence import Evidence, Fault, Reading
from modbot.records.finding import Outcome, Severity
from modbot.records.tags import Group
from modbot.rules import Explainer, Facts, RuleSet, Verdict
from modbot.stages.hashlists import HashLists

VIOLENCE_GROUP = "violence"
VIOLENCE_MAX = "violence_max"
VIOLENCE_THRESHOLD = 0.35
EVALUATION_FAILED = "evaluation_failed"
LEGACY_REASON = "legacy_ruleset_unsupported"

Signals = Callable[[Evidence, Mapping[str, float]], Mapping[str, float]]
"""Computes the seven signals from a record and its normalised tags, where p2 did not."""

_NS_PER_MS = 1_000_000


class Judged(NamedTuple):
    """A record with its outcome. `tags`: normalised name -> score. `fault`: why it could not be judged, if so.

    `matched` has bit i set where the i-th rule matched, whether it won or not.
    """

    reading: Reading
    tags: Mapping[str, float]
    outcome: Outcome
    fault: Fault | None = None
    matched: int = 0


Judge = Callable[[Reading], Judged]


class RulesJudge:
    """Judges by a rule set; what could not be judged is `unjudged` (a severity above green), never harmless."""

    def __init__(self, ruleset: RuleSet, *, unjudged: Severity, lists: HashLists, signals: Signals) -> None:
        self.ruleset = ruleset
        self._unjudged = unjudged
        self._lists = lists
        self._signals = signals
        self._is_violence = _membership(ruleset.groups.get(VIOLENCE_GROUP))

    def __call__(self, reading: Reading) -> Judged:
        started = perf_counter_ns()
        evidence = reading.evidence
        tags = evidence.tags()
        if evidence.error is not None:
            return self._not_judged(reading, tags, Fault(evidence.error.kind, evidence.error.detail), started)
        verdict = self.ruleset.judge(self.facts(reading, tags))
        if verdict.severity == "green" and (fault := _doubt(reading, verdict)) is not None:
            return self._not_judged(reading, tags, fault, started, verdict)
        winning = _winning(verdict.origin, verdict.severity, verdict.rule_id, verdict.priority)
        metrics = self._metrics(verdict, tags, winning, started)
        outcome = Outcome(verdict.severity, verdict.rule_id, verdict.rule_title, verdict.reasons, metrics)
        return Judged(reading, tags, outcome, matched=verdict.matched)

    @cached_property
    def explainer(self) -> Explainer:
        """What explains the verdicts of these rules."""
        return Explainer(self.ruleset)

    def facts(self, reading: Reading, tags: Mapping[str, float]) -> Facts:
        """What the rules can know of the record; `tags` are its normalised ones."""
        evidence = reading.evidence
        return Facts(
            rating=evidence.rating,
            tags=tags,
            skipped_tags=reading.skipped_tags,
            detections=[(found.class_, found.score) for found in evidence.detections],
            channel_is_nsfw=evidence.channel_is_nsfw,
            is_spoiler=evidence.shown_as_spoiler,
            attachment_count=evidence.attachment_count,
            xsignals=evidence.signals or self._signals(evidence, tags),
            known=self._lists.of(evidence),
        )

    def _metrics(
        self, verdict: Verdict, tags: Mapping[str, float], winning: Mapping[str, Any], started: int
    ) -> dict[str, Any]:
        return {
            "dsl": verdict.features,
            "violence_tags": self._violence(verdict, tags),
            **verdict.signals,
            "winning": winning,
            "eval_ms": _ms_since(started),
        }

    def _violence(self, verdict: Verdict, tags: Mapping[str, float]) -> list[tuple[str, float]]:
        # The group's maximum, unless a feature has taken its name, tells at once of most images that there are none.
        if VIOLENCE_MAX not in verdict.features and verdict.signals[VIOLENCE_MAX] < VIOLENCE_THRESHOLD:
            return []
        return [(tag, score) for tag, score in tags.items() if score >= VIOLENCE_THRESHOLD and self._is_violence(tag)]

    def _not_judged(
        self, reading: Reading, tags: Mapping[str, float], fault: Fault, started: int, verdict: Verdict | None = None
    ) -> Judged:
        told = f"not judged: {fault.kind} ({fault.detail})" if fault.detail else f"not judged: {fault.kind}"
        # The detail may be a library's own words, over several lines.
        reason = " ".join(told.split())
        winning = _winning("unjudged", self._unjudged, None, None)
        metrics = _no_metrics(winning, started) if verdict is None else self._metrics(verdict, tags, winning, started)
        return Judged(reading, tags, Outcome(self._unjudged, None, None, [reason], metrics), fault)


def legacy_green(reading: Reading) -> Judged:
    """Every record green, whatever it holds: what `--fallback green` asks for where the rules are legacy."""
    metrics = _no_metrics(_winning("legacy", "green", None, None), perf_counter_ns())
    return Judged(reading, reading.evidence.tags(), Outcome("green", None, None, [LEGACY_REASON], metrics))


def _membership(group: Group | None) -> Callable[[str], bool]:
    return lru_cache(maxsize=65_536)(group.matches) if group is not None else lambda _: False


def _doubt(reading: Reading, verdict: Verdict) -> Fault | None:
    """Why a green verdict proves nothing, if so."""
    if reading.doubts:
        return reading.doubts[0]
    return Fault(EVALUATION_FAILED, verdict.problems[0]) if verdict.problems else None


def _winning(origin: str, severity: str, rule_id: str | None, priority: int | None) -> dict[str, Any]:
    return {"origin": origin, "severity": severity, "rule_id": rule_id, "priority": priority}


def _no_metrics(winning: Mapping[str, Any], started: int) -> dict[str, Any]:
    """The metrics of a record that no rule was asked about."""
    return {"dsl": {}, "violence_tags": [], "winning": winning, "eval_ms": _ms_since(started)}


def _ms_since(started: int) -> float:
    return round((perf_counter_ns() - started) / _NS_PER_MS, 3)
