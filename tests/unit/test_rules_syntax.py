from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.rules.issues import Span
from modbot.rules.syntax import (
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_OPERANDS,
    Argument,
    Call,
    Chain,
    Expression,
    ExpressionError,
    Literally,
    Logic,
    Name,
    Unary,
    parse,
    unparse,
)

NOWHERE = Span(0, 0)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a or b and c", "a or (b and c)"),
        ("a and b or c and d", "(a and b) or (c and d)"),
        ("a || b && c", "a or b and c"),
        ("!a > b", "not (a > b)"),
        ("not a == b and c", "(not (a == b)) and c"),
        ("!a && b", "(not a) and b"),
        ("a + b > c * d", "(a + b) > (c * d)"),
        ("a - b - c", "(a - b) - c"),
        ("a + b * c / d - e", "a + ((b * c) / d) - e"),
        ("-a * b", "(-a) * b"),
        ("a*-b", "a * (-b)"),
        ("!!a", "not (not a)"),
        ("a||b", "a or b"),
        ("f(a,b,)", "f(a, b)"),
        ("\uff4dax(\uff41)", "max(a)"),  # full width
        ("a # the rest is silence", "a"),
        ("a\n  and b", "a and b"),
        (".5 < 5. and 1_000 > 1e-3", "0.5 < 5.0 and 1000 > 0.001"),
        ("true or False", "True or False"),
    ],
)
def test_what_binds_how(text: str, same: str) -> None:
    left, right = parse(text), parse(same)
    # A parenthesised run of one level is a node of its own: compare by meaning, which is the plain text.
    assert flat(left) == flat(right)


def flat(node: Expression) -> str:
    """The tree with every operand in parentheses, runs of `+ -` and `* /` folded to the left."""
    match node:
        case Chain(operands=operands, operators=operators) if operators[0] in {"+", "-", "*", "/"}:
            text = flat(operands[0])
            for operator, operand in zip(operators, operands[1:], strict=True):
                text = f"({text} {operator} {flat(operand)})"
            return text
        case Chain(operands=operands, operators=operators):
            rest = "".join(f" {op} {flat(operand)}" for op, operand in zip(operators, operands[1:], strict=True))
            return f"({flat(operands[0])}{rest})"
        case Logic(operator=operator, operands=operands):
            return f"({f' {operator} '.join(map(flat, operands))})"
        case Unary(operator=operator, operand=operand):
            return f"({operator} {flat(operand)})"
        case Call(function=function, arguments=arguments):
            return f"{function.dotted}({', '.join(f'{a.name}={flat(a.value)}' for a in arguments)})"
        case _:
            return unparse(node)


def test_a_comparison_is_chained_and_keeps_its_operators() -> None:
    node = parse("0 < a <= b != c")
    assert isinstance(node, Chain)
    assert node.operators == ("<", "<=", "!=")
    assert len(node.operands) == 4


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ('"a || b"', "a || b"),
        ("'!x && y'", "!x && y"),
        (r'"\"quoted\""', '"quoted"'),
        (r"'it\'s \\ \n \t あ \u3042'", "it's \\ \n \t あ あ"),
        ('"# no comment"', "# no comment"),
        (r'"\ud800"', "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_quotes_protect_what_they_hold(text: str, held: str) -> None:
    assert parse(text) == Literally(held, NOWHERE)


@pytest.mark.parametrize(
    ("text", "start", "end", "told"),
    [
        ("", 0, 0, "empty"),
        ("a ** b", 2, 4, "powers"),
        ("a % b", 2, 3, "remainders"),
        ("a // b", 2, 4, "whole-number division"),
        ("a & b", 2, 3, "bit operators"),
        ("~a", 0, 1, "bit operators"),
        ("a << b", 2, 4, "bit operators"),
        ("a in b", 2, 4, "`in`"),
        ("a is b", 2, 4, "`is`"),
        ("a if b else c", 2, 4, "conditionals"),
        ("lambda: a", 0, 6, "lambdas"),
        ("max(x for x in y)", 6, 9, "comprehensions"),
        ("a[0]", 1, 2, "subscripts"),
        ("[a]", 0, 1, "lists"),
        ("(a, b)", 2, 3, "tuples"),
        ("()", 1, 2, "tuples"),
        ("{a}", 0, 1, "dicts"),
        ('f"{a}"', 1, 6, "prefix"),
        ("a = b", 2, 3, "assignments"),
        ("(a := b)", 3, 5, "assignments"),
        ("max(*a)", 4, 5, "star arguments"),
        ("max(**a)", 4, 6, "star arguments"),
        ("a.b.c", 3, 4, "chained attributes"),
        ("max(a).b", 6, 7, "chained attributes"),
        ("(a).b", 3, 4, "chained attributes"),
        ("__import__", 0, 10, "`__`"),
        ("a.__class__", 2, 11, "`__`"),
        ("max(a)(b)", 6, 7, "named function"),
        ("1(a)", 1, 2, "named function"),
        ("a b", 2, 3, "`b` where an operator"),
        ("a annd b", 2, 6, "`annd`"),
        ("a > !b", 4, 5, "`!` where a value"),
        ("a +", 3, 3, "ends where a value"),
        ("(a", 2, 2, "ends where `)`"),
        ("max(a", 5, 5, "ends where `,` or `)`"),
        ("a)", 1, 2, "`)` where an operator"),
        ("'open", 0, 1, "not closed"),
        ("0x1F", 1, 4, "ends in letters"),
        ("1__0", 0, 4, "no number"),
        ("1e999", 0, 5, "too large"),
        ("あ \uff0b い", 2, 3, "`\uff0b`"),
        ("rating.", 7, 7, "a name after `.`"),
        ("a; b", 1, 2, "`;`"),
        ("a\x00", 1, 2, "where an operator"),
        ("a + ¼b", 4, 6, "`¼b` is no name"),
    ],
)
def test_what_is_not_in_the_language_is_refused_where_it_stands(text: str, start: int, end: int, told: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        parse(text)
    assert refused.value.span == Span(start, end)
    assert told in refused.value.message


def test_spans_count_characters_from_start_to_end() -> None:
    node = parse("あい and max( loli ) > 0.5")
    assert isinstance(node, Logic)
    name, comparison = node.operands
    assert name.span == Span(0, 2)
    assert comparison.span == Span(7, 24)
    assert isinstance(comparison, Chain)
    assert comparison.operands[0].span == Span(7, 18)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 30_000,
        "(" * (MAX_LENGTH // 2),
        "!" * (MAX_LENGTH - 1) + "a",
        "-" * (MAX_LENGTH - 1) + "a",
        "max(" * (MAX_LENGTH // 4),
        "+".join("a" * (MAX_LENGTH // 2)),
        "<".join("a" * (MAX_LENGTH // 2)),
        "'" + "\\" * (MAX_LENGTH - 2),
        "1" * (MAX_LENGTH - 2) + "x",
        "1_" * (MAX_LENGTH // 2),
    ],
)
def test_a_hostile_expression_is_refused_soon(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ExpressionError):
        parse(text)
    assert time.process_time() - started < 2


def test_the_bounds_leave_room() -> None:
    parse("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH)
    parse(" + ".join("a" * MAX_OPERANDS))
    parse(" or ".join(["a > 1"] * 2000))


@given(st.text("ab.()!&|<>=+-*/ \"'01e,_#あ", max_size=40))
def test_any_text_is_parsed_or_refused_within_its_span(text: str) -> None:
    result = parsed(text)
    assert 0 <= result.span.start <= result.span.end <= len(text)
    if not isinstance(result, ExpressionError):
        assert parse(unparse(result)) == result


def parsed(text: str) -> Expression | ExpressionError:
    try:
        return parse(text)
    except ExpressionError as refused:
        return refused


names = st.sampled_from(["a", "minors_peak", "子供", "x1"])
plain_names = st.builds(Name, names, st.just(NOWHERE), st.sampled_from([None, "rating", "metrics"]))
literals = st.builds(
    Literally,
    st.one_of(st.booleans(), st.integers(0, 2**53), st.floats(0, 1e300), st.text(max_size=6)).filter(
        lambda v: not isinstance(v, str) or v.isprintable() or v in {"\n", "\r"}
    ),
    st.just(NOWHERE),
)


def compound(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    def chain(operators: list[str]) -> st.SearchStrategy[Expression]:
        return st.lists(inner, min_size=2, max_size=4).flatmap(
            lambda operands: st.lists(
                st.sampled_from(operators), min_size=len(operands) - 1, max_size=len(operands) - 1
            ).map(lambda ops: Chain(tuple(operands), tuple(ops), NOWHERE))
        )

    arguments = st.lists(
        st.builds(Argument, inner, st.sampled_from([None, "gt", "k"]), st.just(NOWHERE)), max_size=3
    ).map(tuple)
    return st.one_of(
        st.builds(Unary, st.sampled_from(["not", "-", "+"]), inner, st.just(NOWHERE)),
        st.builds(
            Logic, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3).map(tuple), st.just(NOWHERE)
        ),
        chain(["+", "-"]),
        chain(["*", "/"]),
        chain(["==", "!=", "<", "<=", ">", ">="]),
        st.builds(Call, plain_names, arguments, st.just(NOWHERE)),
    )


@given(st.recursive(st.one_of(literals, plain_names), compound, max_leaves=12))
def test_parsing_what_was_rendered_gives_the_same_tree(node: Expression) -> None:
    assert parse(unparse(node)) == node
