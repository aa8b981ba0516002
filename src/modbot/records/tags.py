"""Tags and the patterns that name them: one spelling for the tagger, the groups of a rules file, and the rules."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

_SEPARATORS = re.compile(r"[\s-]+")
_WILDCARDS = frozenset("*?[")
_WILD = re.compile(r"\[!?\]?[^]]*\]|[*?]")
"""What of a pattern stands for other characters; a `[` that nothing closes stands for itself."""
_LONGEST_LITERAL = 32
_FEW_PATTERNS = 30
"""So many are tried sooner than looked up."""
_LONG_TAG = 200
"""One with more characters than any real tag has too many pieces to be worth it."""


@lru_cache(maxsize=65_536)
def normalise(tag: str) -> str:
    """The one spelling of a tag, a pattern or a group's name.

    NFKC, stripped, lower case, every run of white space and `-` one `_`.
    """
    return _SEPARATORS.sub("_", unicodedata.normalize("NFKC", tag).strip().lower())


def total(scores: Sequence[float]) -> float:
    """The sum of scores, the same in whatever order they come; at most the largest finite number."""
    try:
        return math.fsum(scores)
    except (OverflowError, ValueError):
        return math.nextafter(math.inf, 0)


def is_pattern(tag: str) -> bool:
    """Whether the (normalised) tag is a pattern: holds `*`, `?` or `[`."""
    return not _WILDCARDS.isdisjoint(tag)


class Patterns:
    """Finds those of many patterns that a tag matches without trying each.

    A pattern matches only what holds its longest literal, the characters between two of its wildcards. So the pieces of
    a tag that are some pattern's literal tell which patterns to try; those without a literal (`*`, `??`) always are.
    """

    __slots__ = ("_by_literal", "_lengths", "_patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = tuple(patterns)
        self._by_literal: dict[str, list[str]] = {}
        self._lengths: Collection[int] = ()

    def matching(self, tag: str) -> Iterator[str]:
        """The patterns that the normalised tag matches, in no order."""
        few = len(self._patterns) <= _FEW_PATTERNS or len(tag) > _LONG_TAG
        # fnmatch keeps what it compiled, and makes every `*` but the last atomic: no pattern backtracks over another.
        return (pattern for pattern in (self._patterns if few else self._likely(tag)) if fnmatchcase(tag, pattern))

    def _likely(self, tag: str) -> Iterator[str]:
        """The patterns whose literal the tag holds."""
        if not self._lengths:  # not before a tag is met: a file is also loaded only to be checked
            self._by_literal = defaultdict(list)
            for pattern in self._patterns:
                self._by_literal[max(_WILD.split(pattern), key=len)[:_LONGEST_LITERAL]].append(pattern)
            self._lengths = {len(literal) for literal in self._by_literal}
        found = {
            piece
            for length in self._lengths
            for at in range(len(tag) - length + 1)
            if (piece := tag[at : at + length]) in self._by_literal
        }
        return itertools.chain.from_iterable(self._by_literal[piece] for piece in found)


class Group:
    """A set of tags, some named, some by pattern: `*` any run, `?` any character, `[ab]` one of, `[!a]` none of.

    Takes any spelling; keeps the normalised one. `items` are the members in the order given, without repeats,
    `literals` those that name one tag, `patterns` the others.
    """

    __slots__ = ("_index", "items", "literals", "patterns")

    def __init__(self, items: Iterable[str]) -> None:
        self.items = tuple(dict.fromkeys(normalise(item) for item in items))
        self.patterns = tuple(item for item in self.items if is_pattern(item))
        self.literals = frozenset(self.items) - frozenset(self.patterns)
        self._index = Patterns(self.patterns)

    def matches(self, tag: str) -> bool:
        """Whether the normalised tag belongs to the group."""
        return tag in self.literals or any(True for _ in self._index.matching(tag))

    def select(self, tags: Iterable[str]) -> Iterator[str]:
        """Those of the normalised tags that belong to the group."""
        return (tag for tag in tags if self.matches(tag))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self.items == other.items

    def __hash__(self) -> int:
        return hash(self.items)

    def __repr__(self) -> str:
        return f"Group({list(self.items)!r})"
