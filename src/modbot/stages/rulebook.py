"""A rules file as a command uses it: read from disk, its mode settled, with all that judging by it needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from modbot.errors import RulesError
from modbot.files.paths import HASHLISTS_FILE, RULES_FILE, XSIGNALS_FILE
from modbot.files.yaml_files import read_at_most
from modbot.records.evidence import RATINGS, Evidence
from modbot.records.finding import Severity
from modbot.records.p1 import Rating
from modbot.records.p2 import XSignals
from modbot.records.tags import Group
from modbot.rules import MAX_BYTES, Capabilities, Loaded, Mode, RuleSet, file_mode, load_rules, render, unreadable
from modbot.signals import SignalConfig, compute
from modbot.stages.configs import NSFW_GROUP, read_signal_config
from modbot.stages.hashlists import HashLists, load_hashlists
from modbot.stages.judge import RulesJudge, Signals
from modbot.words import counted

OPEN_NSFW = "open_nsfw"
OPEN_NSFW_SEES = Capabilities(tags=False, ratings=frozenset({"general", "explicit"}))
"""The small tagger gives two ratings and no tags."""

SHOWN_ISSUES = 5

_open: WeakValueDictionary[int, Rulebook] = WeakValueDictionary()
"""The rulebooks of this process."""


@dataclass(frozen=True, kw_only=True)
class ModeRequest:
    """What was said about the mode, apart from the file: the flags and the environment. `name` is the flag's."""

    lock: Mode | None = None
    flag: Mode | None = None
    environment: Mode | None = None
    name: str = "--dsl-mode"

    def settle(self, own: Mode | None) -> tuple[Mode, str]:
        """The mode and the source that won; `own` is the file's `dsl_mode`."""
        sources: tuple[tuple[Mode | None, str], ...] = (
            (self.lock, "--lock-mode"),
            (self.flag, self.name),
            (self.environment, "MODBOT_DSL_MODE"),
            (own, "the file's dsl_mode"),
        )
        return next(((mode, source) for mode, source in sources if mode is not None), ("warn", "the default"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Rulebook:
    """A rules file that was read, whatever came of it.

    A process that was forked since has it as well: to there it goes as its number.
    """

    path: Path
    mode_source: str
    loaded: Loaded
    lists: HashLists
    signals: SignalConfig

    def __post_init__(self) -> None:
        _open[id(self)] = self

    def __reduce__(self) -> tuple[Callable[[int], Rulebook], tuple[int]]:
        return _opened, (id(self),)

    @property
    def mode(self) -> Mode:
        return self.loaded.mode

    @property
    def ruleset(self) -> RuleSet:
        """The rules that run.

        Raises:
            RulesError: there are none; the message holds the first issues, or the way out of a legacy file.
        """
        if self.loaded.ruleset is not None:
            return self.loaded.ruleset
        if self.loaded.legacy:
            raise RulesError(
                "a legacy rules file (not `version: 2`) cannot judge",
                where=str(self.path),
                remedy=(
                    "Rewrite it as version 2, or go on without judging: "
                    "scan --allow-legacy --fallback green (or skip), ab --allow-legacy."
                ),
            )
        errors = [issue for issue in self.loaded.issues if issue.level == "error"]
        if errors[0].code == "R2-IO":
            raise RulesError(errors[0].message, where=str(self.path), remedy="Name the rules file with its flag.")
        more = f"\n… and {len(errors) - SHOWN_ISSUES} more" if len(errors) > SHOWN_ISSUES else ""
        raise RulesError(
            f"the rules cannot be run\n{render(errors[:SHOWN_ISSUES]).rstrip()}{more}",
            where=str(self.path),
            remedy=f"Check it with: modbot rules validate --rules {self.path}",
        )

    @property
    def banner(self) -> str:
        """One line: the file, its digest, the mode and which source won."""
        count = "no rules" if self.loaded.ruleset is None else counted(len(self.loaded.ruleset.rules), "rule")
        mode = f"mode {self.mode} (from {self.mode_source})"
        return f"rules: {self.path} (sha256 {self.loaded.digest[:12]}, {count}), {mode}"

    @property
    def shown(self) -> dict[str, Any]:
        """As `--print-config` and the metrics tell it."""
        return {
            "file": str(self.path),
            "digest": self.loaded.digest,
            "mode": self.mode,
            "mode_source": self.mode_source,
            "status": self.loaded.status,
            "rules": 0 if self.loaded.ruleset is None else len(self.loaded.ruleset.rules),
        }

    def account(self, models: Collection[str]) -> dict[str, Any]:
        """What the metrics say of the rules after a run over records of these taggers.

        `evaluation_issues`: rule or feature -> kind -> count; `unmatchable`: the rules that cannot match what the
        small tagger sees, where it was used.
        """
        ruleset = self.loaded.ruleset
        if ruleset is None:
            return {**self.shown, "evaluation_issues": {}, "unmatchable": []}
        blind = OPEN_NSFW in models
        return {
            **self.shown,
            "evaluation_issues": ruleset.issue_counts(),
            "unmatchable": ruleset.unmatchable(OPEN_NSFW_SEES) if blind else [],
        }

    def judge(self, unjudged: Severity, lists: HashLists | None = None) -> RulesJudge:
        """What judges by these rules, for one run: `account` counts from here. Raises RulesError where none run.

        `lists`: other hash lists than those that were read.
        """
        self.ruleset.forget_issues()
        group = self.ruleset.groups.get(NSFW_GROUP, Group(()))
        signals = signals_of(group, self.signals)
        return RulesJudge(self.ruleset, unjudged=unjudged, lists=lists or self.lists, signals=signals)


def _opened(number: int) -> Rulebook:
    return _open[number]


def unmatchable_under(models: Collection[str], rules: Path | None) -> list[str]:
    """The rules (of the file by name, else the default one) that cannot match what these taggers see.

    None where there is no such file, or where no rule of it runs: the scan says why.
    """
    if OPEN_NSFW not in models:
        return []
    unmatchable: list[str] = open_rulebook(rules or RULES_FILE, ModeRequest()).account(models)["unmatchable"]
    return unmatchable


def open_rulebook(
    path: Path,
    modes: ModeRequest,
    *,
    consts: Mapping[str, float] | None = None,
    hashlists: Path = HASHLISTS_FILE,
    xsignals: Path = XSIGNALS_FILE,
    tags: Collection[str] | None = None,
) -> Rulebook:
    """Reads a rules file, the hash lists and the signals' settings (the latter two: where they exist).

    `tags`: those that a tagger has (normalised), where the issues are to tell of others.

    Raises:
        InputError: the hash lists or the signals' settings cannot be used. What is wrong with the rules file is told
            by the rulebook's issues.
    """
    lists = load_hashlists(hashlists)
    signals = read_signal_config(xsignals)
    text, unread = None, ""
    try:
        text = read_at_most(path, MAX_BYTES + 1)
    except OSError as error:
        unread = error.strerror or str(error)
    mode, mode_source = modes.settle(None if text is None else file_mode(text))
    if text is None:
        loaded = unreadable(str(path), unread, mode=mode)
    else:
        loaded = load_rules(text, file=str(path), mode=mode, consts=consts or {}, lists=lists.lists.keys(), tags=tags)
    return Rulebook(path=path, mode_source=mode_source, loaded=loaded, lists=lists, signals=signals)


def signals_of(nsfw_group: Group, config: SignalConfig) -> Signals:
    """What computes the seven signals of a record."""

    def signals(evidence: Evidence, tags: Mapping[str, float]) -> Mapping[str, float]:
        rating = Rating(**{name: evidence.rating.get(name, 0.0) for name in RATINGS})
        image = evidence.image
        width, height = (image.width, image.height) if image is not None else (0, 0)
        found = compute(rating, tags, evidence.detections, width, height, nsfw_group, config)
        return {name: getattr(found, name) for name in XSignals.__struct_fields__}

    return signals
