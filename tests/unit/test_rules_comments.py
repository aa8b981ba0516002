"""What a `#` takes from an expression is told where a person may not have meant it, and only there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.rules import Issue, Loaded, load_rules
from modbot.rules.comments import CODE

FILE = "version: 2\nrule_titles: {{a: A}}\nrules:\n  - id: a\n    severity: red\n    when: {when}\n"


def load(when: str) -> Loaded:
    return load_rules(FILE.format(when=when).encode(), file="rules.yaml")


def told(loaded: Loaded) -> list[Issue]:
    return [issue for issue in loaded.issues if issue.code == CODE]


@pytest.mark.parametrize(
    "comment",
    ["# adults", "# nude or bathing", "# and so on", "# not adult", "# see-through", "# was > 0.5", "# (adults)", "#"],
)
def test_a_remark_is_a_remark(comment: str) -> None:
    assert load(f"rating.explicit > 0.5 {comment}").issues == ()
    assert load(f">-\n      rating.explicit > 0.5 {comment}").issues == ()


@pytest.mark.parametrize(
    "comment",
    [
        "#sensitive && x",
        "# && x",
        "# || x > 0.5",
        "# and rating.explicit > 0.5",
        "# or max(minors)",
        "# and !channel.is_nsfw",
    ],
)
def test_what_reads_like_the_rest_of_the_expression_is_told(comment: str) -> None:
    loaded = load(f"rating.explicit > 0.5 {comment}")
    (issue,) = told(loaded)
    assert (loaded.status, issue.level) == ("ok", "warning")
    assert issue.excerpt.endswith(f"{' ' * 32}{'^' * len(comment)}")


def test_it_is_a_warning_in_strict_mode_too() -> None:
    loaded = load_rules(FILE.format(when="rating.explicit > 0.5 # && x").encode(), file="rules.yaml", mode="strict")
    assert loaded.status == "ok"
    assert told(loaded)


def test_a_clause_that_is_commented_out_on_its_own_line_is_meant_so() -> None:
    assert load(">-\n      rating.explicit > 0.5\n      # && rating.sensitive > 0.5\n      # || x").issues == ()
    assert load("rating.explicit > 0.5\n    # && rating.sensitive > 0.5").issues == ()


def test_a_number_sign_in_quotes_is_none() -> None:
    assert load("'score(\"a # && b\") > 0.5'").issues == ()


line = st.tuples(
    st.sampled_from(["rating.explicit > 0.5", "rating.sensitive > 0.25", "(attachment_count > 1)"]),
    st.sampled_from(["", "", " # adults", " # see there", " #"]),
)
lines = st.lists(line, min_size=1, max_size=5)


@given(lines, st.sampled_from(["&&", "or"]))
def test_where_folding_changes_an_expression_it_is_told(parts: list[tuple[str, str]], operator: str) -> None:
    indent = "\n      "
    text = indent + indent.join(
        f"{f'{operator} ' if number else ''}{part}{remark}" for number, (part, remark) in enumerate(parts)
    )
    bar, folded = load(f"|{text}"), load(f">-{text}")
    assert bar.ruleset is not None
    assert folded.ruleset is not None
    assert bar.issues == ()
    assert bool(told(folded)) == (bar.ruleset.rules[0].when != folded.ruleset.rules[0].when)
