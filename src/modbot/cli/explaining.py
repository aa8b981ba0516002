"""An explanation as text: plain in a pipe, in colours on a terminal. What records and rules hold is made inert."""

from __future__ import annotations

import logging
import sys
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import click

from modbot.rules.distance import Gap
from modbot.rules.explain import ExplainedRule, Explanation, Part
from modbot.stages.explain import Explained
from modbot.words import printable

Tone = Literal["plain", "head", "good", "bad", "dim", "red", "orange", "yellow", "green"]

STYLES: dict[Tone, str] = {
    "plain": "",
    "head": "bold",
    "good": "green",
    "bad": "red",
    "dim": "dim",
    "red": "bold red",
    "orange": "bold dark_orange",
    "yellow": "bold yellow",
    "green": "bold green",
}
INDENT = "  "
NAMES_WIDTH = 78


class Line(NamedTuple):
    """A line of the explanation, safe to print. `depth` is how far it is indented."""

    depth: int
    text: str
    tone: Tone = "plain"


def echo(lines: Iterable[Line]) -> None:
    """Prints the lines on stdout."""
    if not sys.stdout.isatty():
        for each in lines:
            click.echo(INDENT * each.depth + each.text)
        return
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    for each in lines:
        text = Text(each.text, style=STYLES[each.tone], overflow="fold")
        console.print(Padding(text, (0, 0, 0, len(INDENT) * each.depth), expand=False))


@contextmanager
def unlogged() -> Iterator[None]:
    """Keeps what the rules cannot evaluate out of the log: whoever explains it shows it at its place."""
    log = logging.getLogger("modbot.rules")
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


def explained(found: Explained) -> Iterator[Line]:
    """The whole of a record's explanation."""
    yield line(0, ", ".join(_identity(found)), "head")
    yield from verdict(found)
    if found.explanation is None:
        return
    explanation = found.explanation
    yield Line(0, "signals", "head")
    yield from _wrapped(f"{name} {number(value)}" for name, value in explanation.verdict.signals.items())
    if explanation.features:
        yield Line(0, "features", "head")
    for feature in explanation.features:
        yield line(1, f"{feature.name} = {number(feature.value)}")
        if feature.problem is not None:
            yield line(2, f"failed: {feature.problem}", "bad")
        yield from _part(2, feature.expression)
    yield Line(0, "rules", "head")
    for rule in explanation.rules:
        yield from _rule(explanation, rule, 1)
    yield from _next_worse(explanation)


def verdict(found: Explained, depth: int = 0) -> Iterator[Line]:
    """The verdict and why it is that."""
    rule = "no rule" if found.rule_id is None else found.rule_id
    title = f" ({found.rule_title})" if found.rule_title else ""
    yield line(depth, f"verdict: {found.severity}, {rule}{title}", found.severity)
    if found.explanation is not None:
        stopped = found.explanation.stopped_by
        stop = f"; {stopped} stopped the evaluation" if stopped is not None else ""
        yield line(depth + 1, f"why: {found.explanation.why}{stop}")
    if found.override is not None:
        yield line(depth + 1, f"but: {found.override}", "bad")
    for reason in found.reasons:
        yield line(depth + 1, f"reason: {reason}")
    for doubt in found.doubts:
        yield line(depth + 1, f"doubt: {doubt}", "bad")
    for problem in () if found.explanation is None else found.explanation.verdict.problems:
        yield line(depth + 1, f"could not be evaluated: {problem}", "bad")


def of_rules(found: Explained, ids: Container[str | None], depth: int) -> Iterator[Line]:
    """Those of the rules that have these ids."""
    explanation = found.explanation
    for rule in () if explanation is None else explanation.rules:
        if explanation is not None and rule.id in ids:
            yield from _rule(explanation, rule, depth)


def _identity(found: Explained) -> Iterator[str]:
    yield "no row" if found.row is None else f"row {found.row}"
    yield "no image" if found.sha256 is None else f"sha256 {found.sha256}"
    if found.message_links:
        more = len(found.message_links) - 1
        yield found.message_links[0] + (f" and {more} more" if more else "")


def _rule(explanation: Explanation, rule: ExplainedRule, depth: int) -> Iterator[Line]:
    stop = ", stop" if rule.stop else ""
    tone: Tone = rule.severity if rule.matched else "plain" if rule.reached else "dim"
    yield line(
        depth, f"{rule.id} ({rule.severity}, priority {rule.priority}{stop}): {_became(explanation, rule)}", tone
    )
    if rule.problem is not None:
        yield line(depth + 1, f"failed: {rule.problem}", "bad")
    if rule.reached:
        yield from _part(depth + 1, rule.when)
    if rule.gaps:
        yield from _gaps(depth + 1, rule)


def _became(explanation: Explanation, rule: ExplainedRule) -> str:
    if not rule.reached:
        return f"not reached, {explanation.stopped_by} stopped the evaluation"
    if not rule.matched:
        return "does not match"
    return "matches and wins" if rule.won else "matches"


def _gaps(depth: int, rule: ExplainedRule) -> Iterator[Line]:
    if rule.distance is None:
        yield Line(depth, "no change of the record could make it match", "dim")
    else:
        yield Line(depth, f"would match with a change of {number(rule.distance)}:", "dim")
        yield from (line(depth + 1, gap_text(gap), "dim") for gap in rule.gaps if gap.needed)
    others = [gap for gap in rule.gaps if not gap.needed]
    if others:
        yield Line(depth, "fails as well:", "dim")
        yield from (line(depth + 1, gap_text(gap), "dim") for gap in others)


def _next_worse(explanation: Explanation) -> Iterator[Line]:
    nearest = next((rule for rule in explanation.rules if rule.id == explanation.nearest), None)
    if nearest is None or nearest.distance is None:
        yield Line(0, "next worse verdict: no rule is near", "head")
        return
    where = f"{nearest.severity} by {nearest.id}, {number(nearest.distance)} away"
    yield line(0, f"next worse verdict: {where}", "head")
    yield from (line(1, gap_text(gap)) for gap in nearest.gaps if gap.needed)


def gap_text(gap: Gap) -> str:
    """`x is 0.2, asked for >= 0.35 (gap 0.15)`."""
    wanted = f"{gap.operator} {number(gap.threshold)}"
    return f"{gap.subject} is {number(gap.value)}, asked for {wanted} (gap {number(gap.gap)})"


def _part(depth: int, part: Part) -> Iterator[Line]:
    if not part.evaluated:
        problem = f", failed: {part.problem}" if part.problem is not None else ""
        yield line(depth, f"{part.text}: not evaluated{problem}", "dim")
        return
    inline = bool(part.parts) and all(map(_is_leaf, part.parts))
    beside = [_leaf(inner) for inner in part.parts] if inline else []
    aside = f" ({', '.join(beside)})" if beside else _of_tags(part)
    failed = f" (failed: {part.problem})" if part.problem is not None else ""
    tone: Tone = "good" if part.value is True else "bad" if part.value is False else "plain"
    yield line(depth, f"{part.text}: {_value(part)}{aside}{failed}", tone)
    if not inline:
        for inner in part.parts:
            yield from _part(depth + 1, inner)


def _is_leaf(part: Part) -> bool:
    return part.evaluated and not part.parts and part.problem is None


def _leaf(part: Part) -> str:
    return f"{part.text} {_value(part)}{_of_tags(part)}"


def _of_tags(part: Part) -> str:
    return f" of {', '.join(f'{tag} {number(score)}' for tag, score in part.tags)}" if part.tags else ""


def _value(part: Part) -> str:
    if part.value is None:
        return "no finite number"
    return repr(part.value) if isinstance(part.value, str) else number(part.value)


def number(value: float) -> str:
    """A number as short as it goes at 6 digits; truths as words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}"


def _wrapped(items: Iterable[str]) -> Iterator[Line]:
    row = ""
    for item in items:
        if row and len(row) + len(item) > NAMES_WIDTH:
            yield line(1, row)
            row = ""
        row += f", {item}" if row else item
    if row:
        yield line(1, row)


def line(depth: int, text: str, tone: Tone = "plain") -> Line:
    """The text as a line, whatever is in it."""
    return Line(depth, printable(" ".join(text.splitlines())), tone)
