"""From a rules file's bytes to rules that can judge, or to what is wrong with them."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Literal, NamedTuple, cast

import msgspec

from modbot.errors import RulesError
from modbot.records.finding import SEVERITIES, Severity
from modbot.records.tags import Group, Patterns, normalise
from modbot.rules import bound, comments, document, names, reasons, syntax
from modbot.rules.bind import Checked, Finding, Scope, SiteKind, bind, near_tag, no_such_tag
from modbot.rules.bound import Site
from modbot.rules.cases import CaseReader, Cases
from modbot.rules.compile import FeatureRule, Program, Rule
from modbot.rules.issues import Issue, Level, Source, Span, did_you_mean
from modbot.rules.ruleset import Mode, RuleSet
from modbot.words import counted

Status = Literal["ok", "invalid", "error"]

VERSION = 2
TOP_LEVEL = ("version", "dsl_mode", "rule_titles", "groups", "features", "rules", "thresholds", "tests")
RULE_KEYS = ("id", "severity", "when", "priority", "reasons", "stop")
MODES = ("warn", "strict")
MAX_ISSUES = 2_000
"""With more than these a file is given up: it is none that a person could mend by reading on."""
MAX_GROUPS = 1_000
MAX_PATTERNS = 50_000
"""How many members of all groups may hold a wildcard."""
MAX_REASONS = 50
MAX_SCANS = 2_000
"""How many calls of `count`, `topk_sum` and `nude.any` a file may have: they look at each tag or detection anew."""
MAX_REMARKS = 200
"""Of what keeps nothing from running, so much is told, and of the rest how much it is."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a rules file.

    `ok`: all of it runs. `invalid`: what is bad was left out, the rest runs. `error`: nothing runs, `ruleset` is None.
    `legacy`: a file of another version. `mode`: the one it was checked in. `digest`: sha256 of the source, hex.
    `cases`: the file's own tests.
    """

    status: Status
    issues: tuple[Issue, ...]
    ruleset: RuleSet | None
    legacy: bool
    mode: Mode
    digest: str
    cases: Cases = Cases()


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """The groups and thresholds of a rules file of any version. `digest` is of the groups alone.

    `issues`: what of them is malformed and left out.
    """

    groups: Mapping[str, Group]
    thresholds: Mapping[str, float]
    digest: str
    issues: tuple[Issue, ...] = ()


def load_rules(
    source: bytes,
    *,
    file: str,
    mode: Mode | None = None,
    consts: Mapping[str, float] = {},
    lists: Collection[str] = (),
    tags: Collection[str] | None = None,
) -> Loaded:
    """The rules in `source`, checked and compiled. `file` names them in messages; nothing is read. Never raises.

    `mode` None: the file's own, else `warn`. `consts` are further `const_<NAME>`; `lists` the names that
    `known.<list>` may have; `tags` the normalised ones that a tagger has, where others are to be remarked on.
    """
    digest = hashlib.sha256(source).hexdigest()
    try:
        text = document.decode(source)
        root = document.compose(text)
        loader = _Loader(Source(file, text), mode or _own_mode(root) or "warn", consts, lists, tags)
        ruleset = loader.load(root)
    except document.DocumentError as error:
        issue = _yaml_issue(source, file, error)
        return Loaded(status="error", issues=(issue,), ruleset=None, legacy=False, mode=mode or "warn", digest=digest)
    issues = loader.told()
    failed = any(issue.level == "error" for issue in issues)
    if ruleset is not None and failed and loader.mode == "strict":
        ruleset = None
    status: Status = "error" if ruleset is None else "invalid" if failed else "ok"
    return Loaded(
        status=status,
        issues=issues,
        ruleset=ruleset,
        legacy=loader.legacy,
        mode=loader.mode,
        digest=digest,
        cases=loader.cases,
    )


def _yaml_issue(source: bytes, file: str, error: document.DocumentError) -> Issue:
    text = Source(file, source.decode("utf-8-sig", errors="replace"))
    began = [(error.began, "it began here")] if error.began and error.began != error.span else []
    return text.issue("R2-YAML", "error", error.span or Span(0, 0), error.message, hint=error.hint, related=began)


def unreadable(file: str, reason: str, *, mode: Mode = "warn") -> Loaded:
    """What becomes of a rules file that cannot be read: `R2-IO`. For those who read files."""
    issue = Source(file, "").issue("R2-IO", "error", Span(0, 0), f"cannot be read: {reason}")
    issue = msgspec.structs.replace(issue, excerpt="")
    empty = hashlib.sha256(b"").hexdigest()
    return Loaded(status="error", issues=(issue,), ruleset=None, legacy=False, mode=mode, digest=empty)


def file_mode(source: bytes) -> Mode | None:
    """The file's own `dsl_mode`; None if it has none, or none that can be used."""
    try:
        return _own_mode(document.compose(document.decode(source)))
    except document.DocumentError:
        return None


def _own_mode(root: document.Node | None) -> Mode | None:
    if not isinstance(root, document.Mapping):
        return None
    values = [document.text_of(value) for key, value in document.entries(root) if document.text_of(key) == "dsl_mode"]
    return cast("Mode", values[-1]) if values and values[-1] in MODES else None


def load_vocabulary(source: bytes, *, file: str) -> Vocabulary:
    """The groups and thresholds in `source`, whatever else is in it. Raises `RulesError` if it is no YAML map."""
    try:
        text = document.decode(source)
        root = document.compose(text)
        if not isinstance(root, document.Mapping):
            raise RulesError("the rules file is no map", where=file, remedy="It begins with `version: 2`.")
        loader = _Loader(Source(file, text), "warn", {}, ())
        groups, thresholds = loader.vocabulary(root)
    except document.DocumentError as error:
        issue = _yaml_issue(source, file, error)
        where = f"{file}:{issue.line}:{issue.column}"
        raise RulesError(issue.message, where=where, remedy="Correct the YAML.") from None
    members = json.dumps({name: sorted(group.items) for name, group in sorted(groups.items())}, ensure_ascii=False)
    digest = hashlib.sha256(members.encode()).hexdigest()
    return Vocabulary(groups=groups, thresholds=thresholds, digest=digest, issues=loader.told())


class _CheckedRules(RuleSet):
    """The rule set that can be made, for what `_Loader` has checked."""

    def _checked(self) -> None:
        """Nothing more: to be made here is the proof."""


class _Entry(NamedTuple):
    key: document.Node
    value: document.Node


class _Loader:
    """One pass over one file: collects issues, and keeps what is good."""

    def __init__(
        self,
        source: Source,
        mode: Mode,
        consts: Mapping[str, float],
        lists: Collection[str],
        tags: Collection[str] | None = None,
    ) -> None:
        self.issues: list[Issue] = []
        self._remarks: list[Issue] = []
        self._untold = 0
        self.mode = mode
        self.legacy = False
        self.cases = Cases()
        self._source = source
        self._consts = consts
        self._lists = lists
        self._tags = None if tags is None else frozenset(tags)
        self._sites: list[Site] = []
        self._places: tuple[document.Scalar, document.Places] | None = None

    # Issues

    def _error(
        self, code: str, at: Span, message: str, hint: str | None = None, *, other: document.Node | None = None
    ) -> None:
        """Something was left out, or everything."""
        self._tell(code, "error", at, message, hint=hint, other=other)

    def _doubt(self, code: str, at: Span, message: str, hint: str | None = None) -> None:
        """A warning; in `strict` an error."""
        self._tell(code, "error" if self.mode == "strict" else "warning", at, message, hint=hint)

    def _remark(self, code: str, at: Span, message: str, hint: str | None = None) -> None:
        """A warning in any mode: all of the file runs, however many there are."""
        if len(self._remarks) < MAX_REMARKS:
            self._remarks.append(self._source.issue(code, "warning", at, message, hint=hint))
        else:
            self._untold += 1

    def told(self) -> tuple[Issue, ...]:
        """All issues in the order of the file; of too many remarks, the last says how many more there are."""
        remarks = self._remarks
        if self._untold:
            last = msgspec.structs.replace(
                remarks[-1], hint=f"… and {counted(self._untold, 'more warning like it', 'more warnings like these')}"
            )
            remarks = [*remarks[:-1], last]
        return tuple(sorted([*self.issues, *remarks], key=lambda issue: (issue.line, issue.column, issue.code)))

    def _tell(
        self, code: str, level: Level, at: Span, message: str, *, hint: str | None, other: document.Node | None = None
    ) -> None:
        if len(self.issues) >= MAX_ISSUES:
            raise document.DocumentError(f"more than {MAX_ISSUES} things are wrong with the file", at)
        related = [] if other is None else [(document.span(other), "the first one")]
        self.issues.append(self._source.issue(code, level, at, message, hint=hint, related=related))

    # The file

    def load(self, root: document.Node | None) -> RuleSet | None:
        if not isinstance(root, document.Mapping):
            at = Span(0, 0) if root is None else document.span(root)
            what = "the file is empty" if root is None else f"the file is {document.kind_of(root)}, not a map"
            self._error("R2-V001", at, what, "a rules file begins with `version: 2`")
            return None
        top = self._map(root)
        if not self._is_version_2(root, top):
            return None
        self._unknown_keys(top, TOP_LEVEL)
        self._check_mode(top)
        groups = self._groups(top.get("groups"))
        thresholds = self._thresholds(top.get("thresholds"))
        scope = Scope(groups, {**names.CONSTANTS, **thresholds, **self._consts}, self._lists, tags=self._tags)
        features = self._features(top.get("features"), scope)
        rules = self._rules(root, top, scope)
        if rules is None:
            return None
        if scope.scans > MAX_SCANS:
            message = f"the file has more than {MAX_SCANS} calls of `count`, `topk_sum` and `nude.any`"
            self._error("R2-E001", document.span(top["rules"].key), message, "name what is used often as a feature")
            return None
        if "tests" in top:
            self.cases = self._read_cases(top["tests"].value, {rule.id for rule in rules})
        signals = self._signals(scope)
        program = Program(groups=groups, features=features, rules=rules, signals=signals)
        return _CheckedRules(
            program,
            self._sites,
            mode=self.mode,
            file=self._source.file,
            thresholds={**names.THRESHOLDS, **thresholds},
        )

    def _read_cases(self, node: document.Node, rules: Collection[str]) -> Cases:
        reader = CaseReader(
            doubt=self._doubt,
            remark=self._remark,
            entries=self._map,
            line=lambda offset: self._source.position(offset)[0],
            rules=rules,
            lists=self._lists,
        )
        return reader.read(node)

    def vocabulary(self, root: document.Mapping) -> tuple[dict[str, Group], dict[str, float]]:
        top = self._map(root)
        thresholds = self._thresholds(top.get("thresholds"))
        return self._groups(top.get("groups")), {**names.THRESHOLDS, **thresholds}

    def _map(self, node: document.Mapping) -> dict[str, _Entry]:
        """The entries by key; of a key that stands twice the last, which is an error."""
        for key, first in document.repeated(node):
            message = f"the key `{key.value}` stands twice; the last one counts"
            self._error("R2-YAML", document.span(key), message, "remove one of them", other=first)
        found: dict[str, _Entry] = {}
        for key, value in document.entries(node):
            if isinstance(key, document.Scalar):
                found[key.value] = _Entry(key, value)
            else:
                self._doubt("R2-K001", document.span(key), f"{document.kind_of(key)} is no key")
        return found

    def _unknown_keys(self, found: Mapping[str, _Entry], known: Collection[str]) -> None:
        for name in found.keys() - set(known):
            hint = did_you_mean(name, known) or f"known here: {', '.join(known)}"
            self._doubt("R2-K001", document.span(found[name].key), f"unknown key `{name}`", hint)

    def _is_version_2(self, root: document.Node, top: Mapping[str, _Entry]) -> bool:
        entry = top.get("version")
        value = document.plain_value(entry.value) if entry else None
        if type(value) is int and value == VERSION:
            return True
        self.legacy = True
        at = document.span(entry.value) if entry else Span(root.start_mark.index, root.start_mark.index)
        what = "`version` is missing" if entry is None else "the version is not the number 2"
        hint = "rewrite the rules in version 2 and say `version: 2`; `--allow-legacy` goes on without judging"
        self._error("R2-V001", at, f"a legacy rules file: {what}", hint)
        return False

    def _check_mode(self, top: Mapping[str, _Entry]) -> None:
        entry = top.get("dsl_mode")
        if entry and document.text_of(entry.value) not in MODES:
            message = "`dsl_mode` is neither `warn` nor `strict`: it counts as unset"
            self._remark("R2-V001", document.span(entry.value), message)

    # Vocabulary

    def _section(self, entry: _Entry | None, code: str) -> dict[str, _Entry]:
        """The entries of a top level map; none where it is missing, empty or something else."""
        if entry is None or document.plain_value(entry.value) is None:
            return {}
        if not isinstance(entry.value, document.Mapping):
            message = f"`{entry.key.value}` must be a map, not {document.kind_of(entry.value)}"
            self._error(code, document.span(entry.value), message)
            return {}
        return self._map(entry.value)

    def _groups(self, entry: _Entry | None) -> dict[str, Group]:
        groups: dict[str, Group] = {}
        keys: dict[str, document.Node] = {}
        section = self._section(entry, "R2-G001")
        for raw, (key, value) in section.items():
            name = normalise(raw)
            if name in groups:
                message = f"the group `{name}` stands twice; the last one counts"
                self._error("R2-G001", document.span(key), message, "join the two", other=keys[name])
            keys[name] = key
            if document.plain_value(value) is None:
                self._remark("R2-G001", document.span(key), f"the group `{name}` is empty")
                groups[name] = Group(())
            elif isinstance(value, document.Sequence):
                groups[name] = Group(self._members(value))
            else:
                message = f"the group `{name}` must be a list of tags, not {document.kind_of(value)}"
                self._error("R2-G001", document.span(value), message, "write one `- tag` a line")
        if len(groups) > MAX_GROUPS:
            raise document.DocumentError(f"there are more than {MAX_GROUPS} groups", document.span(keys[name]))
        if sum(len(group.patterns) for group in groups.values()) > MAX_PATTERNS:
            message = f"the groups have more than {MAX_PATTERNS} patterns with `*`, `?` or `[`"
            raise document.DocumentError(message, document.span(keys[name]))
        if self._tags is not None:
            self._check_tags((value for _, value in section.values()), groups, self._tags)
        return groups

    def _check_tags(self, lists: Iterable[document.Node], groups: Mapping[str, Group], tags: frozenset[str]) -> None:
        """Remarks on the members of groups that are, or match, none of the tags."""
        patterns = Patterns({pattern for group in groups.values() for pattern in group.patterns})
        known = {*tags, *itertools.chain.from_iterable(map(patterns.matching, tags))}
        for item in itertools.chain.from_iterable(each.value for each in lists if isinstance(each, document.Sequence)):
            name = normalise(item.value) if isinstance(item, document.Scalar) else ""
            if name and name not in known:
                near = near_tag(name, tags) if not self._untold else None
                self._remark("R2-G002", document.span(item), no_such_tag(name), near)

    def _members(self, node: document.Sequence) -> Iterator[str]:
        for item in node.value:
            if not isinstance(item, document.Scalar) or not normalise(item.value):
                self._doubt("R2-G001", document.span(item), "this is no tag: it is left out of the group")
                continue
            if document.text_of(item) is None:
                message = f"YAML reads `{item.value}` as {document.kind_of(item)}: it is taken as the tag's name"
                self._remark("R2-G001", document.span(item), message, f'write "{item.value}"')
            yield item.value

    def _thresholds(self, entry: _Entry | None) -> dict[str, float]:
        thresholds: dict[str, float] = {}
        for name, (_, value) in self._section(entry, "R2-V001").items():
            number = document.plain_value(value)
            if not isinstance(number, int | float) or isinstance(number, bool) or not _is_finite(number):
                self._doubt("R2-V001", document.span(value), f"the threshold `{name}` must be a number: it is left out")
            elif name in names.THRESHOLDS and not 0 <= number <= 1:
                message = f"the threshold `{name}` must lie between 0 and 1: {names.THRESHOLDS[name]} is used"
                self._doubt("R2-V001", document.span(value), message)
            else:
                thresholds[name] = float(number)
        return thresholds

    # Expressions

    def _whole(self, node: document.Scalar, scope: Scope, owner: str) -> Checked | None:
        """The expression that the scalar is, and all there is to tell of it; None where it is not in the language."""
        text = self._source.text
        checked, findings = self._expression(node, node.value, 0, scope, owner)
        left_out = comments.taken(text, node, self._placed(node))
        if checked is None:
            hints = [comments.blamed(text, each.span, left_out) for each in findings]
            findings = [each._replace(hint=hint or each.hint) for each, hint in zip(findings, hints, strict=True)]
        else:
            findings = [*findings, *comments.doubts(text, left_out)]
        for finding in findings:
            self._report(finding)
        return checked

    def _expression(
        self, node: document.Scalar, text: str, offset: int, scope: Scope, owner: str
    ) -> tuple[Checked | None, list[Finding]]:
        """A part of a scalar, from `offset`, as a checked expression; None where it is not in the language.

        The findings' spans are places in the file.
        """
        places = self._placed(node)

        def place(span: Span) -> Span:
            return places.span(Span(span.start + offset, span.end + offset))

        def site(kind: SiteKind, span: Span, message: str) -> int:
            return self._site(owner, kind, place(span), message)

        try:
            tree = syntax.parse(text)
        except syntax.ExpressionError as error:
            return None, [Finding("R2-E001", place(error.span), error.message, error.hint, fatal=True)]
        checked = bind(tree, scope, site)
        return checked, [finding._replace(span=place(finding.span)) for finding in checked.findings]

    def _placed(self, node: document.Scalar) -> document.Places:
        """The places of the scalar's characters; worked out once for the expressions of one scalar."""
        if self._places is None or self._places[0] is not node:
            self._places = (node, document.Places(self._source, node))
        return self._places[1]

    def _site(self, owner: str, kind: SiteKind, at: Span, message: str) -> int:
        self._sites.append(Site(owner, kind, message, self._source.position(at.start)[0]))
        return len(self._sites) - 1

    def _report(self, finding: Finding) -> None:
        tell = self._remark if finding.remark else self._error if finding.fatal else self._doubt
        tell(finding.code, finding.span, finding.message, finding.hint)

    def _features(self, entry: _Entry | None, scope: Scope) -> list[FeatureRule]:
        section = self._section(entry, "R2-V001")
        scope.later_features = set(section)
        features: list[FeatureRule] = []
        for name, (key, value) in section.items():
            feature = self._feature(name, key, value, scope)
            scope.later_features.discard(name)
            if feature is None:
                scope.lost_features.add(name)
            else:
                scope.features[name] = len(features)
                features.append(feature)
        return features

    def _feature(self, name: str, key: document.Node, value: document.Node, scope: Scope) -> FeatureRule | None:
        owner = f"feature:{name}"
        at = document.span(key)
        if not name.isidentifier() or name.startswith("__") or unicodedata.normalize("NFKC", name) != name:
            self._error("R2-E001", at, f"`{name}` cannot be a feature's name", "use letters, digits and `_`")
            return None
        text = document.text_of(value)
        if text is None:
            message = f"the feature `{name}` must be text, not {document.kind_of(value)}"
            self._error("R2-E001", document.span(value), message, self._commented_out(value) or "put it in quotes")
            return None
        site = self._site(owner, "arithmetic", document.span(value), "its value is not a finite number")
        if not text.strip():
            self._doubt("R2-E001", document.span(value), f"the feature `{name}` is empty: it is 0")
            return FeatureRule(name, text, bound.Constant(0.0, Span(0, 0)), site)
        checked = self._whole(cast("document.Scalar", value), scope, owner)
        if checked is None or checked.fatal:
            return None
        if checked.kind != "number":
            message = f"the value of the feature `{name}` is text: it is 0"
            self._doubt("R2-E001", document.span(value), message)
            failing = self._site(owner, "type_mismatch", document.span(value), message)
            return FeatureRule(name, text, bound.Failing(failing, Span(0, len(text))), site)
        return FeatureRule(name, text, checked.node, site)

    # Rules

    def _rules(self, root: document.Node, top: Mapping[str, _Entry], scope: Scope) -> list[Rule] | None:
        titles = self._titles(top.get("rule_titles"))
        entry = top.get("rules")
        if entry is None or not isinstance(entry.value, document.Sequence):
            at = Span(root.start_mark.index, root.start_mark.index) if entry is None else document.span(entry.value)
            what = (
                "`rules` is missing"
                if entry is None
                else f"`rules` must be a list, not {document.kind_of(entry.value)}"
            )
            self._error("R2-V001", at, what)
            return None
        if not entry.value.value:
            self._doubt("R2-V001", document.span(entry.value), "there are no rules: every image is green")
        rules: list[Rule] = []
        first: dict[str, document.Node] = {}
        for node in entry.value.value:
            rule = self._rule(node, scope, titles, first)
            if rule is not None:
                rules.append(rule)
        if entry.value.value and not rules:
            self._error("R2-V001", document.span(entry.key), "no rule is left that can run")
            return None
        return rules

    def _titles(self, entry: _Entry | None) -> dict[str, str]:
        titles: dict[str, str] = {}
        if entry is None:
            return titles
        if not isinstance(entry.value, document.Mapping):
            message = f"`rule_titles` must be a map of id and text, not {document.kind_of(entry.value)}"
            self._doubt("R2-T000", document.span(entry.value), message)
            return titles
        for name, (_, value) in self._map(entry.value).items():
            text = document.text_of(value)
            if text is None:
                self._doubt("R2-T000", document.span(value), f"the title of `{name}` must be text")
            else:
                titles[name] = text
        return titles

    def _rule(
        self, node: document.Node, scope: Scope, titles: Mapping[str, str], first: dict[str, document.Node]
    ) -> Rule | None:
        """The rule, if it can run; `first` has the ids of those that can, and takes this one's."""
        if not isinstance(node, document.Mapping):
            self._error("R2-V001", document.span(node), f"a rule must be a map, not {document.kind_of(node)}")
            return None
        found = self._map(node)
        self._unknown_keys(found, RULE_KEYS)
        name = self._required(node, found, "id")
        owner = name or "?"
        severity = self._severity(node, found)
        when = self._when(node, found, scope, owner)
        priority = self._priority(found.get("priority"))
        stop = self._stop(found.get("stop"))
        texts = self._reasons(found.get("reasons"), scope, owner)
        if name is None or severity is None or when is None:
            return None
        at = found["id"].value
        if name in first:
            message = f"the id `{name}` stands twice: the first rule stays"
            self._error("R2-D001", document.span(at), message, "give it an id of its own", other=first[name])
            return None
        first[name] = at
        if name not in titles:
            near = did_you_mean(name, titles) if not self._untold else None
            hint = near or f"add `{name}: …` to `rule_titles`"
            self._remark("R2-T001", document.span(at), f"the rule `{name}` has no title", hint)
        return Rule(
            id=name,
            severity=severity,
            priority=priority,
            title=titles.get(name),
            stop=stop,
            line=self._source.position(node.start_mark.index)[0],
            when=when,
            text=cast("document.Scalar", found["when"].value).value,
            reasons=texts,
            site=self._site(owner, "arithmetic", document.span(node), "a calculation has no finite result"),
        )

    def _required(self, rule: document.Node, found: Mapping[str, _Entry], key: str) -> str | None:
        """The text of a key that a rule must have; None and an issue where it has none."""
        entry = found.get(key)
        if entry is None:
            start = rule.start_mark.index
            self._error("R2-V001", Span(start, start + 1), f"the rule has no `{key}`: it is left out")
            return None
        text = document.text_of(entry.value)
        if text is None or not text.strip():
            kind = document.kind_of(entry.value) if text is None else "empty"
            message = f"`{key}` must be text, and is {kind}: the rule is left out"
            hint = self._commented_out(entry.value) or self._in_quotes(key, entry.value)
            self._error("R2-V001", document.span(entry.value), message, hint)
            return None
        return text

    def _commented_out(self, node: document.Node) -> str | None:
        """The way out for a value that is nothing because all of it stands behind a `#`."""
        if not isinstance(node, document.Scalar) or node.value:
            return None
        text = self._source.text
        return comments.blamed(text, document.span(node), comments.taken(text, node, self._placed(node)))

    def _in_quotes(self, key: str, node: document.Node) -> str | None:
        """The way out for what YAML reads as something else than the text it looks like."""
        written = self._source.text[slice(*document.span(node))]
        if not isinstance(node, document.Scalar) or node.style or not written or not written.isprintable():
            return None
        return f"write `{key}: '{written}'`" if '"' in written else f'write `{key}: "{written}"`'

    def _severity(self, node: document.Node, found: Mapping[str, _Entry]) -> Severity | None:
        text = self._required(node, found, "severity")
        if text is None or text in SEVERITIES:
            return text
        hint = did_you_mean(text.lower(), SEVERITIES) or f"it is one of {', '.join(SEVERITIES)}"
        message = f"`{text}` is no severity: the rule is left out"
        self._error("R2-V001", document.span(found["severity"].value), message, hint)
        return None

    def _when(self, node: document.Node, found: Mapping[str, _Entry], scope: Scope, owner: str) -> bound.Bound | None:
        text = self._required(node, found, "when")
        if text is None:
            return None
        checked = self._whole(cast("document.Scalar", found["when"].value), scope, owner)
        return None if checked is None or checked.fatal else checked.node

    def _priority(self, entry: _Entry | None) -> int:
        value = document.plain_value(entry.value) if entry else 0
        if type(value) is int:
            return value
        self._remark(
            "R2-V001", document.span(cast("_Entry", entry).value), "`priority` must be a whole number: it is 0"
        )
        return 0

    def _stop(self, entry: _Entry | None) -> bool:
        value = document.plain_value(entry.value) if entry else False
        if isinstance(value, bool):
            return value
        self._doubt("R2-V001", document.span(cast("_Entry", entry).value), "`stop` must be true or false: it is false")
        return False

    def _reasons(self, entry: _Entry | None, scope: Scope, owner: str) -> tuple[reasons.Reason, ...]:
        if entry is None or document.plain_value(entry.value) is None:
            return ()
        if not isinstance(entry.value, document.Sequence):
            self._doubt("R2-V001", document.span(entry.value), "`reasons` must be a list", "write `- …` before it")
        items = entry.value.value if isinstance(entry.value, document.Sequence) else [entry.value]
        if len(items) > MAX_REASONS:
            message = f"the rule has more than {MAX_REASONS} reasons: the rest are left out"
            self._doubt("R2-P001", document.span(items[MAX_REASONS]), message)
            items = items[:MAX_REASONS]
        checked = (self._reason(item, scope, owner) for item in items)
        return tuple(reason for reason in checked if reason is not None)

    def _reason(self, node: document.Node, scope: Scope, owner: str) -> reasons.Reason | None:
        text = document.text_of(node)
        if text is None:
            message = f"a reason must be text, not {document.kind_of(node)}: it is left out"
            self._doubt("R2-P001", document.span(node), message, "put it in quotes")
            return None
        if not text.strip():
            self._doubt("R2-P001", document.span(node), "the reason is empty: it is left out")
            return None
        scalar = cast("document.Scalar", node)
        try:
            pieces = reasons.split(text)
        except syntax.ExpressionError as error:
            at = self._placed(scalar).span(error.span)
            self._doubt("R2-P001", at, f"{error.message}: the reason is left out", error.hint)
            return None
        parts = [
            piece if isinstance(piece, str) else self._placeholder(scalar, piece, scope, owner) for piece in pieces
        ]
        return None if None in parts else tuple(part for part in parts if part is not None)

    def _placeholder(
        self, node: document.Scalar, hole: reasons.Hole, scope: Scope, owner: str
    ) -> reasons.Placeholder | None:
        checked, findings = self._expression(node, hole.expression, hole.span.start, scope, owner)
        bad = [finding for finding in findings if not finding.remark]
        for finding in bad:
            self._doubt("R2-P001", finding.span, f"{finding.message}: the reason is left out", finding.hint)
        if checked is None or bad:
            return None
        return reasons.Placeholder(checked.node, hole.conversion, hole.format)

    def _signals(self, scope: Scope) -> dict[str, bound.Bound]:
        """What findings export: each built-in number, or the feature that overrides it."""
        own = Scope(scope.groups, {}, (), features=scope.features)
        site = partial(self._site, "signals")
        nowhere = Span(0, 0)
        return {name: bind(syntax.Name(of, nowhere), own, site).node for name, of in names.EXPORTED.items()}


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False
