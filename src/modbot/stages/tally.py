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


class Tally:
    """Counts of the records that passed the filters, and of those that did not."""

    def __init__(self) -> None:
        self.total = 0
        self.severity: Counter[str] = Counter()
        self.winning: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self.unjudged: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.filtered: Counter[str] = Counter()
        self.undated = 0
        self.skipped_tags = 0
        self.latencies = Latencies()

    def add(self, judged: Judged) -> None:
        """Counts a finding."""
        outcome = judged.outcome
        self.total += 1
        self.severity[outcome.severity] += 1
        self.winning[outcome.metrics["winning"]["origin"]] += 1
        if outcome.rule_id is not None:
            self.rules[outcome.rule_id] += 1
        if judged.fault is not None:
            self.unjudged[judged.fault.kind] += 1
        if (model := judged.reading.evidence.model) is not None:
            self.models[model] += 1
        self.skipped_tags += judged.reading.skipped_tags
        self.latencies.add(outcome.metrics["eval_ms"])

    def merge(self, other: Tally) -> None:
        """Adds the counts of another part of the same work."""
        self.total += other.total
        self.undated += other.undated
        self.skipped_tags += other.skipped_tags
        for name in ("severity", "winning", "rules", "unjudged", "models", "filtered"):
            getattr(self, name).update(getattr(other, name))
        self.latencies.merge(other.latencies)

    @property
    def read(self) -> int:
        """All records, those that a filter left out too."""
        return self.total + self.filtered.total()

    def metrics(self, *, wall_time_s: float, context: Mapping[str, Any], ruleset: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics document: `total` is what was written, after the filters."""
        return {
            "total": self.total,
            "severity": {severity: self.severity[severity] for severity in SEVERITIES},
            "winning": dict(sorted(self.winning.items())),
            "winning_ratio": {origin: round(count / self.total, 6) for origin, count in sorted(self.winning.items())},
            "rules": dict(sorted(self.rules.items())),
            "top_rules": [{"rule_id": rule, "count": count} for rule, count in self.rules.most_common(TOP_RULES)],
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
