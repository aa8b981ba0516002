"""The configuration files that several steps read: the tag groups of the rules file, and the signals' numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from modbot.errors import InputError
from modbot.files.paths import RULES_FILE, XSIGNALS_FILE
from modbot.files.yaml_files import read_at_most, read_yaml
from modbot.records.tags import Group
from modbot.rules import MAX_BYTES, load_vocabulary
from modbot.rules.names import THRESHOLDS
from modbot.signals import SignalConfig

NSFW_GROUP = "nsfw_general"


class TagVocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """The tag groups as lists of patterns, the detector's gate, and the file that they are from (None: no file).

    `warnings`: what of them is malformed and left out, a line each.
    """

    groups: dict[str, tuple[str, ...]]
    thresholds: dict[str, float]
    source: str | None
    warnings: tuple[str, ...] = ()

    @property
    def nsfw_general(self) -> tuple[str, ...]:
        return self.groups.get(NSFW_GROUP, ())


def read_vocabulary(rules: Path | None, xsignals: Path = XSIGNALS_FILE) -> TagVocabulary:
    """The vocabulary of p1 and p2: the rules file's; `configs/xsignals.yaml`'s only if there is no rules file.

    `rules`: a file that was asked for by name, which must exist; None: `configs/rules.yaml`.

    Raises:
        RulesError, InputError: a file that cannot be read.
    """
    path = rules or RULES_FILE
    if path.exists() or rules is not None:
        vocabulary = load_vocabulary(_read(path), file=str(path))
        return TagVocabulary(
            groups={name: group.items for name, group in vocabulary.groups.items()},
            thresholds={name: vocabulary.thresholds[name] for name in THRESHOLDS},
            source=str(path),
            warnings=tuple(f"{path}:{issue.line}: {issue.message}" for issue in vocabulary.issues),
        )
    if not xsignals.exists():
        return TagVocabulary(groups={}, thresholds=THRESHOLDS, source=None)
    tags = _mapping(xsignals).get(NSFW_GROUP) or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InputError(f"{NSFW_GROUP} is no list of tags", where=str(xsignals), remedy="Write one tag a line.")
    return TagVocabulary(groups={NSFW_GROUP: Group(tags).items}, thresholds=THRESHOLDS, source=str(xsignals))


def read_signal_config(path: Path = XSIGNALS_FILE) -> SignalConfig:
    """The signals' numbers and lists; the defaults if there is no such file.

    Raises:
        InputError, SettingError: the file cannot be read, or says something that cannot be used.
    """
    return SignalConfig.from_mapping(_mapping(path), where=str(path)) if path.exists() else SignalConfig()


def _read(path: Path) -> bytes:
    try:
        return read_at_most(path, MAX_BYTES + 1)
    except OSError as error:
        remedy = "Name another with --rules-config."
        raise InputError(f"cannot be read ({error.strerror})", where=str(path), remedy=remedy) from None


def _mapping(path: Path) -> Mapping[str, Any]:
    content = read_yaml(path, MAX_BYTES)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError("no map of settings", where=str(path), remedy="Write `name: value` lines.")
    return content
