"""How each record came to its verdict, as a line of the trace: the same as `modbot explain` tells of one."""

from __future__ import annotations

from modbot.records.jsonl import encode_line
from modbot.stages.explain import explanation_of, override, shown
from modbot.stages.judge import Judge, Judged, RulesJudge


def trace_line(judged: Judged, judge: Judge) -> bytes:
    """How a record came to its verdict by `judge`, as a JSON line."""
    evidence, outcome = judged.reading.evidence, judged.outcome
    explanation = explanation_of(judge, judged) if isinstance(judge, RulesJudge) else None
    return encode_line(
        {
            "row": evidence.row,
            "sha256": evidence.sha256,
            "message_link": evidence.link,
            "severity": outcome.severity,
            "rule_id": outcome.rule_id,
            "reasons": outcome.reasons,
            "winning": outcome.metrics["winning"],
            "rating": evidence.rating,
            "signals": {
                name: value
                for name, value in outcome.metrics.items()
                if isinstance(value, (int, float)) and name != "eval_ms"
            },
            "dsl": outcome.metrics["dsl"],
            "doubts": [f"{doubt.kind} ({doubt.detail})" for doubt in judged.reading.doubts],
            "skipped_tags": judged.reading.skipped_tags,
            "eval_ms": outcome.metrics["eval_ms"],
            "override": override(judged),
            "explanation": None if explanation is None else shown(explanation),
        }
    )
