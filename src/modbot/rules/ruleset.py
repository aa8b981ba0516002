"""Rules that passed the check: they judge."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Literal

from modbot.records.tags import Group, Patterns
from modbot.rules.bound import Site
from modbot.rules.bounds import Capabilities, can_match
from modbot.rules.compile import Program, RefusedError, Rule, compile_program
from modbot.rules.facts import Facts, Verdict
from modbot.words import printable

Mode = Literal["warn", "strict"]

LOGGED_AT_MOST = 5
_log = logging.getLogger("modbot.rules")


class RuleSet(ABC):
    """The rules of one file, compiled. Only `load_rules` makes one: rules that were not checked cannot judge.

    That is why the class is abstract: the one that can be made stands beside the check, and is private there.

    `rules` are in file order, `groups` by normalised name; `thresholds` have the gate's two defaults where the file
    is silent. `program` and `sites` are what was compiled, for those who explain it. Not safe for use by several
    threads at once (it counts).
    """

    def __init__(
        self, program: Program, sites: Sequence[Site], *, mode: Mode, file: str, thresholds: Mapping[str, float]
    ) -> None:
        self.mode = mode
        self.rules: tuple[Rule, ...] = tuple(program.rules)
        self.groups: Mapping[str, Group] = program.groups
        self.thresholds: Mapping[str, float] = thresholds
        self.program = program
        self.sites = sites
        self.file = file
        self._counts: Counter[int] = Counter()
        self._logged: Counter[tuple[str, str]] = Counter()
        self._scores = _GroupIndex(program.groups.values())
        self._judge = compile_program(program)
        self._fail = self._refuse if mode == "strict" else self._count

    @abstractmethod
    def _checked(self) -> None:
        """What the check, and nothing else, adds to make this class a whole one."""

    def judge(self, facts: Facts) -> Verdict:
        """The verdict. Never raises: what cannot be evaluated is 0 and counted, or in `strict` one of `problems`."""
        problems: list[str] = []
        scores = self._scores.of(facts.tags)
        winner, matched, reasons, features, signals = self._judge(facts, scores, self._fail, self._broken, problems)
        rule = self.rules[winner] if winner >= 0 else None
        if rule is None:
            return Verdict(
                severity="green",
                rule_id=None,
                rule_title=None,
                reasons=[],
                priority=None,
                origin="default",
                features=features,
                signals=signals,
                problems=tuple(problems),
                matched=matched,
            )
        return Verdict(
            severity=rule.severity,
            rule_id=rule.id,
            rule_title=rule.title,
            reasons=reasons or [rule.id],
            priority=rule.priority,
            origin="dsl",
            features=features,
            signals=signals,
            problems=tuple(problems),
            matched=matched,
        )

    def issue_counts(self) -> dict[str, dict[str, int]]:
        """How often something could not be evaluated so far: rule id (or `feature:<name>`) -> kind -> count."""
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        for number, count in sorted(self._counts.items()):
            site = self.sites[number]
            counts[site.owner][site.kind] = counts[site.owner].get(site.kind, 0) + count
        return dict(counts)

    @property
    def failures(self) -> Counter[int]:
        """How often something could not be evaluated so far, by the number of its site."""
        return Counter(self._counts)

    def add_failures(self, failures: Mapping[int, int]) -> None:
        """Counts, and tells, what the same rules could not evaluate in another process."""
        for number, count in sorted(failures.items()):
            self._count(number, count)

    def forget_issues(self) -> None:
        """Counts from 0 again: what is judged next is a run of its own."""
        self._counts.clear()

    def unmatchable(self, capabilities: Capabilities) -> list[str]:
        """The ids of the rules that match no record whatever its scores, given what the models can see."""
        return can_match(self.program, capabilities)

    def _count(self, number: int, times: int = 1) -> int:
        site = self.sites[number]
        self._counts[number] += times
        before = self._logged[site.owner, site.kind]
        self._logged[site.owner, site.kind] += times
        for _ in range(min(times, LOGGED_AT_MOST - before)):
            told = printable(f"{site.owner}: {site.message}")
            becomes = "such a record is never green" if self.mode == "strict" else "counted as 0"
            _log.warning("%s:%d: %s; %s", self.file, site.line, told, becomes)
        return 0

    def _refuse(self, number: int) -> int:
        self._count(number)
        raise RefusedError(number)

    def _broken(self, number: int, error: Exception, problems: list[str]) -> float:
        if isinstance(error, RefusedError):
            number = error.site
        else:
            self._count(number)
        if self.mode == "strict":
            site = self.sites[number]
            problems.append(f"{site.owner}: {site.message} ({self.file}:{site.line})")
        return 0.0


class _GroupIndex:
    """Which groups a tag belongs to, worked out once for each tag that is met.

    The tagger keeps every tag of the groups whatever its score, so that the records of a day mostly hold the same ones:
    what picks these out by group is made once they are met twice in a row.
    """

    _MOST_TAGS = 200_000

    def __init__(self, groups: Iterable[Group]) -> None:
        groups = tuple(groups)
        self._count = len(groups)
        self._named: dict[str, list[int]] = defaultdict(list)
        self._patterned: dict[str, list[int]] = defaultdict(list)
        for index, group in enumerate(groups):
            for tag in group.literals:
                self._named[tag].append(index)
            for pattern in group.patterns:
                self._patterned[pattern].append(index)
        self._patterns = Patterns(self._patterned)
        self._seen: set[str] = set()
        # Where there are patterns, a tag's groups are known once it is met; else they are known from the start.
        self._groups_of: dict[str, list[int]] = {} if self._patterned else dict(self._named)
        self._members = frozenset(self._groups_of)
        self._before: frozenset[str] = frozenset()
        self._usual: frozenset[str] = frozenset()
        self._unusual: frozenset[str] = frozenset()
        self._pickers: list[Callable[[Mapping[str, float]], Sequence[float]]] = []

    def of(self, tags: Mapping[str, float]) -> list[Sequence[float]]:
        """The scores of each group's tags, in no order."""
        if self._patterned and not self._seen.issuperset(tags):
            self._learn(tags)
        present = tags.keys()
        if self._pickers and present >= self._usual and present.isdisjoint(self._unusual):
            return [pick(tags) for pick in self._pickers]
        found = self._members.intersection(tags)
        names = self._by_group(found)
        if found == self._before:
            self._usual, self._unusual = found, self._members - found
            self._pickers = [_picker(group) for group in names]
        self._before = found
        return [[tags[tag] for tag in group] for group in names]

    def _by_group(self, found: Iterable[str]) -> list[list[str]]:
        names: list[list[str]] = [[] for _ in range(self._count)]
        for tag in found:
            for index in self._groups_of[tag]:
                names[index].append(tag)
        return names

    def _learn(self, tags: Mapping[str, float]) -> None:
        if len(self._seen) > self._MOST_TAGS:
            self._seen.clear()
            self._groups_of.clear()
        for tag in tags.keys() - self._seen:
            self._seen.add(tag)
            by_pattern = (self._patterned[pattern] for pattern in self._patterns.matching(tag))
            if indices := sorted({*self._named.get(tag, ())}.union(*by_pattern)):
                self._groups_of[tag] = indices
        self._members = frozenset(self._groups_of)
        self._unusual = self._members - self._usual


def _picker(names: Sequence[str]) -> Callable[[Mapping[str, float]], Sequence[float]]:
    """What gives the scores of these tags: `itemgetter` gives a tuple only of two or more."""
    return itemgetter(*names) if len(names) > 1 else lambda tags: [tags[name] for name in names]
