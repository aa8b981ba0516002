"""The YAML of a rules file as nodes with their place in the text. Nothing of it is constructed but plain scalars."""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

from modbot.rules.issues import Source, Span

MAX_BYTES = 2 * 1024 * 1024
"""A larger rules file is refused; those who read files need not read on behind it."""
MAX_NODES = 200_000
"""A rules file of more keys and values is refused: each is an object of some 700 bytes."""
MAX_NESTING = 50
MAX_NUMBER = 1_000
"""Characters of a number: YAML also writes them in base 60, of which a long one takes minutes to work out."""
MAX_EXPANDED = MAX_BYTES
"""How many characters and nodes a file may hold with each alias written out."""

Node = yaml.nodes.Node
Scalar = yaml.nodes.ScalarNode
Sequence = yaml.nodes.SequenceNode
Mapping = yaml.nodes.MappingNode

_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_PREFIX = "tag:yaml.org,2002:"
_KINDS = {
    "str": "text",
    "int": "a number",
    "float": "a number",
    "bool": "true/false",
    "null": "nothing",
    "timestamp": "a date",
}
_NO_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SEPARATORS = ",[{-:?\n"
"""Every node of a document but the first has at least one of these before it."""
_HINTS = {
    "mapping values are not allowed in this context": "a text that holds `: ` needs quotes around the whole of it",
    "mapping keys are not allowed in this context": "a text that begins with `?` needs quotes around the whole of it",
    "found character that cannot start any token": "a text that begins with it needs quotes around the whole of it",
    "did not find expected alphabetic or numeric character": "a text that begins with `&`, `*` or `!` needs quotes "
    "around the whole of it",
    "found undefined alias": "a text that begins with `*` needs quotes around the whole of it",
    "did not find expected key": "either the indentation is wrong, or a text needs quotes around the whole of it",
    "did not find expected '-' indicator": "either the indentation is wrong, or a text needs quotes around the whole "
    "of it",
    "could not find expected ':'": "a key ends in `: `, with the space",
    "did not find expected comment or line break": "the text after `|` or `>` begins on the next line",
    "did not find expected ',' or ']'": "close the list with `]`, or put quotes around the whole of a text",
    "did not find expected ',' or '}'": "close the map with `}`, or put quotes around the whole of a text",
    "but found another document": "a rules file is one document: remove the `---`",
}
"""The parser's words for what is wrong -> the way out."""
_JOINT = r"(?:&&|\|\||\band\b|\bor\b)"
_JOINT_AND_COMMENT = re.compile(rf"{_JOINT}[ \t]+\#")
_BEHIND_COMMENT = re.compile(rf"[ \t]*{_JOINT}")
_REMARK = re.compile(r"(?:^|[ \t])\#")
_COMMENT = "the comment above ended the text: write a long expression below `|`, where a comment ends with its line"
_TAB = "YAML indents with spaces, never with tabs"
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\r\n|.)", re.DOTALL)


class DocumentError(Exception):
    """A text that is no YAML document: why, where (None: the whole), where what is broken began, and the way out."""

    def __init__(
        self, message: str, span: Span | None = None, *, began: Span | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.span = span
        self.began = began
        self.hint = hint


def decode(data: bytes) -> str:
    """The file's text: UTF-8, with or without a byte order mark. Raises `DocumentError`."""
    if len(data) > MAX_BYTES:
        raise DocumentError(f"the file is larger than {MAX_BYTES // 1024**2} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = len(data[: error.start].decode("utf-8-sig"))
        message = f"the file is not UTF-8 (byte {error.start})"
        raise DocumentError(message, Span(at, at + 1), hint=_save_as_utf8(data)) from None
    if found := _NO_YAML.search(text):
        message = f"the character U+{ord(found[0]):04X} is not allowed in YAML"
        hint = _save_as_utf8(data) if found[0] == "\0" else "remove it"
        raise DocumentError(message, Span(*found.span()), hint=hint)
    return text


def _save_as_utf8(data: bytes) -> str:
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or data[:2].count(0) == 1
    return f"save it as UTF-8{': it looks like UTF-16' if wide else ''}"


def compose(text: str) -> Node | None:
    """The root node of the one document in the text; None if there is none.

    No node of it stands inside of itself, or is too large or too deep to be walked. Raises `DocumentError`.
    """
    try:
        if sum(map(text.count, _SEPARATORS)) >= MAX_NODES:
            _refuse_crowd(text)
        root: Node | None = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _no_document(text, error) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        message = (
            f"the file nests more than {MAX_NESTING} deep"
            if isinstance(error, RecursionError)
            else f"no YAML: {type(error).__name__}"
        )
        raise DocumentError(message) from None
    if root is not None:
        _Measure().check(root)
    return root


def _no_document(text: str, error: yaml.MarkedYAMLError) -> DocumentError:
    problem, at = error.problem or "", _at(error.problem_mark)
    hint = _TAB if "tab" in problem or (at and text[at.start : at.end] == "\t") else _HINTS.get(problem)
    if "quoted scalar" in (error.context or ""):
        hint = "add the closing quote"
    if at and _is_cut(text, at.start):
        hint = _COMMENT
    message = ", ".join(filter(None, (error.context, error.problem)))
    return DocumentError(message, at, began=_at(error.context_mark), hint=hint)


def _is_cut(text: str, at: int) -> bool:
    """Whether the line of that place reads like the rest of an expression, of which a comment ended the line before."""
    start = text.rfind("\n", 0, at) + 1
    before = text[text.rfind("\n", 0, max(start - 1, 0)) + 1 : start]
    goes_on = _BEHIND_COMMENT.match(text, start) and _REMARK.search(before)
    return bool(goes_on or _JOINT_AND_COMMENT.search(before))


def _at(mark: yaml.Mark | yaml._yaml.Mark | None) -> Span | None:
    return Span(mark.index, mark.index + 1) if mark else None


def _refuse_crowd(text: str) -> None:
    """Raises where the document has too many nodes, before any of them takes memory."""
    parsed = yaml.parse(text, Loader=yaml.CSafeLoader)
    for count, event in enumerate(event for event in parsed if isinstance(event, yaml.NodeEvent)):
        if count >= MAX_NODES:
            raise DocumentError(f"the file has more than {MAX_NODES} keys and values", _at(event.start_mark))


class _Size(NamedTuple):
    """How many characters and nodes a node holds, and how deep they nest, with every alias written out."""

    amount: int
    height: int


class _Measure:
    """The sizes of nodes, each worked out once: an alias is the very node that its anchor stands at."""

    def __init__(self) -> None:
        self._known: dict[Node, _Size] = {}
        self._open: set[Node] = set()

    def check(self, node: Node, depth: int = 0) -> _Size:
        """The node's size. Raises `DocumentError` where it is too large, too deep, or inside of itself."""
        if isinstance(node, Scalar):
            return _Size(len(node.value) + 1, 0)
        if node in self._known:
            return self._known[node]
        if node in self._open:
            raise DocumentError("an alias stands inside of what it stands for", span(node))
        if depth > MAX_NESTING:
            raise self._too_deep(node)
        self._open.add(node)
        inner = [self.check(each, depth + 1) for each in _inside(node)]
        self._open.remove(node)
        size = _Size(1 + sum(each.amount for each in inner), 1 + max((each.height for each in inner), default=0))
        if size.height > MAX_NESTING:
            raise self._too_deep(node)
        if size.amount > MAX_EXPANDED:
            raise DocumentError("the file is too large with its aliases written out", span(node))
        self._known[node] = size
        return size

    def _too_deep(self, node: Node) -> DocumentError:
        return DocumentError(f"the file nests more than {MAX_NESTING} deep", span(node))


def _inside(node: Node) -> Iterable[Node]:
    """The items of a list, the keys and values of a map."""
    return node.value if isinstance(node, Sequence) else itertools.chain.from_iterable(node.value)


def span(node: Node) -> Span:
    """Where the node stands in the text."""
    return Span(node.start_mark.index, node.end_mark.index)


def text_of(node: Node) -> str | None:
    """The text that the node is; None if it is anything else."""
    return node.value if isinstance(node, Scalar) and node.tag == _TEXT else None


def plain_value(node: Node) -> str | float | bool | Node | None:
    """The value of a plain scalar as YAML 1.1 reads it; the node itself where it is nothing plain."""
    if not isinstance(node, Scalar):
        return node
    kind = node.tag.removeprefix(_PREFIX)
    if kind in {"int", "float"} and len(node.value) > MAX_NUMBER:
        return node
    constructor = SafeConstructor()
    try:
        match kind:
            case "int":
                return constructor.construct_yaml_int(node)
            case "float":
                return constructor.construct_yaml_float(node)
            case "bool":
                return constructor.construct_yaml_bool(node)
            case "null":
                return None
            case "str":
                return str(node.value)
            case _:
                return node
    except (ValueError, ArithmeticError, LookupError, ConstructorError):  # `!!int x`: a tag that its text does not fit
        return node


def kind_of(node: Node) -> str:
    """What the node is, in a person's words."""
    if isinstance(node, Mapping):
        return "a map"
    if isinstance(node, Sequence):
        return "a list"
    if node.tag.startswith("!"):
        return f"a YAML tag (`{node.tag}`)"
    return _KINDS.get(node.tag.removeprefix(_PREFIX), "something else")


def entries(node: Mapping) -> Iterator[tuple[Node, Node]]:
    """The keys and values of a map, those that `<<` merges in first (a key of the map's own stands behind them).

    Raises `DocumentError` for a merge of something that is no map.
    """
    for key, value in node.value:
        if key.tag != _MERGE:
            continue
        for merged in value.value if isinstance(value, Sequence) else [value]:
            if not isinstance(merged, Mapping):
                raise DocumentError(f"`<<` merges {kind_of(merged)}, which is no map", span(key))
            yield from entries(merged)
    yield from ((key, value) for key, value in node.value if key.tag != _MERGE)


def repeated(node: Mapping) -> Iterator[tuple[Node, Node]]:
    """The keys that stand twice in one map, each with the one before it."""
    first: dict[str, Node] = {}
    for key, _ in node.value:
        if isinstance(key, Scalar):
            if key.value in first and key.tag != _MERGE:
                yield key, first[key.value]
            first[key.value] = key


class Places:
    """Where the characters of a scalar's value stand in the file, whatever its style."""

    def __init__(self, source: Source, node: Scalar) -> None:
        self._node = span(node)
        self._at = _align(source.text, self._node, node.value, node.style)

    def span(self, part: Span) -> Span:
        """The place in the file of a span of the value; the whole scalar where it cannot be told."""
        if self._at is None:
            return self._node
        if part.start >= part.end:
            at = self._at[part.start] if part.start < len(self._at) else self._after_last()
            return Span(at, at)
        return Span(self._at[part.start], self._at[part.end - 1] + 1)

    def _after_last(self) -> int:
        return self._at[-1] + 1 if self._at else self._node.start


def _align(text: str, where: Span, value: str, style: str | None) -> list[int] | None:
    """For every character of the value its offset in the text: the scalar is read along its value.

    Between the value's characters the text has only what its style adds: quotes, escapes, indentation, line breaks.
    """
    at, places = where.start, []
    if style in {"|", ">"}:
        at = text.index("\n", at) + 1
    elif style:
        at += 1
    for char in value:
        if not char.isspace():
            while at < where.end and (text[at].isspace() or (style == '"' and text.startswith("\\\n", at))):
                at += 1 + (text[at] == "\\")
        if at >= where.end:
            if not char.isspace():
                return None
            at = where.end - 1
        escape = _ESCAPE.match(text, at) if style == '"' else None
        if escape is None and not char.isspace() and text[at] != char:
            return None
        places.append(at)
        if escape:
            at = escape.end()
        elif not char.isspace() or text[at].isspace():
            at += 2 if style == "'" and char == "'" else 1
    return places
