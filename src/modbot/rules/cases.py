"""The file's own tests: records as a person writes them, and the verdict that each must get.

tests:
  - name: a child with a nosebleed
    record:
      rating: {general: 0.80, explicit: 0.02}
      tags: {child: 0.66, nosebleed: 0.80}
      channel: {is_nsfw: true}
    expect: {severity: green, rule_id: null}
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol

import msgspec

from modbot.records.evidence import LARGEST, RATINGS
from modbot.records.finding import SEVERITIES
from modbot.records.p2 import DETECTION_CLASSES
from modbot.rules import bound, document
from modbot.rules.bound import Bound
from modbot.rules.compile import Program
from modbot.rules.issues import Span, did_you_mean
from modbot.rules.names import XSIGNALS
from modbot.rules.pieces import operands
from modbot.rules.reasons import Placeholder

CASE_KEYS = ("name", "record", "expect")
RECORD_KEYS = (
    *("rating", "tags", "nudity", "image", "channel", "message", "attachment_count"),
    *("xsignals", "known", "error", "doubts"),
)
EXPECT_KEYS = ("severity", "rule_id")
FAULT_KEYS = ("kind", "detail")
_SIDES = 4

Box = tuple[int, int, int, int]


class CaseFault(msgspec.Struct, frozen=True):
    """Why a record, or a part of its evidence, cannot be relied on: `kind` and `detail` as findings tell them."""

    kind: str
    detail: str = ""


class CaseDetection(msgspec.Struct, frozen=True, kw_only=True):
    """A detection; the box in pixels of the image, empty where only the class and its score matter."""

    name: str
    score: float
    box: Box = (0, 0, 0, 0)


class CaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a test says of a record; what it does not say is nothing, and an image has one attachment.

    `size` is the image's width and height. `xsignals`: those that are not computed from the rest.
    """

    rating: Mapping[str, float] = {}
    tags: Mapping[str, float] = {}
    nudity: tuple[CaseDetection, ...] = ()
    size: tuple[int, int] | None = None
    channel_is_nsfw: bool = False
    is_spoiler: bool = False
    attachment_count: int = 1
    xsignals: Mapping[str, float] = {}
    known: frozenset[str] = frozenset()
    error: CaseFault | None = None
    doubts: tuple[CaseFault, ...] = ()


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A test. `line` is where it stands in the file; `expect` holds `severity`, `rule_id` (None: no rule) or both."""

    name: str
    line: int
    record: CaseRecord
    expect: Mapping[str, str | None]


class Cases(msgspec.Struct, frozen=True, kw_only=True):
    """The tests that can be run, and how many more there are that cannot: what is wrong with those is told."""

    tests: tuple[Case, ...] = ()
    broken: int = 0


class Tell(Protocol):
    """Takes note of what is wrong."""

    def __call__(self, code: str, at: Span, message: str, hint: str | None = None) -> None: ...


Entries = Mapping[str, tuple[document.Node, document.Node]]


class CaseReader:
    """Reads `tests:`. `rules` and `lists` are the rules' ids and the hash lists' names that a test may name."""

    def __init__(
        self,
        *,
        doubt: Tell,
        remark: Tell,
        entries: Callable[[document.Mapping], Entries],
        line: Callable[[int], int],
        rules: Collection[str],
        lists: Collection[str],
    ) -> None:
        self._doubt = doubt
        self._remark = remark
        self._entries = entries
        self._line = line
        self._rules = rules
        self._lists = lists
        self._is_broken = False

    def read(self, node: document.Node) -> Cases:
        """The tests of the list."""
        if document.plain_value(node) is None:
            return Cases()
        if not isinstance(node, document.Sequence):
            self._doubt("R2-V001", document.span(node), "`tests` must be a list", "write `- name: …` before each test")
            return Cases()
        found = [self._case(item) for item in node.value]
        whole = tuple(case for case in found if case is not None)
        return Cases(tests=whole, broken=len(found) - len(whole))

    def _case(self, node: document.Node) -> Case | None:
        self._is_broken = False
        entries = self._map(node, "a test", CASE_KEYS)
        if not isinstance(node, document.Mapping):
            return None
        line = self._line(node.start_mark.index)
        name = self._text(entries["name"][1], "`name`") if "name" in entries else f"line {line}"
        case = Case(name=name, line=line, record=self._record(node, entries), expect=self._expect(node, entries))
        return None if self._is_broken else case

    # Records

    def _record(self, case: document.Node, entries: Entries) -> CaseRecord:
        if "record" not in entries:
            self._bad(case, "the test has no `record`", "say what the image shows: `record: {rating: {explicit: 0.9}}`")
            return CaseRecord()
        found = self._map(entries["record"][1], "`record`", RECORD_KEYS)
        nodes = {key: value for key, (_, value) in found.items()}
        channel = self._inner(nodes, "channel", ("is_nsfw",))
        message = self._inner(nodes, "message", ("is_spoiler",))
        return CaseRecord(
            rating=self._rating(nodes),
            tags=self._tags(nodes),
            nudity=tuple(map(self._detection, self._items(nodes, "nudity"))),
            size=self._size(nodes),
            channel_is_nsfw=self._flag(channel, "is_nsfw"),
            is_spoiler=self._flag(message, "is_spoiler"),
            attachment_count=self._whole(nodes["attachment_count"], "`attachment_count`")
            if "attachment_count" in nodes
            else 1,
            xsignals=self._xsignals(nodes),
            known=frozenset(map(self._list_name, self._items(nodes, "known"))),
            error=self._error(nodes.get("error")),
            doubts=tuple(map(self._fault, self._items(nodes, "doubts"))),
        )

    def _rating(self, nodes: Mapping[str, document.Node]) -> dict[str, float]:
        """The ratings. Rules can read any key: an unknown one is remarked on only where it looks mistyped."""
        found = self._map(nodes["rating"], "`rating`", None, "write `explicit: 0.9`") if "rating" in nodes else {}
        for name, (key, _) in found.items():
            if name not in {*RATINGS, "safe"} and (hint := did_you_mean(name, RATINGS)):
                self._remark("R2-K001", document.span(key), f"the taggers give no rating `{name}`", hint)
        return {name: self._score(value, f"`{name}`") for name, (_, value) in found.items()}

    def _tags(self, nodes: Mapping[str, document.Node]) -> dict[str, float]:
        found = self._map(nodes["tags"], "`tags`", None, "write `tag: score`") if "tags" in nodes else {}
        return {name: self._score(value, f"`{name}`") for name, (_, value) in found.items()}

    def _xsignals(self, nodes: Mapping[str, document.Node]) -> dict[str, float]:
        found = self._inner(nodes, "xsignals", XSIGNALS)
        return {name: self._number(value, f"`{name}`") for name, value in found.items()}

    def _detection(self, node: document.Node) -> CaseDetection:
        entries = self._map(
            node, "a detection", ("class", "score", "box"), "write `{class: BELLY_EXPOSED, score: 0.9}`"
        )
        if missing := [key for key in ("class", "score") if key not in entries]:
            self._bad(node, f"the detection has no `{missing[0]}`")
            return CaseDetection(name="", score=0.0)
        name = self._text(entries["class"][1], "`class`")
        if name.upper() not in DETECTION_CLASSES:
            hint = did_you_mean(name.upper(), DETECTION_CLASSES)
            self._remark("R2-E002", document.span(entries["class"][1]), f"the detector has no class `{name}`", hint)
        score = self._score(entries["score"][1], "`score`")
        box = self._box(entries["box"][1]) if "box" in entries else (0, 0, 0, 0)
        return CaseDetection(name=name, score=score, box=box)

    def _box(self, node: document.Node) -> Box:
        sides = (
            [self._whole(side, "a side of a box") for side in node.value] if isinstance(node, document.Sequence) else []
        )
        if len(sides) != _SIDES:
            self._bad(node, "`box` must be [x, y, width, height] in pixels")
            return (0, 0, 0, 0)
        return (sides[0], sides[1], sides[2], sides[3])

    def _size(self, nodes: Mapping[str, document.Node]) -> tuple[int, int] | None:
        if "image" not in nodes:
            return None
        sides = self._inner(nodes, "image", ("width", "height"))
        if len(sides) < len(("width", "height")):
            self._bad(nodes["image"], "`image` needs `width` and `height`")
            return None
        return self._whole(sides["width"], "`width`"), self._whole(sides["height"], "`height`")

    def _list_name(self, node: document.Node) -> str:
        name = self._text(node, "a list's name")
        if name not in self._lists:
            hint = did_you_mean(name, self._lists) or "configs/hashlists.yaml names them"
            self._bad(node, f"there is no hash list `{name}`", hint, code="R2-E002")
        return name

    def _error(self, node: document.Node | None) -> CaseFault | None:
        return None if node is None or document.plain_value(node) is None else self._fault(node)

    def _fault(self, node: document.Node) -> CaseFault:
        """`expired`, or `{kind: expired, detail: HTTP 404}`."""
        if (kind := document.text_of(node)) is not None:
            return CaseFault(kind)
        entries = self._map(node, "an error", FAULT_KEYS, "write its kind, for example `expired`")
        if "kind" not in entries and isinstance(node, document.Mapping):
            self._bad(node, "the error has no `kind`", "write its kind, for example `expired`")
        kind, detail = (self._text(entries[key][1], f"`{key}`") if key in entries else "" for key in FAULT_KEYS)
        return CaseFault(kind, detail)

    # Expectations

    def _expect(self, case: document.Node, entries: Entries) -> dict[str, str | None]:
        if "expect" not in entries:
            self._bad(
                case, "the test has no `expect`", "say what must come of it: `expect: {severity: red, rule_id: …}`"
            )
            return {}
        found = self._map(entries["expect"][1], "`expect`", EXPECT_KEYS)
        if not found and not self._is_broken:
            self._bad(entries["expect"][1], "`expect` says nothing", "give `severity`, `rule_id` or both")
        expected: dict[str, str | None] = {}
        if "severity" in found:
            expected["severity"] = self._severity(found["severity"][1])
        if "rule_id" in found:
            expected["rule_id"] = self._rule_id(found["rule_id"][1])
        return expected

    def _severity(self, node: document.Node) -> str:
        text = document.text_of(node) or ""
        if text not in SEVERITIES:
            hint = did_you_mean(text.lower(), SEVERITIES) or f"it is one of {', '.join(SEVERITIES)}"
            self._bad(node, "this is no severity", hint)
        return text

    def _rule_id(self, node: document.Node) -> str | None:
        if document.plain_value(node) is None:
            return None
        name = self._text(node, "`rule_id`")
        if name and name not in self._rules:
            hint = did_you_mean(name, self._rules) or "write `null` where no rule must match"
            self._bad(node, f"no rule that runs has the id `{name}`", hint, code="R2-E002")
        return name

    # Values

    def _bad(self, node: document.Node, message: str, hint: str | None = None, *, code: str = "R2-V001") -> None:
        """The test that is being read cannot be run."""
        self._is_broken = True
        self._doubt(code, document.span(node), f"{message}: the test is left out", hint)

    def _map(self, node: document.Node, what: str, known: Collection[str] | None, hint: str | None = None) -> Entries:
        """The entries of a map, none of them unknown (`known` None: any may be there)."""
        if not isinstance(node, document.Mapping):
            self._bad(node, f"{what} must be a map, not {document.kind_of(node)}", hint)
            return {}
        found = self._entries(node)
        if known is None:
            return found
        for name in found.keys() - set(known):
            near = did_you_mean(name, known) or f"known here: {', '.join(known)}"
            self._bad(found[name][0], f"unknown key `{name}`", near, code="R2-K001")
        return {name: entry for name, entry in found.items() if name in known}

    def _inner(self, nodes: Mapping[str, document.Node], key: str, known: Collection[str]) -> dict[str, document.Node]:
        if key not in nodes:
            return {}
        return {name: value for name, (_, value) in self._map(nodes[key], f"`{key}`", known).items()}

    def _items(self, nodes: Mapping[str, document.Node], key: str) -> list[document.Node]:
        if key not in nodes or document.plain_value(nodes[key]) is None:
            return []
        node = nodes[key]
        if not isinstance(node, document.Sequence):
            self._bad(node, f"`{key}` must be a list, not {document.kind_of(node)}")
            return []
        items: list[document.Node] = node.value
        return items

    def _text(self, node: document.Node, what: str) -> str:
        text = document.text_of(node)
        if text is None:
            self._bad(node, f"{what} must be text, not {document.kind_of(node)}", "put it in quotes")
        return text or ""

    def _number(self, node: document.Node, what: str) -> float:
        value = document.plain_value(node)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
            self._bad(node, f"{what} must be a number")
            return 0.0
        return float(value)

    def _score(self, node: document.Node, what: str) -> float:
        value = self._number(node, what)
        if not 0 <= value <= 1:
            self._remark("R2-V001", document.span(node), f"{what} is {value:g}, and scores lie between 0 and 1")
        return value

    def _whole(self, node: document.Node, what: str) -> int:
        value = document.plain_value(node)
        if type(value) is not int or not 0 <= value <= LARGEST:
            self._bad(node, f"{what} must be a whole number of at least 0")
            return 0
        return value

    def _flag(self, nodes: Mapping[str, document.Node], key: str) -> bool:
        value = document.plain_value(nodes[key]) if key in nodes else False
        if not isinstance(value, bool):
            self._bad(nodes[key], f"`{key}` must be true or false")
            return False
        return value


def counting_tags(program: Program) -> Callable[[str], bool]:
    """Whether a (normalised) tag can bear on the verdict: a group holds it, or a `score` names it."""
    named = {node.tag for root in _expressions(program) for node in _nodes(root) if isinstance(node, bound.Score)}
    groups = tuple(program.groups.values())
    return lambda tag: tag in named or any(group.matches(tag) for group in groups)


def _expressions(program: Program) -> Iterator[Bound]:
    for feature in program.features:
        yield feature.value
    for rule in program.rules:
        yield rule.when
        yield from (part.value for reason in rule.reasons for part in reason if isinstance(part, Placeholder))


def _nodes(node: Bound) -> Iterator[Bound]:
    yield node
    for operand in operands(node):
        yield from _nodes(operand)
