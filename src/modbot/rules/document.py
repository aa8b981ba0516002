"""The YAML of a rules file as nodes with their place in the text. Nothing of it is constructed but plain scalars."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

from modbot.rules.issues import Source, Span

MAX_BYTES = 2 * 1024 * 1024
"""A larger rules file is refused; those who read files need not read on behind it."""
MAX_MERGES = 1_000
MAX_MERGE_DEPTH = 20

Node = yaml.nodes.Node
Scalar = yaml.nodes.ScalarNode
Sequence = yaml.nodes.SequenceNode
Mapping = yaml.nodes.MappingNode

_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_PREFIX = "tag:yaml.org,2002:"
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\r\n|.)", re.DOTALL)


class DocumentError(Exception):
    """A text that is no YAML document: why, where (None: the whole), and where what is broken began."""

    def __init__(self, message: str, span: Span | None = None, began: Span | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.span = span
        self.began = began


def decode(data: bytes) -> str:
    """The file's text: UTF-8, with or without a byte order mark. Raises `DocumentError`."""
    if len(data) > MAX_BYTES:
        raise DocumentError(f"the file is larger than {MAX_BYTES // 1024**2} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = len(data[: error.start].decode("utf-8-sig"))
        raise DocumentError(f"the file is not UTF-8 (byte {error.start})", Span(at, at + 1)) from None


def compose(text: str) -> Node | None:
    """The root node of the one document in the text; None if there is none. Raises `DocumentError`."""
    try:
        root: Node | None = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        message = ", ".join(filter(None, (error.context, error.problem)))
        raise DocumentError(message, _at(error.problem_mark), _at(error.context_mark)) from None
    except yaml.reader.ReaderError as error:
        raise DocumentError(f"a character that YAML does not allow: {error.reason}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DocumentError(f"no YAML: {type(error).__name__}") from None
    return root


def _at(mark: yaml.Mark | None) -> Span | None:
    return Span(mark.index, mark.index + 1) if mark else None


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
    except (ValueError, KeyError, ConstructorError):  # `!!int x`: a tag that its text does not fit
        return node


def kind_of(node: Node) -> str:
    """What the node is, in a person's words."""
    if isinstance(node, Mapping):
        return "a map"
    if isinstance(node, Sequence):
        return "a list"
    kinds = {"str": "text", "int": "a number", "float": "a number", "bool": "true/false", "null": "nothing"}
    return kinds.get(node.tag.removeprefix(_PREFIX), "something else")


def entries(node: Mapping) -> list[tuple[Node, Node]]:
    """The keys and values of a map, those that `<<` merges in first (a key of the map's own stands behind them).

    Raises `DocumentError` for a merge of something that is no map, of a map with itself, or of too many.
    """
    return list(_entries(node, 0, [MAX_MERGES]))


def _entries(node: Mapping, depth: int, left: list[int]) -> Iterator[tuple[Node, Node]]:
    for key, value in node.value:
        if key.tag != _MERGE:
            continue
        for merged in value.value if isinstance(value, Sequence) else [value]:
            left[0] -= 1
            if not isinstance(merged, Mapping):
                raise DocumentError(f"`<<` merges {kind_of(merged)}, which is no map", span(key))
            if depth >= MAX_MERGE_DEPTH or left[0] < 0:
                raise DocumentError("`<<` merges too many maps, or a map with itself", span(key))
            yield from _entries(merged, depth + 1, left)
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
