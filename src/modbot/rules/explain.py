"""Why a record got its verdict: every rule with the value of each part of its `when`, and how near the others came.

The explanation walks the tree that the compiled rules are made of; the verdict, features and matches are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import msgspec

from modbot.records.finding import RANK, Severity
from modbot.rules import calculate
from modbot.rules.bound import OfGroup
from modbot.rules.bounds import Capabilities
from modbot.rules.compile import FeatureRule, RefusedError, Rule, winning_order
from modbot.rules.distance import Distance, Gap, distance
from modbot.rules.evaluate import FAILURES, Evaluation, Record
from modbot.rules.facts import Facts, Verdict
from modbot.rules.pieces import Piece, pieces
from modbot.rules.reasons import Placeholder, Reason
from modbot.rules.ruleset import RuleSet

SHOWN_TAGS = 5


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of an expression, as it is written, and what it came to on this record.

    `value` is None where the part was not `evaluated` (what stands before it had decided already), and where it came
    to no finite number. `tags`: of a group, the highest tags that the record has. `problem`: what could not be
    evaluated here. `parts` leave out literals, which tell their value themselves.
    """

    text: str
    value: bool | float | str | None = None
    evaluated: bool = True
    tags: tuple[tuple[str, float], ...] = ()
    problem: str | None = None
    parts: tuple[Part, ...] = ()


class ExplainedFeature(msgspec.Struct, frozen=True, kw_only=True):
    """A feature of the file: its value, and how it came about. `problem`: why it is 0, if something failed."""

    name: str
    value: float
    expression: Part
    problem: str | None


class ExplainedRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule on this record.

    `reached` is False behind a rule with `stop` that matched: such a rule is not looked at. `problem`: why it does not
    match though no part of it is false. `distance` and `gaps` are those of rules that were reached, did not match and
    are more severe than what the record has; see `modbot.rules.distance`. `distance` is None for all others, and where
    no change of the record could make the rule match.
    """

    id: str
    title: str | None
    severity: Severity
    priority: int
    line: int
    stop: bool
    reached: bool
    matched: bool
    won: bool
    when: Part
    problem: str | None
    distance: float | None
    gaps: tuple[Gap, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """How the rules came to their verdict on one record.

    `why` says in words why that rule won. `stopped_by`: the rule whose `stop` ended the evaluation. `nearest`: of the
    more severe rules the one that needs the least change.
    """

    verdict: Verdict
    why: str
    features: tuple[ExplainedFeature, ...]
    rules: tuple[ExplainedRule, ...]
    stopped_by: str | None
    nearest: str | None


class _Outcome(NamedTuple):
    """What became of a rule or feature: its value (None: it failed), and what failed."""

    value: object
    problem: str | None


class _Looked(NamedTuple):
    """A rule that was reached."""

    matched: bool
    problem: str | None
    when: Part


class Explainer:
    """Explains verdicts of one rule set. Counts and logs nothing, and can be used on any number of records."""

    def __init__(self, ruleset: RuleSet) -> None:
        program = ruleset.program
        self._ruleset = ruleset
        self._features = [pieces(feature.value, feature.text) for feature in program.features]
        self._rules = [pieces(rule.when, rule.text) for rule in program.rules]
        self._signals = {name: pieces(node, "") for name, node in program.signals.items()}
        self._order = winning_order(program.rules)
        self._never = set(ruleset.unmatchable(Capabilities()))
        groups = ruleset.groups.items()
        # The same tags come again with every record, and a group may hold thousands of patterns.
        self._groups_of = lru_cache(65_536)(lambda tag: tuple(name for name, group in groups if group.matches(tag)))

    def explain(self, facts: Facts, floor: Severity = "green") -> Explanation:
        """The verdict on a record, explained. Never raises.

        `floor`: the least severity that the record has, whatever the rules say: nearer verdicts are not looked for.
        """
        run = _Run(self._ruleset, facts, self._groups_of)
        features = tuple(map(run.feature, self._ruleset.program.features, self._features))
        looked = self._look(run)
        matched = [index for index, each in enumerate(looked) if each.matched]
        winner = next((index for index in self._order if index in matched), None)
        verdict = self._verdict(run, matched, winner, features)
        stands = max(verdict.severity, floor, key=RANK.__getitem__)
        rules = tuple(self._rule(run, index, looked, winner, stands) for index in range(len(self._rules)))
        stopped = looked and looked[-1].matched and self._ruleset.rules[len(looked) - 1].stop
        return Explanation(
            verdict=verdict,
            why=_why(self._ruleset.rules, matched, winner),
            features=features,
            rules=rules,
            stopped_by=self._ruleset.rules[len(looked) - 1].id if stopped else None,
            nearest=self._nearest(rules),
        )

    def _look(self, run: _Run) -> list[_Looked]:
        """The rules in order, up to one that stops."""
        looked: list[_Looked] = []
        for rule, piece in zip(self._ruleset.rules, self._rules, strict=True):
            outcome = run.guarded(rule.site, partial(run.evaluation.value, piece))
            looked.append(_Looked(bool(outcome.value), outcome.problem, run.part(piece)))
            if rule.stop and outcome.value:
                break
        return looked

    def _rule(
        self, run: _Run, index: int, looked: Sequence[_Looked], winner: int | None, stands: Severity
    ) -> ExplainedRule:
        rule, piece = self._ruleset.rules[index], self._rules[index]
        reached = index < len(looked)
        matched, problem, when = looked[index] if reached else (False, None, unevaluated(piece))
        wanted = reached and not matched and RANK[rule.severity] > RANK[stands]
        found = distance(piece, run.evaluation, self._features) if wanted else Distance(total=None, gaps=())
        return ExplainedRule(
            id=rule.id,
            title=rule.title,
            severity=rule.severity,
            priority=rule.priority,
            line=rule.line,
            stop=rule.stop,
            reached=reached,
            matched=matched,
            won=index == winner,
            when=when,
            problem=problem,
            distance=None if rule.id in self._never else found.total,
            gaps=found.gaps,
        )

    def _nearest(self, rules: Sequence[ExplainedRule]) -> str | None:
        near = [rules[index] for index in self._order if rules[index].distance is not None]
        return min(near, key=lambda rule: rule.distance or 0.0).id if near else None

    def _verdict(
        self, run: _Run, matched: Sequence[int], winner: int | None, features: Sequence[ExplainedFeature]
    ) -> Verdict:
        rule = None if winner is None else self._ruleset.rules[winner]
        reasons = [] if rule is None else list(run.reasons(rule))
        values = {feature.name: feature.value for feature in features}
        signals = {name: run.evaluation.number(piece) for name, piece in self._signals.items()}
        return Verdict(
            severity="green" if rule is None else rule.severity,
            rule_id=None if rule is None else rule.id,
            rule_title=None if rule is None else rule.title,
            reasons=reasons if rule is None else reasons or [rule.id],
            priority=None if rule is None else rule.priority,
            origin="default" if rule is None else "dsl",
            features=values,
            signals=signals,
            problems=tuple(run.problems),
            matched=sum(1 << index for index in matched),
        )


class _Run:
    """One record's explanation, as far as it has come."""

    def __init__(self, ruleset: RuleSet, facts: Facts, groups_of: Callable[[str], tuple[str, ...]]) -> None:
        tags: dict[str, list[tuple[str, float]]] = {name: [] for name in ruleset.groups}
        for tag, score in sorted(facts.tags.items(), key=lambda pair: -pair[1]):
            for name in groups_of(tag):
                tags[name].append((tag, score))
        record, strict = Record(facts, tags), ruleset.mode == "strict"
        self.evaluation = Evaluation(record, ruleset.groups, ruleset.sites, strict=strict)
        self.problems: list[str] = []
        self._ruleset = ruleset
        self._tags = tags

    def guarded(self, site: int, evaluate: Callable[[], object]) -> _Outcome:
        """What an expression comes to; where it fails, nothing, and in `strict` a problem of the verdict."""
        try:
            return _Outcome(evaluate(), None)
        except FAILURES as error:
            found = self._ruleset.sites[error.site if isinstance(error, RefusedError) else site]
            if self._ruleset.mode == "strict":
                self.problems.append(f"{found.owner}: {found.message} ({self._ruleset.file}:{found.line})")
            return _Outcome(None, found.message)

    def feature(self, feature: FeatureRule, piece: Piece) -> ExplainedFeature:
        """The feature's value, which the later ones and the rules can read from here on."""
        outcome = self.guarded(feature.site, lambda: calculate.finite(self.evaluation.number(piece)))
        value = outcome.value if isinstance(outcome.value, float) else 0.0
        self.evaluation.features.append(value)
        return ExplainedFeature(name=feature.name, value=value, expression=self.part(piece), problem=outcome.problem)

    def reasons(self, rule: Rule) -> Iterator[str]:
        """The texts of the rule's reasons; one that fails is left out."""
        for reason in rule.reasons:
            outcome = self.guarded(rule.site, partial(self._text, reason))
            if isinstance(outcome.value, str):
                yield outcome.value

    def _text(self, reason: Reason) -> str:
        return "".join(map(self._shown, reason))

    def _shown(self, part: str | Placeholder) -> str:
        if isinstance(part, str):
            return part
        value = self.evaluation.value(pieces(part.value, ""))
        return calculate.show(value, part.conversion, part.format)

    def part(self, piece: Piece) -> Part:
        """The piece as it was evaluated so far."""
        evaluation = self.evaluation
        evaluated = piece in evaluation.values
        value = evaluation.values.get(piece)
        tags: Iterable[tuple[str, float]] = ()
        if evaluated and isinstance(piece.node, OfGroup):
            tags = self._tags[piece.node.group][:SHOWN_TAGS]
        return Part(
            text=piece.text,
            value=None if isinstance(value, float) and not math.isfinite(value) else value,
            evaluated=evaluated,
            tags=tuple(tags),
            problem=evaluation.problems.get(piece),
            parts=tuple(self.part(part) for part in piece.parts if part.is_named),
        )


def unevaluated(piece: Piece) -> Part:
    """A piece of a rule that was not looked at."""
    parts = tuple(unevaluated(part) for part in piece.parts if part.is_named)
    return Part(text=piece.text, evaluated=False, parts=parts)


def _why(rules: Sequence[Rule], matched: Sequence[int], winner: int | None) -> str:
    """Why that rule won, in words."""
    if winner is None:
        return "no rule matched"
    if len(matched) == 1:
        return "it is the only rule that matched"
    best = rules[winner]
    rivals = [rules[index] for index in matched if rules[index].severity == best.severity]
    if len(rivals) == 1:
        return f"it is the most severe of the {len(matched)} rules that matched"
    equals = [rule for rule in rivals if rule.priority == best.priority]
    if len(equals) == 1:
        return f"it has the highest priority ({best.priority}) of the {len(rivals)} {best.severity} rules that matched"
    return f"it stands first of the {len(equals)} {best.severity} rules of priority {best.priority} that matched"


def explain(ruleset: RuleSet, facts: Facts, floor: Severity = "green") -> Explanation:
    """The verdict on one record, explained; see `Explainer.explain`."""
    return Explainer(ruleset).explain(facts, floor)
