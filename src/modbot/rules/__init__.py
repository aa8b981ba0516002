"""The rules language: checked on loading, compiled once, told about with file, line and column.

`load_rules` is the only way to rules that can judge.
"""

from __future__ import annotations

from modbot.rules.bounds import Capabilities
from modbot.rules.document import MAX_BYTES
from modbot.rules.explain import Explainer, Explanation
from modbot.rules.facts import Facts, Verdict
from modbot.rules.issues import Issue, Related, render
from modbot.rules.load import Loaded, Vocabulary, file_mode, load_rules, load_vocabulary, unreadable
from modbot.rules.ruleset import Mode, RuleSet

__all__ = [
    "MAX_BYTES",
    "Capabilities",
    "Explainer",
    "Explanation",
    "Facts",
    "Issue",
    "Loaded",
    "Mode",
    "Related",
    "RuleSet",
    "Verdict",
    "Vocabulary",
    "file_mode",
    "load_rules",
    "load_vocabulary",
    "render",
    "unreadable",
]
