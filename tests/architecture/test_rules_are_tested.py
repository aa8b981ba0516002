"""Every rule that comes with the project has a test where it decides, and one that it misses by a little."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from modbot.rules.explain import ExplainedRule
from modbot.stages.rule_tests import RanTests, run_tests
from modbot.stages.rulebook import ModeRequest, Rulebook, open_rulebook

CONFIGS = Path(__file__).parents[2] / "configs"
NEAR = 0.25
"""How much a rule may lack that all but matches: see `modbot.rules.distance`."""


@cache
def book(name: str = "rules.yaml") -> Rulebook:
    return open_rulebook(
        CONFIGS / name,
        ModeRequest(flag="strict"),
        hashlists=CONFIGS / "hashlists.yaml",
        xsignals=CONFIGS / "xsignals.yaml",
    )


@cache
def ran(name: str = "rules.yaml") -> RanTests:
    return run_tests(book(name))


def explained(rule_id: str) -> list[ExplainedRule]:
    explanations = (result.explained.explanation for result in ran().results)
    return [rule for each in explanations if each is not None for rule in each.rules if rule.id == rule_id]


RULES = [rule.id for rule in book().ruleset.rules]


@pytest.mark.parametrize("name", ["rules.yaml", "rules_candidate.yaml"])
def test_the_tests_of_the_file_pass(name: str) -> None:
    assert book(name).loaded.issues == ()
    assert ran(name).is_good
    assert len(ran(name).results) >= 2 * len(book(name).ruleset.rules)


@pytest.mark.parametrize("rule_id", RULES)
def test_a_rule_has_a_test_where_it_decides(rule_id: str) -> None:
    assert any(rule.won for rule in explained(rule_id))


@pytest.mark.parametrize("rule_id", RULES)
def test_a_rule_has_a_test_that_it_misses_by_a_little(rule_id: str) -> None:
    missed = [rule.distance for rule in explained(rule_id) if rule.distance is not None]
    assert min(missed, default=1.0) <= NEAR
