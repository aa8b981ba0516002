"""The expression language's text: tokens, the tree they make, and the tree as text again.

Operators, loosest first: `or` `||`; `and` `&&`; `not` `!`; comparisons (chained); `+` `-`; `*` `/`; unary `+` `-`;
calls, attributes, literals, parentheses.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from modbot.rules.issues import Span, did_you_mean

MAX_LENGTH = 20_000
MAX_DEPTH = 20
MAX_DIGITS = 100
EXACT = 2**53
"""Whole numbers up to here stay whole; larger ones are kept as floats, whose products have a bounded length."""
MAX_OPERANDS = 200
"""How many operands one run of `+`, `-`, `*`, `/` or one comparison chains."""


class ExpressionError(Exception):
    """An expression that is not in the language: the span (in the expression), what is wrong, the way out."""

    def __init__(self, span: Span, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.span = span
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Literally:
    """A number, `True`, `False`, or a text in quotes."""

    value: float | str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Name:
    """`minors_peak`, or with an owner `rating.explicit`."""

    name: str
    span: Span = field(compare=False)
    owner: str | None = None

    @property
    def dotted(self) -> str:
        return f"{self.owner}.{self.name}" if self.owner else self.name


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a call; `name` is None for a positional one."""

    value: Expression
    name: str | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """`max(minors)`, `nude.has("FACE_FEMALE")`."""

    function: Name
    arguments: tuple[Argument, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Unary:
    """`not x`, `-x`, `+x`."""

    operator: Literal["not", "-", "+"]
    operand: Expression
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """`a + b - c`, `a * b / c`, `a < b <= c`: operands of one level and the operators between them, left to right."""

    operands: tuple[Expression, ...]
    operators: tuple[str, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Logic:
    """`a and b and c`, `a or b`."""

    operator: Literal["and", "or"]
    operands: tuple[Expression, ...]
    span: Span = field(compare=False)


Expression: TypeAlias = Literally | Name | Call | Unary | Chain | Logic

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
SUMS = ("+", "-")
PRODUCTS = ("*", "/")


class Token(NamedTuple):
    """A piece of an expression; `kind` is `number`, `text`, `name`, `op` or `end`."""

    kind: str
    text: str
    span: Span


_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
      | (?P<number>(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?)
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<name>[^\W\d]\w*)
      | (?P<op>\|\||&&|[=!<>]=|\*\*|//|<<|>>|:=|\S)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"\#[^\n]*")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "\n": ""}
_SPELLINGS = {"||": "or", "&&": "and", "!": "not"}

_KEYWORDS = {"and", "or", "not", "True", "False", "true", "false"}
_FOREIGN = {
    "**": "powers are",
    "//": "whole-number division is",
    "%": "remainders are",
    "&": "bit operators are",
    "|": "bit operators are",
    "^": "bit operators are",
    "~": "bit operators are",
    "<<": "bit operators are",
    ">>": "bit operators are",
    "[": "lists and subscripts are",
    "]": "lists and subscripts are",
    "{": "dicts and sets are",
    "}": "dicts and sets are",
    ":=": "assignments are",
    "=": "assignments are",
    "in": "`in` is",
    "is": "`is` is",
    "if": "conditionals are",
    "else": "conditionals are",
    "for": "comprehensions are",
    "lambda": "lambdas are",
    "await": "`await` is",
    "async": "`async` is",
    "yield": "`yield` is",
}
_FOREIGN_HINTS = {
    "=": "compare with `==`",
    "&": "write `&&` or `and`",
    "|": "write `||` or `or`",
    "is": "compare with `==`",
    "in": "put the tags in a group and use `any(group)`",
    "if": "use `and` / `or`, or two rules",
    "[": "put the tags in a group",
}


def tokens(text: str) -> Iterator[Token]:
    """The tokens of an expression, `end` last. Raises `ExpressionError`."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            Span(0, len(text)), f"the expression has more than {MAX_LENGTH} characters", "split it with features"
        )
    before = ""
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup or ""
        span = Span(*found.span())
        _refuse_glued(before, kind, found.group(), span)
        before = kind
        if kind != "space":
            yield Token(kind, found.group(), span)
    yield Token("end", "", Span(len(text), len(text)))


def comments(text: str) -> Iterator[Span]:
    """The comments of an expression, from `#` to the end of the line: what reads as none of it."""
    for space in _TOKEN.finditer(text):
        if space.lastgroup == "space":
            yield from (Span(*found.span()) for found in _COMMENT.finditer(text, *space.span()))


def _refuse_glued(before: str, kind: str, text: str, span: Span) -> None:
    if before == "number" and kind in {"name", "number"}:
        hint = "numbers are written like 0.35, 12 or 1e-3; a tag that begins with a digit needs quotes"
        raise ExpressionError(span, "a number ends in letters", hint)
    if before == "name" and kind == "text":
        raise ExpressionError(span, "a text with a prefix (f, r, b) is not in the language", "write plain quotes")
    if kind == "op" and text in "\"'":
        raise ExpressionError(span, "the quote is not closed", f"add the closing {text}")


def parse(text: str) -> Expression:
    """The tree of an expression. Raises `ExpressionError` for whatever is not in the language."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(tokens(text))
        self._next = 0
        self._depth = 0

    def whole(self) -> Expression:
        if self._peek().kind == "end":
            raise ExpressionError(self._peek().span, "the expression is empty")
        node = self._or()
        if self._peek().kind != "end":
            raise self._unexpected("an operator or the end")
        return node

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _operator(self) -> str:
        token = self._peek()
        return _SPELLINGS.get(token.text, token.text) if token.kind in {"op", "name"} else ""

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def _expect(self, text: str, what: str) -> Token:
        if self._operator() != text:
            raise self._unexpected(what)
        return self._take()

    def _or(self) -> Expression:
        return self._logic("or")

    def _logic(self, operator: Literal["and", "or"]) -> Expression:
        part = self._not if operator == "and" else lambda: self._logic("and")
        operands = [part()]
        while self._operator() == operator:
            self._take()
            operands.append(part())
        return operands[0] if len(operands) == 1 else Logic(operator, tuple(operands), _around(operands))

    def _not(self) -> Expression:
        if self._operator() != "not":
            return self._chain((COMPARISONS, SUMS, PRODUCTS))
        start = self._take().span.start
        operand = self._nested(self._not)
        return Unary("not", operand, Span(start, operand.span.end))

    def _chain(self, levels: tuple[tuple[str, ...], ...]) -> Expression:
        if not levels:
            return self._sign()
        operands, operators = [self._chain(levels[1:])], []
        while self._operator() in levels[0]:
            operators.append(self._take().text)
            operands.append(self._chain(levels[1:]))
        if not operators:
            return operands[0]
        span = _around(operands)
        if len(operands) > MAX_OPERANDS:
            raise ExpressionError(span, f"more than {MAX_OPERANDS} operands in a row", "split it with features")
        return Chain(tuple(operands), tuple(operators), span)

    def _sign(self) -> Expression:
        operator = self._operator()
        if operator not in {"+", "-"}:
            return self._primary()
        start = self._take().span.start
        operand = self._nested(self._sign)
        return Unary("-" if operator == "-" else "+", operand, Span(start, operand.span.end))

    def _primary(self) -> Expression:
        token = self._peek()
        if token.kind == "number":
            return self._closed(Literally(_number(self._take()), token.span))
        if token.kind == "text":
            return self._closed(Literally(_unquote(self._take().text), token.span))
        if token.kind == "name" and token.text in {"True", "true", "False", "false"}:
            return self._closed(Literally(self._take().text in {"True", "true"}, token.span))
        if token.kind == "name" and token.text not in _KEYWORDS and token.text not in _FOREIGN:
            return self._named()
        if token.text == "(":
            return self._closed(self._parenthesis())
        raise self._unexpected("a value")

    def _parenthesis(self) -> Expression:
        self._take()
        if self._operator() == ")":
            raise ExpressionError(self._peek().span, "tuples are not in the language: `()` holds nothing")
        node = self._nested(self._or)
        if self._operator() == ",":
            raise ExpressionError(self._peek().span, "tuples are not in the language")
        self._expect(")", "`)`")
        return node

    def _named(self) -> Expression:
        name = self._name(self._take())
        if self._operator() == ".":
            self._take()
            if self._peek().kind != "name":
                raise self._unexpected("a name after `.`")
            last = self._take()
            name = Name(self._name(last).name, Span(name.span.start, last.span.end), name.name)
        if self._operator() != "(":
            return self._closed(name)
        return self._closed(self._call(name))

    def _name(self, token: Token) -> Name:
        name = unicodedata.normalize("NFKC", token.text)
        if name.startswith("__"):
            raise ExpressionError(token.span, "names that start with `__` are not in the language")
        if not name.isidentifier():  # as `¼`, which is a letter to `\w`
            raise ExpressionError(token.span, f"`{token.text}` is no name", "names are letters, digits and `_`")
        return Name(name, token.span)

    def _call(self, function: Name) -> Call:
        self._take()
        arguments: list[Argument] = []
        while self._operator() != ")":
            if arguments:
                self._expect(",", "`,` or `)`")
                if self._operator() == ")":
                    break
            arguments.append(self._argument())
        end = self._take().span.end
        return Call(function, tuple(arguments), Span(function.span.start, end))

    def _argument(self) -> Argument:
        if self._operator() in {"*", "**"}:
            raise ExpressionError(self._peek().span, "star arguments are not in the language")
        start = self._peek().span.start
        name = None
        if self._peek().kind == "name" and self._tokens[self._next + 1].text == "=":
            name = self._take().text
            self._take()
        value = self._nested(self._or)
        return Argument(value, name, Span(start, value.span.end))

    def _closed(self, node: Expression) -> Expression:
        """A finished operand: what would go on with it is not in the language."""
        operator = self._operator()
        if operator == ".":
            raise ExpressionError(self._peek().span, "chained attributes are not in the language")
        if operator == "(":
            raise ExpressionError(self._peek().span, "only a named function can be called")
        if operator == "[":
            raise ExpressionError(self._peek().span, "subscripts are not in the language")
        return node

    def _nested(self, part: Callable[[], Expression]) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(
                self._peek().span, f"the expression is nested more than {MAX_DEPTH} deep", "split it with features"
            )
        node = part()
        self._depth -= 1
        return node

    def _unexpected(self, expected: str) -> ExpressionError:
        token = self._peek()
        if token.kind == "end":
            return ExpressionError(token.span, f"the expression ends where {expected} should be")
        if token.text in _FOREIGN:
            return ExpressionError(
                token.span, f"{_FOREIGN[token.text]} not in the language", _FOREIGN_HINTS.get(token.text)
            )
        hint = did_you_mean(token.text.lower(), ("and", "or", "not")) if token.kind == "name" else None
        if self._operator() == "not":
            hint = "`!` binds looser than a comparison: put it in parentheses"
        return ExpressionError(token.span, f"`{token.text}` where {expected} should be", hint)


def _around(operands: list[Expression]) -> Span:
    return Span(operands[0].span.start, operands[-1].span.end)


def _number(token: Token) -> float:
    text = token.text
    try:
        value = float(text) if set(text) & set(".eE") or len(text) > MAX_DIGITS else int(text)
    except ValueError:
        raise ExpressionError(token.span, "this is no number", "numbers are written like 0.35, 12 or 1e-3") from None
    if abs(value) <= EXACT:
        return value
    if math.isinf(value):
        raise ExpressionError(token.span, "the number is too large", "scores lie between 0 and 1")
    return float(value)


def _unquote(text: str) -> str:
    return _ESCAPE.sub(_unescape, text[1:-1])


def _unescape(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    if not code:
        return _ESCAPED.get(found[3], found[3])
    char = chr(int(code, 16))
    return "\N{REPLACEMENT CHARACTER}" if "\ud800" <= char <= "\udfff" else char


def unparse(node: Expression) -> str:
    """The expression as text: `parse(unparse(node)) == node`."""
    return _text(node, 0)


_LOGIC_LEVEL = {"or": 1, "and": 2}
_NOT, _COMPARE, _SUM, _PRODUCT, _SIGN, _ATOM = 3, 4, 5, 6, 7, 8


def _text(node: Expression, outer: int) -> str:
    level, text = _plain(node)
    return f"({text})" if level < outer else text


def _plain(node: Expression) -> tuple[int, str]:
    match node:
        case Literally(value=str(value)):
            return _ATOM, _quote(value)
        case Literally(value=value):
            return _ATOM, repr(value)
        case Name():
            return _ATOM, node.dotted
        case Call(function=function, arguments=arguments):
            inner = ", ".join((f"{a.name}=" if a.name else "") + _text(a.value, 0) for a in arguments)
            return _ATOM, f"{function.dotted}({inner})"
        case Unary(operator="not", operand=operand):
            return _NOT, f"not {_text(operand, _NOT)}"
        case Unary(operator=operator, operand=operand):
            return _SIGN, f"{operator}{_text(operand, _SIGN)}"
        case Logic(operator=operator, operands=operands):
            level = _LOGIC_LEVEL[operator]
            return level, f" {operator} ".join(_text(operand, level + 1) for operand in operands)
        case Chain(operands=operands, operators=operators):
            level = _COMPARE if operators[0] in COMPARISONS else _SUM if operators[0] in SUMS else _PRODUCT
            rest = (f" {op} {_text(operand, level + 1)}" for op, operand in zip(operators, operands[1:], strict=True))
            return level, _text(operands[0], level + 1) + "".join(rest)


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
