"""What the tests of the rules language share: small rule sets, and facts to judge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modbot.rules import Facts, Loaded, Mode, RuleSet, load_rules

GROUPS = {"minors": ["loli", "shota", "*_child"], "gore": ["blood", "guro"], "none": []}


def document(rules: Sequence[Mapping[str, Any]], **top: Any) -> bytes:  # noqa: ANN401 - YAML of any shape
    """A rules file (JSON is YAML), with titles for all its rules and the groups above unless others are given."""
    titles = {rule["id"]: "title" for rule in rules if isinstance(rule.get("id"), str)}
    content = {"version": 2, "rule_titles": titles, "groups": GROUPS, "rules": rules, **top}
    return json.dumps(content, ensure_ascii=False).encode()


def load(rules: Sequence[Mapping[str, Any]], *, mode: Mode | None = None, **top: Any) -> Loaded:  # noqa: ANN401 - as above
    return load_rules(document(rules, **top), file="rules.yaml", mode=mode)


def ruleset(rules: Sequence[Mapping[str, Any]], *, mode: Mode | None = None, **top: Any) -> RuleSet:  # noqa: ANN401 - as above
    loaded = load(rules, mode=mode, **top)
    assert loaded.ruleset is not None, loaded.issues
    return loaded.ruleset


def value(expression: str, facts: Facts | None = None, **top: Any) -> float:  # noqa: ANN401 - as above
    """What the expression is worth in `warn`, as a feature's value."""
    features = {**top.pop("features", {}), "x": expression}
    rules = ruleset([{"id": "a", "severity": "red", "when": "x > 0"}], features=features, **top)
    return rules.judge(facts or Facts()).features["x"]


def matches(expression: str, facts: Facts | None = None, **top: Any) -> bool:  # noqa: ANN401 - as above
    """Whether a rule with that `when` matches in `warn`."""
    rules = ruleset([{"id": "a", "severity": "red", "when": expression}], **top)
    return rules.judge(facts or Facts()).rule_id == "a"


def codes(loaded: Loaded) -> list[tuple[str, str]]:
    return [(issue.code, issue.level) for issue in loaded.issues]
