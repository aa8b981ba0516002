"""What a scan counts while it runs, and the metrics that come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from modbot.records.finding import SEVERITIES
from modbot.stages.judge import Judged
from modbot.stages.select import FILTERS

TOP_RULES = 10


class Latencies:
    """Evaluation times as counts by duration, two significant digits of a microsecond: small, whatever the day."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._sum_ms = 0.0

    def add(self, ms: float) -> None:
        self._sum_ms += ms
        us = int(ms * 1000)
        self._counts[us if us < 100 else _two_digits(us)] += 1  # noqa: PLR2004 - what has two digits

    def merge(self, other: Latencies) -> None:
        self._sum_ms += other._sum_ms
        self._counts.update(other._counts)

    @property
    def average_ms(self) -> float:
        return round(self._sum_ms / n, 3) if (n := self._counts.total()) else 0.0

    def percentile_ms(self, share: float) -> float:
        """The duration that `share` (0 to 1) of the records stay within."""
        left = share * self._counts.total()
        for us, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                return us / 1000
        return 0.0


def _two_digits(us: int) -> int:
    step: int = 10 ** (len(str(us)) - 2)
    return us // step * step


_Kind = tuple[str, str, str | None, str | None, str | None, bool]
"""What findings are counted by, all at once: severity, origin, rule, kind of fault, model, calibrated or not."""


class Tally:
    """Counts of the records that passed the filters, and of those that did not."""

    def __init__(self) -> None:
        self.total = 0
        self.filtered: Counter[str] = Counter()
        self.undated = 0
        self.skipped_tags = 0
        self.latencies = Latencies()
        self._kinds: Counter[_Kind] = Counter()

    def add(self, judged: Judged) -> None:
        """Counts a finding."""
        outcome, fault = judged.outcome, judged.fault
        kind = (
            outcome.severity,
            outcome.metrics["winning"]["origin"],
            outcome.rule_id,
            None if fault is None else fault.kind,
            judged.reading.evidence.model,
            judged.reading.evidence.calibrated,
        )
        self.total += 1
        self._kinds[kind] += 1
        self.skipped_tags += judged.reading.skipped_tags
        self.latencies.add(outcome.metrics["eval_ms"])

    def merge(self, other: Tally) -> None:
        """Adds the counts of another part of the same work, which comes behind this one."""
        self.total += other.total
        self.filtered.update(other.filtered)
        self.undated += other.undated
        self.skipped_tags += other.skipped_tags
        self.latencies.merge(other.latencies)
        self._kinds.update(other._kinds)

    @property
    def severity(self) -> Counter[str]:
        return self._by(0)

    @property
    def winning(self) -> Counter[str]:
        """By origin."""
        return self._by(1)

    @property
    def rules(self) -> Counter[str]:
        return self._by(2)

    @property
    def unjudged(self) -> Counter[str]:
        """By kind of fault."""
        return self._by(3)

    @property
    def models(self) -> Counter[str]:
        return self._by(4)

    @property
    def calibrated(self) -> int:
        """How many were judged by calibrated ratings."""
        return sum(count for (*_, calibrated), count in self._kinds.items() if calibrated)

    def _by(self, place: int) -> Counter[str]:
        found: Counter[str] = Counter()
        for kind, count in self._kinds.items():
            if isinstance(name := kind[place], str):
                found[name] += count
        return found

    @property
    def read(self) -> int:
        """All records, those that a filter left out too."""
        return self.total + self.filtered.total()

    def metrics(self, *, wall_time_s: float, context: Mapping[str, Any], ruleset: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics document: `total` is what was written, after the filters."""
        severities, winning, rules = self.severity, dict(sorted(self.winning.items())), self.rules
        return {
            "total": self.total,
            "severity": {severity: severities[severity] for severity in SEVERITIES},
            "winning": winning,
            "winning_ratio": {origin: round(count / self.total, 6) for origin, count in winning.items()},
            "rules": dict(sorted(rules.items())),
            "top_rules": [{"rule_id": rule, "count": count} for rule, count in rules.most_common(TOP_RULES)],
            "unjudged": dict(sorted(self.unjudged.items())),
            "latency_ms_avg": self.latencies.average_ms,
            "latency_ms_p95": self.latencies.percentile_ms(0.95),
            "wall_time_s": round(wall_time_s, 3),
            "throughput_rps": round(self.total / wall_time_s, 1) if wall_time_s > 0 else 0.0,
            "filtered": {name: self.filtered[name] for name in FILTERS},
            "undated": self.undated,
            "skipped_tags": self.skipped_tags,
            "models": dict(sorted(self.models.items())),
            "ruleset": dict(ruleset),
            "context": dict(context),
        }
