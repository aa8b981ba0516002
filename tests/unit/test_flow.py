"""Which stage sets the pace, told from where the images of a run spent their time."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from modbot.stages.flow import Flow, Meter, Shift, total


def flow(*, wall: float = 10.0, busy: float = 0.0, **seconds: float) -> Flow:
    return Flow(wall_s=wall, busy_s=busy, seconds=seconds)


def test_the_stage_where_images_gather_is_the_bottleneck() -> None:
    assert flow(fetch=200.0, decode=3.0, infer=1.2, write=0.1).bottleneck == "fetch"
    assert flow(fetch=2.0, decode=3.0, infer=90.0, write=0.1).bottleneck == "infer"
    assert flow(fetch=1.0, decode=1.0).bottleneck == "fetch"
    assert flow(fetch=0.0, decode=0.0).bottleneck is None
    assert flow().bottleneck is None


@pytest.mark.parametrize(
    ("wall", "busy", "text"),
    [
        (10.0, 1.24, "bottleneck: fetch (infer busy 12 %)"),
        (10.0, 10.001, "bottleneck: fetch (infer busy 100 %)"),
        (0.0, 0.0, "bottleneck: fetch (infer busy 0 %)"),
    ],
)
def test_a_run_says_which_it_is_and_how_busy_the_device_was(wall: float, busy: float, text: str) -> None:
    assert str(flow(wall=wall, busy=busy, fetch=1.0)) == text


def test_workers_that_run_side_by_side_add_up() -> None:
    both = total([flow(wall=10, busy=9, fetch=1, infer=50), flow(wall=20, busy=3, fetch=70, infer=2), flow(wall=1)])
    assert both == flow(wall=31, busy=12, fetch=71, infer=52)
    assert both.bottleneck == "fetch"
    assert total([]) == flow(wall=0)
    assert both.as_metrics() == {
        "seconds": {"fetch": 71, "infer": 52},
        "wall_s": 31,
        "infer_busy_s": 12,
        "infer_busy": 0.387,
        "bottleneck": "fetch",
    }


def test_times_of_images_add_up_and_a_device_is_told_of_since_the_shift_began() -> None:
    meter = Meter("decode", "infer")
    device = SimpleNamespace(halved=2, busy_seconds=70.0)
    shift = Shift(device)
    with meter.at("decode"), meter.at("decode"):
        time.sleep(0.1)
    device.halved, device.busy_seconds = 3, 70.25
    found = meter.flow(shift)
    assert (shift.halved, found.busy_s) == (1, 0.25)
    assert found.seconds["decode"] >= 0.2 > found.seconds["infer"] == 0
    nobody = Shift(None)
    assert (nobody.halved, meter.flow(nobody).busy_s) == (0, 0)
