"""What tests count, told at the end of the run: output of a test that passes is seen by nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import pytest

Count = Callable[[str, Mapping[str, int]], None]
"""Takes a line for the summary, and numbers that are added up over all tests."""

_LINE = "counted in a line"
_NUMBERS = "counted numbers"


def counter(item: pytest.Item) -> Count:
    """Notes what a test counts in its report, which comes to the summary from whatever process."""

    def count(line: str, numbers: Mapping[str, int]) -> None:
        item.user_properties += [(_LINE, line), (_NUMBERS, dict(numbers))]

    return count


def summary(reports: Iterable[pytest.TestReport]) -> Iterator[str]:
    """The lines of all tests, and the sums."""
    total: Counter[str] = Counter()
    for report in reports:
        for name, value in report.user_properties:
            if name == _LINE:
                yield str(value)
            elif name == _NUMBERS and isinstance(value, dict):
                total.update(value)
    if total:
        yield "in all: " + ", ".join(f"{what} {number} x" for what, number in sorted(total.items()))
