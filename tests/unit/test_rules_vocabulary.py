"""Tags in a rules file that the tagger does not have are remarked on where its tags are given."""

from __future__ import annotations

from modbot.rules import Loaded, load_rules

RULES = """version: 2
rule_titles: {a: A}
groups:
  minors: [child, Loli, "*_child", todler, "see-through"]
  gore: ["severed_*", "*_wound", beheading, "s?vered_head", 7]
  none:
rules:
  - {id: a, severity: red, when: score("toddler") + score(severed_leg) + max(minors) > max(gore)}
"""
TAGS = ("child", "female_child", "loli", "toddler", "severed_head", "see_through", "7")


def load(text: str, tags: tuple[str, ...] | None = TAGS) -> Loaded:
    return load_rules(text.encode(), file="rules.yaml", tags=tags)


def remarks(loaded: Loaded) -> list[tuple[int, str, str | None]]:
    return [(issue.line, issue.message, issue.hint) for issue in loaded.issues if issue.code == "R2-G002"]


def test_members_of_groups_and_single_tags_are_looked_up() -> None:
    loaded = load(RULES)
    assert remarks(loaded) == [
        (4, "the tagger has no tag `todler`", "did you mean `toddler`?"),
        (5, "no tag of the tagger matches `*_wound`", None),
        (5, "the tagger has no tag `beheading`", None),
        (8, "the tagger has no tag `severed_leg`", "did you mean `severed_head`?"),
    ]
    assert all(issue.level == "warning" for issue in loaded.issues)


def test_in_strict_mode_they_are_warnings_too() -> None:
    loaded = load_rules(RULES.encode(), file="rules.yaml", mode="strict", tags=TAGS)
    assert loaded.status == "ok"
    assert len(remarks(loaded)) == 4


def test_without_a_vocabulary_any_tag_may_be() -> None:
    assert remarks(load(RULES, None)) == []
    assert len(remarks(load(RULES, ()))) == 12


def test_what_is_wrong_with_the_groups_is_told_once() -> None:
    broken = RULES.replace("  none:", "  gore: {a: b}\n  gore: [x, [y]]")
    with_tags, without = load(broken), load(broken, None)
    others = [issue for issue in with_tags.issues if issue.code != "R2-G002"]
    assert others == list(without.issues)
