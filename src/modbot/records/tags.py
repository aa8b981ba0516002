"""Tags and the patterns that name them: one spelling for the tagger, the groups of a rules file, and the rules."""

from __future__ import annotations

import fnmatch
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

_SEPARATORS = re.compile(r"[\s-]+")
_WILDCARDS = frozenset("*?[")


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


class Group:
    """A set of tags, some named, some by pattern: `*` any run, `?` any character, `[ab]` one of, `[!a]` none of.

    Takes any spelling; keeps the normalised one. `items` are the members in the order given, without repeats,
    `literals` those that name one tag, `patterns` the others.
    """

    __slots__ = ("_match", "items", "literals", "patterns")

    def __init__(self, items: Iterable[str]) -> None:
        self.items = tuple(dict.fromkeys(normalise(item) for item in items))
        self.patterns = tuple(item for item in self.items if is_pattern(item))
        self.literals = frozenset(self.items) - frozenset(self.patterns)
        self._match: Callable[[str], re.Match[str] | None] | None = None

    def matches(self, tag: str) -> bool:
        """Whether the normalised tag belongs to the group."""
        return tag in self.literals or (bool(self.patterns) and self._matches_pattern(tag))

    def _matches_pattern(self, tag: str) -> bool:
        if self._match is None:  # not before a tag is met: thousands of patterns take a second to compile
            # fnmatch translates every `*` but the last into an atomic group: no pattern backtracks over another.
            self._match = re.compile("|".join(map(fnmatch.translate, self.patterns))).match
        return self._match(tag) is not None

    def select(self, tags: Iterable[str]) -> Iterator[str]:
        """Those of the normalised tags that belong to the group."""
        return (tag for tag in tags if self.matches(tag))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self.items == other.items

    def __hash__(self) -> int:
        return hash(self.items)

    def __repr__(self) -> str:
        return f"Group({list(self.items)!r})"
