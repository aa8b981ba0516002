"""Single records of a day, found and explained: why this verdict, and how near another was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from modbot.errors import InputError, SettingError
from modbot.records.evidence import Reading, read
from modbot.records.finding import Severity
from modbot.rules import Explanation
from modbot.stages.judge import Judged, RulesJudge
from modbot.stages.lines import p2_lines

Wanted = Callable[[Reading], bool]

SHORTEST_PREFIX = 8
_HEX = re.compile(r"[0-9a-f]{8,64}")
_DISCORD = re.compile(r"<?(?:https?://)?(?:[\w-]+\.)?discord(?:app)?\.com/channels/([\w@]+/\d+/\d+)/?>?", re.ASCII)


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """A record's verdict, and how it came about.

    `override`: why what the rules say is not the verdict, if so. `doubts`: what of the evidence is missing or broken.
    `explanation` is None where the rules were not asked (the record has an error).
    """

    row: int | None
    sha256: str | None
    message_links: tuple[str, ...]
    severity: Severity
    rule_id: str | None
    rule_title: str | None
    reasons: tuple[str, ...]
    origin: str
    override: str | None
    doubts: tuple[str, ...]
    explanation: Explanation | None

    @property
    def shown(self) -> dict[str, Any]:
        """As JSON tells it."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "explanation"}
        return {**fields, "explanation": None if self.explanation is None else shown(self.explanation)}


def shown(explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON tells it. `rules_say` is what the rules alone come to."""
    verdict = explanation.verdict
    return {
        "rules_say": {"severity": verdict.severity, "rule_id": verdict.rule_id},
        "why": explanation.why,
        "stopped_by": explanation.stopped_by,
        "nearest": explanation.nearest,
        "signals": verdict.signals,
        "features": explanation.features,
        "rules": explanation.rules,
        "problems": verdict.problems,
    }


def explain(judge: RulesJudge, judged: Judged) -> Explained:
    """What `judge` made of a record, explained."""
    evidence, outcome = judged.reading.evidence, judged.outcome
    links = dict.fromkeys(link for link in (evidence.link, *(post.message_link for post in evidence.posts)) if link)
    return Explained(
        row=evidence.row,
        sha256=evidence.sha256,
        message_links=tuple(links),
        severity=outcome.severity,
        rule_id=outcome.rule_id,
        rule_title=outcome.rule_title,
        reasons=tuple(outcome.reasons),
        origin=outcome.metrics["winning"]["origin"],
        override=override(judged),
        doubts=tuple(f"{doubt.kind} ({doubt.detail})" for doubt in judged.reading.doubts),
        explanation=explanation_of(judge, judged),
    )


def explanation_of(judge: RulesJudge, judged: Judged) -> Explanation | None:
    """What the rules make of the record; None where they were not asked."""
    if judged.reading.evidence.error is not None:
        return None
    floor = "green" if judged.fault is None else judged.outcome.severity
    return judge.explainer.explain(judge.facts(judged.reading, judged.tags), floor)


def override(judged: Judged) -> str | None:
    """Why the verdict is not the rules', in words; None where it is."""
    if judged.fault is None:
        return None
    kind, detail = judged.fault
    told = f"{kind} ({detail})" if detail else kind
    severity = judged.outcome.severity
    if judged.reading.evidence.error is not None:
        return f"the record has an error, {told}: the rules were not asked, and it is {severity}, not judged"
    return f"the rules say green, which proves nothing here, {told}: it is {severity}, not judged"


def by_message(link: str) -> Wanted:
    """The records that a message shows, by its link. Discord's hosts are one."""
    wanted = _place(link)
    return lambda reading: any(
        other is not None and _place(other) == wanted
        for other in (reading.evidence.message_link, *(post.message_link for post in reading.evidence.messages))
    )


def _place(link: str) -> str:
    link = link.strip()
    found = _DISCORD.fullmatch(link)
    return found[1] if found else link


def by_sha256(digest: str) -> Wanted:
    """The record of an image, by its digest or the first 8 or more digits of it. Raises SettingError."""
    wanted = digest.strip().lower()
    if not _HEX.fullmatch(wanted):
        remedy = f"Give its 64 hexadecimal digits, or at least the first {SHORTEST_PREFIX}."
        raise SettingError(f"{digest!r} is no SHA-256", where="--sha256", remedy=remedy)
    return lambda reading: (reading.evidence.sha256 or "").lower().startswith(wanted)


class _Attachment(msgspec.Struct, gc=False):
    row: int | None = None


class _Message(msgspec.Struct, gc=False):
    attachments: list[_Attachment] = []


class _Rows(msgspec.Struct, gc=False):
    messages: list[_Message] = []


_decode_rows = msgspec.json.Decoder(_Rows).decode


def by_row(row: int) -> Wanted:
    """The record that holds a row of the index."""

    def wanted(reading: Reading) -> bool:
        if reading.evidence.row == row:
            return True
        try:
            rows = _decode_rows(reading.line)
        except msgspec.DecodeError:  # an odd record; its own row is all that it tells
            return False
        return any(attachment.row == row for message in rows.messages for attachment in message.attachments)

    return wanted


def find(analysis: Path, wanted: Wanted, what: str) -> list[Reading]:
    """The records of a p2 file that are wanted, in its order.

    Raises:
        InputError: the file cannot be read, or holds none; the message says `what` was looked for.
    """
    unreadable = 0
    found: list[Reading] = []
    for reading in _readings(analysis):
        if wanted(reading):
            found.append(reading)
        unreadable += reading.evidence.error is not None and reading.evidence.row is None
    if not found:
        torn = f" {unreadable} of its lines cannot be read." if unreadable else ""
        raise InputError(
            f"no record of {what}", where=str(analysis), remedy=f"Is it of another day, or not analyzed yet?{torn}"
        )
    return found


def _readings(analysis: Path) -> Iterator[Reading]:
    for number, line in p2_lines(analysis):
        yield read(line, number)
