"""What is judged, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from modbot.records.finding import Severity


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules can know of one image. All numbers are finite.

    `rating`: any numeric key, the tagger's four among them. `tags`: normalised name -> score; `skipped_tags` counts
    the items of the record that were none. `detections`: (class, score). `xsignals`: p2's signals; what lacks is 0.
    `known`: the hash lists that the image is on.
    """

    rating: Mapping[str, float] = {}
    tags: Mapping[str, float] = {}
    skipped_tags: int = 0
    detections: Sequence[tuple[str, float]] = ()
    channel_is_nsfw: bool = False
    is_spoiler: bool = False
    attachment_count: int = 0
    xsignals: Mapping[str, float] = {}
    known: frozenset[str] = frozenset()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules say of one image.

    `origin` is `dsl` for a rule's verdict, `default` (green, no rule, no reasons) for none. `features`: the file's, by
    name; `signals`: the exported ones. `problems`: what could not be evaluated, naming rule and line; only in `strict`
    (in `warn` it is 0 and counted): with one, a green verdict proves nothing. `matched` has bit i set where the file's
    i-th rule matched; those behind a matching `stop` were not asked.
    """

    severity: Severity
    rule_id: str | None
    rule_title: str | None
    reasons: list[str]
    priority: int | None
    origin: Literal["dsl", "default"]
    features: dict[str, float]
    signals: dict[str, float]
    problems: tuple[str, ...] = ()
    matched: int = 0
