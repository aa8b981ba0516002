"""The check: names are resolved, calls and types looked at; what comes out can be evaluated without surprise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

from modbot.records.p2 import DETECTION_CLASSES
from modbot.records.tags import Group, is_pattern, normalise
from modbot.rules import bound, names, syntax
from modbot.rules.bound import Bound
from modbot.rules.issues import Span, did_you_mean
from modbot.rules.names import Parameters

Kind = Literal["number", "text", "either"]
SiteKind = Literal["unknown_name", "failing_call", "division_by_zero", "type_mismatch", "arithmetic"]


class Finding(NamedTuple):
    """Something wrong in an expression. What holds a `fatal` one cannot run; the others are 0 where they stand."""

    code: str
    span: Span
    message: str
    hint: str | None = None
    fatal: bool = False
    remark: bool = False
    """Worth saying, and no failure in any mode."""


@dataclass
class Scope:
    """What an expression may name. `features` are the earlier ones of the file, by index."""

    groups: Mapping[str, Group]
    constants: Mapping[str, float]
    lists: Collection[str]
    features: dict[str, int] = field(default_factory=dict)
    lost_features: set[str] = field(default_factory=set)
    later_features: set[str] = field(default_factory=set)
    tags: Collection[str] | None = None
    """The normalised ones that the tagger has; None: any may be."""
    scans: int = 0
    """How many calls have been bound that look at each tag of a group, or each detection, whenever they are met."""

    def identifiers(self) -> set[str]:
        """Every name without a dot that is a number."""
        return {*names.BUILT_INS, *self.features, *(f"const_{name}" for name in self.constants)}

    def has(self, name: str) -> bool:
        """Whether the name is among the `identifiers`."""
        constant = name.startswith("const_") and name[6:] in self.constants
        return constant or name in names.BUILT_INS or name in self.features


class Checked(NamedTuple):
    """A bound expression, and what was found on the way."""

    node: Bound
    kind: Kind
    findings: list[Finding]

    @property
    def fatal(self) -> bool:
        return any(finding.fatal for finding in self.findings)


def bind(expression: syntax.Expression, scope: Scope, site: Callable[[SiteKind, Span, str], int]) -> Checked:
    """The expression, checked. `site` registers a place whose failures are counted, and gives its number."""
    binder = _Binder(scope, site)
    node, kind = binder.bind(expression)
    return Checked(node, kind, binder.findings)


class _Binder:
    def __init__(self, scope: Scope, site: Callable[[SiteKind, Span, str], int]) -> None:
        self.findings: list[Finding] = []
        self._scope = scope
        self._site = site

    def bind(self, node: syntax.Expression) -> tuple[Bound, Kind]:
        match node:
            case syntax.Literally(value=value, span=span):
                return bound.Constant(value, span), "text" if isinstance(value, str) else "number"
            case syntax.Name():
                return self._name(node), "number"
            case syntax.Call():
                return self._call(node), "number"
            case syntax.Unary(operator="not", operand=operand, span=span):
                return bound.Not(self.bind(operand)[0], span), "number"
            case syntax.Unary(operator=operator, operand=operand, span=span):
                return self._sign(cast("Literal['+', '-']", operator), operand, span)
            case syntax.Logic(operator=operator, operands=operands, span=span):
                parts = [self.bind(operand) for operand in operands]
                return bound.Logic(operator, tuple(part for part, _ in parts), span), _common(parts)
            case syntax.Chain():
                return self._chain(node)

    def _failing(self, kind: SiteKind, finding: Finding, span: Span) -> Bound:
        self.findings.append(finding)
        return bound.Failing(self._site(kind, span, finding.message), span)

    # Names

    def _name(self, node: syntax.Name) -> Bound:
        match node.owner:
            case None:
                return self._identifier(node.name, node.span)
            case "rating":
                return self._rating(node)
            case "metrics" if node.name in names.EXPORTED:
                return self._identifier(names.EXPORTED[node.name], node.span)
            case "known" if node.name in self._scope.lists:
                return bound.Known(node.name, node.span)
            case "channel" if node.name == "is_nsfw":
                return bound.Fact("channel_is_nsfw", node.span)
            case "message" if node.name == "is_spoiler":
                return bound.Fact("is_spoiler", node.span)
            case _:
                return self._unknown(node)

    def _identifier(self, name: str, span: Span) -> Bound:
        scope = self._scope
        if name in scope.lost_features:
            message = f"`{name}` is a feature that was left out"
            return self._failing(
                "unknown_name", Finding("R2-E002", span, message, "mend the feature", fatal=True), span
            )
        if name in scope.features:
            return bound.Feature(scope.features[name], span)
        if name in names.GROUP_SIGNALS:
            function, group = names.GROUP_SIGNALS[name]
            if group not in scope.groups:
                return bound.Constant(0.0, span)
            return bound.OfGroup(cast("bound.GroupFunction", function), group, (), span)
        if name in names.BUILT_INS:
            return bound.Fact(names.SIGNAL_ALIASES.get(name, name), span)
        if name.startswith("const_") and name[6:] in scope.constants:
            return bound.Constant(scope.constants[name[6:]], span)
        return self._unknown(syntax.Name(name, span))

    def _rating(self, node: syntax.Name) -> Bound:
        if node.name in names.RATINGS:
            return bound.Rating(node.name, None, node.span)
        message = f"`rating.{node.name}` is 0 unless the record has such a rating"
        if hint := did_you_mean(node.name, names.RATINGS, "`rating."):
            hint = hint.replace("`rating.?", "`?")
            self.findings.append(Finding("R2-E002", node.span, message, hint, remark=True))
        return bound.Rating(node.name, self._site("unknown_name", node.span, message), node.span)

    def _unknown(self, node: syntax.Name) -> Bound:
        finding = Finding("R2-E002", node.span, f"nothing is called `{node.dotted}`", self._name_hint(node))
        return self._failing("unknown_name", finding, node.span)

    def _name_hint(self, node: syntax.Name) -> str | None:
        scope = self._scope
        if node.owner is None and node.name in scope.later_features:
            return "a feature can only use the ones above it: move it up"
        if node.owner is None and normalise(node.name) in scope.groups:
            return f"a group needs a function around it, for example `max({node.name})`"
        if node.owner is None and node.name in names.EXPORTED:
            return f"write `metrics.{node.name}` or `{names.EXPORTED[node.name]}`"
        if node.owner is None and node.name in {"general", "sensitive", "questionable", "explicit", "safe"}:
            return f"did you mean `rating.{node.name}`?"
        if node.owner == "metrics" and node.name in scope.features:
            return f"a feature is read by its name alone: `{node.name}`"
        if node.owner == "known" and not scope.lists:
            return "no hash list is loaded: configs/hashlists.yaml names them"
        near = did_you_mean(node.dotted, self._dotted_names() if node.owner else scope.identifiers())
        if near or node.owner:
            return near
        if node.name.startswith("const_"):
            return f"`thresholds` or `--const {node.name[6:]}=…` make it a constant"
        return f"if it is a tag, its score is `score({node.name})`"

    def _dotted_names(self) -> set[str]:
        return {
            "channel.is_nsfw",
            "message.is_spoiler",
            *(f"rating.{name}" for name in names.RATINGS),
            *(f"metrics.{name}" for name in names.EXPORTED),
            *(f"known.{name}" for name in self._scope.lists),
        }

    # Operators

    def _number(self, node: syntax.Expression, what: str) -> Bound:
        """The operand as a number; a text there is a failure that is 0."""
        part, kind = self.bind(node)
        if kind == "number":
            return part
        message = f"{what} needs a number, not a text"
        return self._failing("type_mismatch", Finding("R2-E001", node.span, message, _text_hint(node)), node.span)

    def _sign(self, operator: Literal["+", "-"], operand: syntax.Expression, span: Span) -> tuple[Bound, Kind]:
        return bound.Sign(operator, self._number(operand, f"`{operator}`"), span), "number"

    def _chain(self, node: syntax.Chain) -> tuple[Bound, Kind]:
        parts = [self.bind(operand) for operand in node.operands]
        kind = _common(parts)
        textual = kind == "text" and set(node.operators) <= {*syntax.COMPARISONS, "+"}
        if kind != "number" and not textual:
            what = "comparison" if node.operators[0] in syntax.COMPARISONS else "calculation"
            message = f"this {what} mixes text and numbers" if kind == "either" else f"no {what} of texts is possible"
            hint = next(filter(None, map(_text_hint, node.operands)), None)
            finding = Finding("R2-E001", node.span, message, hint)
            return self._failing("type_mismatch", finding, node.span), "number"
        sites = tuple(
            self._site("division_by_zero", part.span, "division by zero")
            if operator == "/" and not _sure(part)
            else None
            for operator, (part, _) in zip(node.operators, parts[1:], strict=True)
        )
        compared = node.operators[0] in syntax.COMPARISONS
        chain = bound.Chain(tuple(part for part, _ in parts), node.operators, sites, node.span)
        return chain, "number" if compared else kind

    # Calls

    def _call(self, node: syntax.Call) -> Bound:
        name = node.function.dotted
        if name not in names.FUNCTIONS:
            hint = did_you_mean(name, names.FUNCTIONS) or f"the functions are {', '.join(names.FUNCTIONS)}"
            message = f"there is no function `{name}`"
            finding = Finding("R2-E001", node.function.span, message, hint, fatal=True)
            return self._failing("failing_call", finding, node.span)
        if name in {"sum", "max", "min"} and (numbers := self._numbers(node)) is not None:
            return numbers
        arguments = self._arguments(node, names.FUNCTIONS[name])
        if not isinstance(arguments, dict):
            return self._failing("failing_call", arguments, node.span)
        match name:
            case "score":
                return self._score(node, arguments["tag"])
            case "clamp":
                values = tuple(self._number(arguments[key], "`clamp`") for key in ("x", "lo", "hi"))
                return bound.OfNumbers("clamp", values, node.span)
            case "nude.has":
                return self._class(node, arguments["class"])
            case "nude.any":
                return self._any_class(node, arguments)
            case _:
                return self._of_group(node, cast("bound.GroupFunction", name), arguments)

    def _numbers(self, node: syntax.Call) -> Bound | None:
        """`sum`, `max`, `min` of numbers; None if the call names one group."""
        arguments = [argument.value for argument in node.arguments]
        if any(argument.name for argument in node.arguments) or not arguments:
            return None
        if len(arguments) == 1 and (node.function.name == "sum" or self._names_group(arguments[0])):
            return None
        function = cast("bound.NumberFunction", node.function.name)
        values = tuple(self._of_numbers(function, argument) for argument in arguments)
        return bound.OfNumbers(function, values, node.span)

    def _of_numbers(self, function: str, argument: syntax.Expression) -> Bound:
        group = _group_name(argument)
        known = isinstance(argument, syntax.Name) and self._is_identifier(argument.name)
        if group in self._scope.groups and not known:
            message = f"`{function}` takes one group, or numbers"
            finding = Finding("R2-E001", argument.span, message, f"write `{function}({group})` for the group's number")
            return self._failing("failing_call", finding, argument.span)
        return self._number(argument, f"`{function}`")

    def _names_group(self, argument: syntax.Expression) -> bool:
        """Whether the one argument is meant as a group: names one, or is a name or text that is nothing else."""
        group = _group_name(argument)
        if group is None:
            return False
        named = isinstance(argument, syntax.Name) and self._is_identifier(argument.name)
        return group in self._scope.groups or not named

    def _is_identifier(self, name: str) -> bool:
        return name in self._scope.lost_features or self._scope.has(name)

    def _is_number(self, name: str) -> bool:
        """Whether the bare name is an identifier's or any feature's, be it one further down."""
        return self._is_identifier(name) or name in self._scope.later_features

    def _arguments(self, node: syntax.Call, parameters: Parameters) -> dict[str, syntax.Expression] | Finding:
        """The arguments by parameter; a finding if they do not fit."""
        taken: dict[str, syntax.Expression] = {}
        free = list(parameters.names)
        for argument in node.arguments:
            name = argument.name or next((each for each in free if each not in taken), None)
            if name not in parameters.names or name in taken or name is None:
                what = f"has no parameter `{name}`" if name and name not in taken else "has an argument too many"
                return Finding("R2-E001", argument.span, f"`{node.function.dotted}` {what}", _usage(node, parameters))
            taken[name] = argument.value
        missing = [name for name in parameters.names[: parameters.required] if name not in taken]
        if missing:
            message = f"`{node.function.dotted}` lacks its argument `{missing[0]}`"
            return Finding("R2-E001", node.span, message, _usage(node, parameters))
        return taken

    def _score(self, node: syntax.Call, argument: syntax.Expression) -> Bound:
        text = self._word(node, "tag", argument)
        if not isinstance(text, str):
            return text
        if "*" in text or "[" in text:  # not `?`: there are tags such as `?` and `!?`
            message = "`score` takes a tag's exact name: `*` and `[` stand for themselves here"
            hint = "put the pattern in a group and use `max(group)`"
            self.findings.append(Finding("R2-E001", argument.span, message, hint, remark=True))
        elif isinstance(argument, syntax.Name) and normalise(text) in self._scope.groups:
            message = f"`{text}` is taken as a tag's name here, and is also a group's"
            hint = f'write `max({text})` for the group, `score("{text}")` for the tag'
            self.findings.append(Finding("R2-E001", argument.span, message, hint, remark=True))
        tag = normalise(text)
        if self._scope.tags is not None and tag not in self._scope.tags:
            near = near_tag(tag, self._scope.tags)
            self.findings.append(Finding("R2-G002", argument.span, no_such_tag(tag), near, remark=True))
        return bound.Score(tag, node.span)

    def _class(self, node: syntax.Call, argument: syntax.Expression) -> Bound:
        text = self._word(node, "class", argument)
        if not isinstance(text, str):
            return text
        name = text.strip().upper()
        if name not in DETECTION_CLASSES:
            hint = did_you_mean(name, DETECTION_CLASSES) or f"the detector's classes are {', '.join(DETECTION_CLASSES)}"
            message = f"the detector has no class `{name}`: 0 unless a record brings it"
            self.findings.append(Finding("R2-E002", argument.span, message, hint, remark=True))
        return bound.HasClass(name, node.span)

    def _word(self, node: syntax.Call, parameter: str, argument: syntax.Expression) -> str | Bound:
        """The text that the argument is, in quotes or a bare name that names no number; the failure if it is none."""
        match argument:
            case syntax.Literally(value=str(value)):
                return value
            case syntax.Name(owner=None, name=name) if not self._is_number(name):
                return name
            case syntax.Name():
                message = (
                    f"`{argument.dotted}` is a number here, and `{node.function.dotted}` needs its {parameter} by name"
                )
                hint = f'if the {parameter} is called so, put it in quotes: `"{argument.dotted}"`'
            case _:
                message = f"`{node.function.dotted}` needs its {parameter} by name"
                hint = "put the name in quotes"
        return self._failing("failing_call", Finding("R2-E001", argument.span, message, hint), node.span)

    def _any_class(self, node: syntax.Call, arguments: dict[str, syntax.Expression]) -> Bound:
        texts = {"prefix": "", "suffix": ""}
        for key in texts:
            if key not in arguments:
                continue
            text = self._word(node, key, arguments[key])
            if not isinstance(text, str):
                return text
            texts[key] = text.strip().upper()
        prefix, suffix = texts.values()
        if not any(name.startswith(prefix) and name.endswith(suffix) for name in DETECTION_CLASSES):
            message = "the detector has no such class: false unless a record brings one"
            hint = f"the detector's classes are {', '.join(DETECTION_CLASSES)}"
            self.findings.append(Finding("R2-E002", node.span, message, hint, remark=True))
        minimum = self._number(arguments["min"], "`min`") if "min" in arguments else bound.Constant(1, node.span)
        self._scope.scans += 1
        return bound.AnyClass(prefix, suffix, minimum, node.span)

    def _of_group(
        self, node: syntax.Call, function: bound.GroupFunction, arguments: dict[str, syntax.Expression]
    ) -> Bound:
        argument = arguments["group"]
        group = _group_name(argument)
        if group is None:
            message = f"`{function}` needs the name of a group"
            finding = Finding("R2-E001", argument.span, message, f"write `{function}(NAME)`")
            return self._failing("failing_call", finding, node.span)
        if group not in self._scope.groups:
            hint = did_you_mean(group, self._scope.groups) or _listed(self._scope.groups)
            finding = Finding("R2-G001", argument.span, f"there is no group `{group}`", hint)
            return self._failing("failing_call", finding, node.span)
        values = {key: self._number(arguments[key], f"`{key}`") for key in ("k", "gt") if key in arguments}
        if function in {"any", "count"}:
            values.setdefault("gt", bound.Constant(names.GROUP_THRESHOLD, node.span))
        self._scope.scans += function in {"count", "topk_sum"}
        return bound.OfGroup(function, group, tuple(values.values()), node.span)


def no_such_tag(name: str) -> str:
    """What is said of a tag, or a pattern, that the tagger's tags have nothing for."""
    return f"no tag of the tagger matches `{name}`" if is_pattern(name) else f"the tagger has no tag `{name}`"


def near_tag(name: str, tags: Collection[str]) -> str | None:
    """The tag that was meant, if one that begins so is close: there are too many to look at all."""
    return did_you_mean(name, [tag for tag in tags if tag[:2] == name[:2]])


def _sure(divisor: Bound) -> bool:
    """Whether the divisor is a number that is not 0, whatever the record."""
    return isinstance(divisor, bound.Constant) and divisor.value != 0


def _common(parts: list[tuple[Bound, Kind]]) -> Kind:
    kinds = {kind for _, kind in parts}
    return kinds.pop() if len(kinds) == 1 else "either"


def _group_name(argument: syntax.Expression) -> str | None:
    """The name, if the expression can be a group's: a bare name, or a text."""
    match argument:
        case syntax.Name(owner=None, name=name):
            return normalise(name)
        case syntax.Literally(value=str(value)):
            return normalise(value)
        case _:
            return None


def _listed(groups: Collection[str]) -> str:
    return f"the groups are {', '.join(groups)}" if groups else "the file has no groups"


def _text_hint(node: syntax.Expression) -> str | None:
    if isinstance(node, syntax.Literally) and isinstance(node.value, str):
        return f"a tag's score is `score({syntax.unparse(node)})`"
    return None


def _usage(node: syntax.Call, parameters: Parameters) -> str:
    optional = (f"{name}=…" for name in parameters.names[parameters.required :])
    usage = ", ".join((*parameters.names[: parameters.required], *optional))
    if node.function.dotted in {"sum", "max", "min"}:
        usage += f")` or `{node.function.dotted}(x, y, …"
    return f"it is used as `{node.function.dotted}({usage})`"
