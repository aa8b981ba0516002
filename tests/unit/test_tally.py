from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modbot.stages.tally import Latencies

TIMES = st.lists(st.floats(0, 10_000), min_size=1)


@given(TIMES)
def test_the_percentile_is_near_the_real_one(times: list[float]) -> None:
    latencies = Latencies()
    for ms in times:
        latencies.add(ms)
    ordered = sorted(times)
    real = next(ms for place, ms in enumerate(ordered, 1) if place >= 0.95 * len(ordered))
    assert real * 0.9 - 0.001 <= latencies.percentile_ms(0.95) <= real
    assert abs(latencies.average_ms - sum(times) / len(times)) <= 0.001 + 1e-9 * sum(times)


@given(TIMES, TIMES)
def test_parts_add_up_to_the_whole(one: list[float], other: list[float]) -> None:
    whole, part, rest = Latencies(), Latencies(), Latencies()
    for ms in one:
        whole.add(ms)
        part.add(ms)
    for ms in other:
        whole.add(ms)
        rest.add(ms)
    part.merge(rest)
    assert part.percentile_ms(0.95) == whole.percentile_ms(0.95)
    assert abs(part.average_ms - whole.average_ms) <= 0.001


def test_nothing_measured_is_zero() -> None:
    assert (Latencies().average_ms, Latencies().percentile_ms(0.95)) == (0.0, 0.0)
