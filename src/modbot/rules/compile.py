"""A rule set as one Python function.

The function's text is made of names and literals that this module spells; of the rules file's own text only
`repr` of strings and numbers gets into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modbot.records.finding import SEVERITIES, Severity
from modbot.records.tags import Group, total
from modbot.rules import bound, calculate, names
from modbot.rules.bound import Bound
from modbot.rules.reasons import Placeholder, Reason
from modbot.rules.syntax import COMPARISONS, SUMS


class RefusedError(Exception):
    """In `strict`: something could not be evaluated; `site` says what."""

    def __init__(self, site: int) -> None:
        super().__init__(site)
        self.site = site


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A checked rule. `site` counts what fails in it as a whole; `text` is its `when` as it was written."""

    id: str
    severity: Severity
    priority: int
    title: str | None
    stop: bool
    line: int
    when: Bound = field(repr=False)
    text: str = field(repr=False)
    reasons: tuple[Reason, ...] = field(repr=False)
    site: int = field(repr=False)


@dataclass(frozen=True, slots=True)
class FeatureRule:
    """A checked feature; `text` is its expression as it was written."""

    name: str
    text: str
    value: Bound
    site: int


Judgement = tuple[int, int, list[str], dict[str, float], dict[str, float]]
"""The winning rule's index (-1: none), who matched (bit i: the i-th rule), its reasons, the features, the signals."""


@dataclass(frozen=True)
class Program:
    """What is compiled: the groups by index, features and rules in file order, the exported signals."""

    groups: Mapping[str, Group]
    features: Sequence[FeatureRule]
    rules: Sequence[Rule]
    signals: Mapping[str, Bound]


def winning_order(rules: Sequence[Rule]) -> list[int]:
    """The indices of the rules, best first: the most severe, then the higher priority, then the earlier."""
    return sorted(range(len(rules)), key=lambda i: (SEVERITIES.index(rules[i].severity), -rules[i].priority, i))


def compile_program(program: Program) -> Callable[..., Judgement]:
    """The program as `judge(facts, scores, fail, broken, problems)`.

    `scores` are the groups' scores in the order of `program.groups`; `fail(site)` counts a failure and gives 0 or
    raises `RefusedError`; `broken(site, error, problems)` takes what was raised and gives 0.
    """
    writer = _Writer(program)
    namespace: dict[str, Any] = {
        "ERRORS": (ArithmeticError, ValueError, RefusedError),
        "GROUPS": tuple(program.groups.values()),
        "NOTHING": -math.inf,
        "any_class": calculate.any_class,
        "at_least": calculate.at_least,
        "clamp": calculate.clamp,
        "finite": calculate.finite,
        "min_of_group": calculate.min_of_group,
        "peak_of_exposed": calculate.peak_of_exposed,
        "product": calculate.product,
        "show": calculate.show,
        "top": calculate.top,
        "total": total,
    }
    exec(compile(writer.function(), "<rules>", "exec"), namespace)  # noqa: S102 - the text is our own, see above
    judge: Callable[..., Judgement] = namespace["judge"]
    return judge


_TERNARY, _OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _SIGN, _ATOM = range(9)


class _Writer:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._group_index = {name: index for index, name in enumerate(program.groups)}
        self._aggregates: dict[str, str] = {}

    def function(self) -> str:
        order = winning_order(self._program.rules)
        ranks = {index: len(order) - place for place, index in enumerate(order)}
        body = [*self._features(), *self._rules(ranks), *self._reasons(ranks), self._result()]
        return "\n".join(
            [
                f"ORDER = {(-1, *reversed(order))!r}",
                "def judge(facts, scores, fail, broken, problems):",
                # The aggregates are known once the rest is written, and stand before it.
                *_indented([*self._prelude(), *body]),
            ]
        )

    def _features(self) -> Iterator[str]:
        for index, feature in enumerate(self._program.features):
            line = f"f{index} = finite({self.text(feature.value)})"
            yield from self._guarded([line], feature.site, f"f{index} = ")

    def _rules(self, ranks: Mapping[int, int]) -> Iterator[str]:
        """The rules in a loop of one round, which `stop` breaks; `best` is the rank of the best that matched.

        `matched` has a bit for each that matched before the stop.
        """
        yield "best = matched = 0"
        yield "for _ in (0,):"
        yield "    pass"
        for index, rule in enumerate(self._program.rules):
            lines = [
                f"if {self.text(rule.when)}:",
                f"    matched |= 1 << {index}",
                f"    if best < {ranks[index]}: best = {ranks[index]}",
            ]
            if rule.stop:
                lines.append("    break")
            yield from _indented(self._guarded(lines, rule.site))

    def _reasons(self, ranks: Mapping[int, int]) -> Iterator[str]:
        yield "reasons = []"
        for index, rule in enumerate(self._program.rules):
            if rule.reasons:
                yield f"if best == {ranks[index]}:"
                for reason in rule.reasons:
                    yield from _indented(self._guarded([f"reasons.append({self._reason(reason)})"], rule.site))

    def _result(self) -> str:
        features = ", ".join(f"{feature.name!r}: f{index}" for index, feature in enumerate(self._program.features))
        signals = ", ".join(f"{name!r}: {self.text(node)}" for name, node in self._program.signals.items())
        return f"return ORDER[best], matched, reasons, {{{features}}}, {{{signals}}}"

    def _prelude(self) -> list[str]:
        lines = [
            "rating = facts.rating.get",
            "tags = facts.tags",
            "tag = tags.get",
            "known = facts.known",
            "channel_is_nsfw = facts.channel_is_nsfw",
            "is_spoiler = facts.is_spoiler",
            "attachment_count = facts.attachment_count",
            "xsignal = facts.xsignals.get",
            "classes = {name.upper(): score for name, score in facts.detections}",
            "exposure_peak = peak_of_exposed(facts.detections) if classes else 0.0",
        ]
        lines += [f"{name} = xsignal({name!r}, 0.0)" for name in names.XSIGNALS]
        return lines + [f"{name} = {text}" for text, name in self._aggregates.items()]

    def _guarded(self, lines: list[str], site: int, target: str = "") -> list[str]:
        return [
            "try:",
            *_indented(lines),
            "except ERRORS as error:",
            f"    {target}broken({site}, error, problems)",
        ]

    def _reason(self, reason: Reason) -> str:
        parts = (repr(part) if isinstance(part, str) else self._placeholder(part) for part in reason)
        return f"''.join(({', '.join(parts)},))"

    def _placeholder(self, part: Placeholder) -> str:
        return f"show({self.text(part.value)}, {part.conversion!r}, {part.format!r})"

    def text(self, node: Bound, outer: int = 0) -> str:
        """The node as Python, in parentheses where it binds looser than what stands around it."""
        level, text = self._plain(node)
        return f"({text})" if level < outer else text

    def _plain(self, node: Bound) -> tuple[int, str]:
        match node:
            case bound.Constant(value=value):
                return _SIGN, repr(value)
            case bound.Rating(key=key, site=None):
                return _ATOM, f"rating({key!r}, 0.0)"
            case bound.Rating(key=key, site=site):
                return _TERNARY, f"rating({key!r}) if {key!r} in facts.rating else fail({site})"
            case bound.Fact(name=name):
                return _ATOM, name
            case bound.Known(name=name):
                return _COMPARE, f"{name!r} in known"
            case bound.Feature(index=index):
                return _ATOM, f"f{index}"
            case bound.Score(tag=tag):
                return _ATOM, f"tag({tag!r}, 0.0)"
            case bound.OfGroup():
                return self._of_group(node)
            case bound.OfNumbers(function="sum", arguments=arguments):
                return _SUM, " + ".join(self.text(argument, _PRODUCT) for argument in arguments)
            case bound.OfNumbers(function="clamp", arguments=arguments):
                return _ATOM, f"clamp({', '.join(map(self.text, arguments))})"
            case bound.OfNumbers(function=function, arguments=arguments):
                return _ATOM, f"{function}(({', '.join(map(self.text, arguments))},))"
            case bound.HasClass(name=name):
                return _COMPARE, f"{name!r} in classes"
            case bound.AnyClass(prefix=prefix, suffix=suffix, minimum=minimum):
                return _ATOM, f"any_class(classes, {prefix!r}, {suffix!r}, {self.text(minimum)})"
            case bound.Not(operand=operand):
                return _NOT, f"not {self.text(operand, _NOT)}"
            case bound.Sign(operator=operator, operand=operand):
                return _SIGN, f"{operator}{self.text(operand, _SIGN)}"
            case bound.Chain():
                return self._chain(node)
            case bound.Logic(operator=operator, operands=operands):
                level = _AND if operator == "and" else _OR
                return level, f" {operator} ".join(self.text(operand, level + 1) for operand in operands)
            case bound.Failing(site=site):
                return _ATOM, f"fail({site})"

    def _chain(self, node: bound.Chain) -> tuple[int, str]:
        if any(site is not None for site in node.sites):
            operands = ", ".join(map(self.text, node.operands))
            return _ATOM, f"product(fail, {node.operators!r}, {node.sites!r}, {operands})"
        level = _COMPARE if node.operators[0] in COMPARISONS else _SUM if node.operators[0] in SUMS else _PRODUCT
        rest = zip(node.operators, node.operands[1:], strict=True)
        text = "".join(f" {operator} {self.text(operand, level + 1)}" for operator, operand in rest)
        return level, self.text(node.operands[0], level + 1) + text

    def _of_group(self, node: bound.OfGroup) -> tuple[int, str]:
        index = self._group_index[node.group]
        arguments = [self.text(argument) for argument in node.arguments]
        match node.function:
            case "sum":
                return _ATOM, self._aggregate(f"total(scores[{index}])", f"sum{index}")
            case "max":
                return _ATOM, self._aggregate(f"max(scores[{index}]) if scores[{index}] else 0.0", f"max{index}")
            case "min":
                return _ATOM, self._aggregate(f"min_of_group(scores[{index}], GROUPS[{index}], tags)", f"min{index}")
            case "any":
                peak = self._aggregate(f"max(scores[{index}]) if scores[{index}] else NOTHING", f"peak{index}")
                return _COMPARE, f"{peak} >= {self.text(node.arguments[0], _SUM)}"
            case "count":
                return _ATOM, f"at_least(scores[{index}], {arguments[0]})"
            case "topk_sum":
                return _ATOM, f"top(scores[{index}], {', '.join(arguments)})"

    def _aggregate(self, text: str, name: str) -> str:
        """The local that holds the aggregate, computed once a record."""
        return self._aggregates.setdefault(text, name)


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
