"""What p3 writes: the finding (the p2 line and what p3 adds to it), the report's and the A/B diff's columns."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modbot.records.jsonl import encode_line

Severity = Literal["red", "orange", "yellow", "green"]
SEVERITIES: tuple[Severity, ...] = ("red", "orange", "yellow", "green")
"""Most severe first."""

UNJUDGED: Severity = "yellow"
"""What becomes of a record that could not be judged, where nothing else is said."""

RANK: dict[str, int] = {severity: len(SEVERITIES) - 1 - place for place, severity in enumerate(SEVERITIES)}
"""Severity -> steps above green."""

REPORT_COLUMNS = (
    "severity",
    "rule_id",
    "rule_title",
    "message_link",
    "author_id",
    "is_nsfw_channel",
    "wd14_rating_general",
    "wd14_rating_sensitive",
    "wd14_rating_questionable",
    "wd14_rating_explicit",
    "top_tags",
    "nudity_tops",
    "exposure_score",
    "placement_risk_pre",
    "nsfw_margin",
    "nsfw_ratio",
    "nsfw_general_sum",
    "violence_tags",
    "animals_sum",
    "reasons",
    "message_count",
    "other_message_links",
    "other_author_ids",
    "sha256",
)
"""The report's columns. The list grows at its end only."""

DIFF_COLUMNS = (
    "message_link",
    "severityA",
    "severityB",
    "ruleA",
    "ruleB",
    "rating_questionable",
    "rating_explicit",
    "exposure_score",
    "nsfw_general_sum",
    "minors_peak_A",
    "gore_peak_A",
    "minors_peak_B",
    "gore_peak_B",
    "sha256",
)
"""The A/B diff's columns. The list grows at its end only."""


class Outcome(msgspec.Struct, gc=False):
    """What p3 adds to a record.

    `metrics` holds the exported signals, `violence_tags` ([tag, score] of group `violence`, score >= 0.35), `winning`
    (origin, severity, rule_id, priority), `dsl` (the file's features) and `eval_ms`. `winning.origin` is `dsl` for a
    rule's verdict, `default` for none, `unjudged`, or `legacy`.
    """

    severity: Severity
    rule_id: str | None
    rule_title: str | None
    reasons: list[str]
    metrics: dict[str, Any]


def finding(line: bytes, outcome: Outcome) -> bytes:
    """The record's own bytes (a JSON object without newline) with the outcome's keys behind, as a line."""
    added = encode_line(outcome)
    head = line[:-1].rstrip()
    return added if head == b"{" else b",".join((head, added[1:]))
