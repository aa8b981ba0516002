"""Lists of known images (`configs/hashlists.yaml`): by SHA-256, or by a perceptual hash within a distance.

known_spam:
  sha256: [9f86d081…]
  phash: [c3d4e5f6a7b80912]
  distance: 4              # bits of 64 that may differ; 0 when left out
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from modbot.errors import InputError
from modbot.files.yaml_files import read_yaml
from modbot.records.evidence import Evidence

PHASH_BITS = 64
_MOST_BANDS = 16
MAX_BYTES = 16 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PHASH = re.compile(r"[0-9a-f]{16}")
_KEYS = {"sha256", "phash", "distance"}


@dataclass(frozen=True)
class HashList:
    """One list. `distance`: how many bits of a pHash may differ, 0 to 64."""

    sha256: frozenset[str] = frozenset()
    phash: tuple[int, ...] = ()
    distance: int = 0

    def holds(self, evidence: Evidence) -> bool:
        """Whether the image, or one that looks like it, is on the list."""
        if evidence.sha256 is not None and evidence.sha256.lower() in self.sha256:
            return True
        phash = (evidence.phash or "").lower()
        if not self.phash or not _PHASH.fullmatch(phash):
            return False
        bits = int(phash, 16)
        return any((bits ^ other).bit_count() <= self.distance for other in self._candidates(bits))

    def _candidates(self, bits: int) -> Iterator[int]:
        """All pHashes that may be near enough, some more than once, and few others."""
        for band, members in self._bands:
            yield from members.get(band(bits), ())

    @cached_property
    def _bands(self) -> list[tuple[_Band, dict[int, list[int]]]]:
        """The pHashes by each band of their bits.

        Cut into one band more than bits may differ, two that are near enough are alike in one of them.
        """
        bands = []
        for band in _cut(self.distance + 1):
            members: dict[int, list[int]] = {}
            for value in self.phash:
                members.setdefault(band(value), []).append(value)
            bands.append((band, members))
        return bands


class _Band(NamedTuple):
    """A stretch of a pHash's bits; called with one, it gives theirs."""

    low: int
    mask: int

    def __call__(self, bits: int) -> int:
        return bits >> self.low & self.mask


def _cut(count: int) -> list[_Band]:
    """So many bands of equal width; one of no width where they would be too narrow to leave anything out."""
    if count > _MOST_BANDS:
        return [_Band(0, 0)]
    edges = [PHASH_BITS * number // count for number in range(count + 1)]
    return [_Band(low, (1 << high - low) - 1) for low, high in pairwise(edges)]


@dataclass(frozen=True)
class HashLists:
    """The lists by name."""

    lists: Mapping[str, HashList] = field(default_factory=dict)

    def of(self, evidence: Evidence) -> frozenset[str]:
        """The names of the lists that the image is on."""
        if not self.lists:
            return frozenset()
        return frozenset(name for name, known in self.lists.items() if known.holds(evidence))


def load_hashlists(path: Path) -> HashLists:
    """The lists of a file; none if there is no such file.

    Raises:
        InputError: the file cannot be read, or is not as above; names list and key.
    """
    try:
        raw = read_yaml(path, MAX_BYTES)
    except FileNotFoundError:
        return HashLists()
    if raw is None:
        return HashLists()
    if not isinstance(raw, dict):
        raise _refused(path, "the file", "is no map of list names")
    return HashLists({str(name): _parse(path, str(name), value) for name, value in raw.items()})


def _parse(path: Path, name: str, raw: Any) -> HashList:  # noqa: ANN401 - YAML of unknown shape
    if not isinstance(raw, dict) or not raw.keys() <= _KEYS:
        raise _refused(path, name, f"is no map of {', '.join(sorted(_KEYS))}")
    distance = raw.get("distance", 0)
    if isinstance(distance, bool) or not isinstance(distance, int) or not 0 <= distance <= PHASH_BITS:
        raise _refused(path, f"{name}.distance", f"is no whole number from 0 to {PHASH_BITS}")
    return HashList(
        sha256=frozenset(_hashes(path, f"{name}.sha256", raw.get("sha256"), _SHA256)),
        phash=tuple(int(value, 16) for value in _hashes(path, f"{name}.phash", raw.get("phash"), _PHASH)),
        distance=distance,
    )


def _hashes(path: Path, key: str, raw: Any, form: re.Pattern[str]) -> list[str]:  # noqa: ANN401 - as above
    values = [] if raw is None else raw
    if not isinstance(values, list):
        raise _refused(path, key, "is no list")
    for place, value in enumerate(values, 1):
        if not isinstance(value, str) or not form.fullmatch(value.lower()):
            raise _refused(path, key, f"item {place} is no such hash in hex (digits alone need quotes)")
    return [value.lower() for value in values]


def _refused(path: Path, key: str, what: str) -> InputError:
    return InputError(f"{key} {what}", where=str(path), remedy="See the example in docs/contracts/p3.md.")
