"""Where the images of a step spend their time: which stage the others wait for, and how busy the device is.

A step's images go through its stages side by side, only so many at once. They gather before the slowest stage, so the
one where they spend most of their time, waiting included, sets the pace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

import msgspec


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """One run's figures. `wall_s`: seconds of all workers together; `busy_s`: of those, the device was inferring.

    `seconds`: what all images together spent in each stage, waiting for it included.
    """

    wall_s: float
    busy_s: float
    seconds: dict[str, float]

    @property
    def bottleneck(self) -> str | None:
        """The stage that sets the pace; None where there was nothing to do. Of equals the first."""
        return max(self.seconds, key=self.seconds.__getitem__) if any(self.seconds.values()) else None

    @property
    def busy(self) -> float:
        """The share of the time that the device was inferring, 0 to 1."""
        return min(self.busy_s / self.wall_s, 1.0) if self.wall_s > 0 else 0.0

    def as_metrics(self) -> dict[str, Any]:
        """As the metrics file has it."""
        return {
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "wall_s": round(self.wall_s, 3),
            "infer_busy_s": round(self.busy_s, 3),
            "infer_busy": round(self.busy, 3),
            "bottleneck": self.bottleneck,
        }

    def __str__(self) -> str:
        return f"bottleneck: {self.bottleneck or 'none'} (infer busy {self.busy * 100:.0f} %)"


def total(flows: Iterable[Flow]) -> Flow:
    """The flows of several shards as one."""
    wall, busy, seconds = 0.0, 0.0, Counter[str]()
    for flow in flows:
        wall, busy = wall + flow.wall_s, busy + flow.busy_s
        seconds.update(flow.seconds)
    return Flow(wall_s=wall, busy_s=busy, seconds=dict(seconds))


class Device(Protocol):
    """What runs a model: how often it halved its batch, and how long it was at work, since it was started."""

    @property
    def halved(self) -> int: ...
    @property
    def busy_seconds(self) -> float: ...


class Shift:
    """What a device does from here on: it outlives the shard, and has done others before. None: there is none."""

    def __init__(self, device: Device | None) -> None:
        self._device = device
        self._halved = device.halved if device else 0
        self._busy_s = device.busy_seconds if device else 0.0

    @property
    def halved(self) -> int:
        return self._device.halved - self._halved if self._device else 0

    @property
    def busy_s(self) -> float:
        return self._device.busy_seconds - self._busy_s if self._device else 0.0


class Meter:
    """Takes the times of a run, in one thread."""

    def __init__(self, *stages: str) -> None:
        self._seconds = dict.fromkeys(stages, 0.0)
        self._started = monotonic()

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        """While the block runs, an image is at this stage, or waits for it."""
        started = monotonic()
        try:
            yield
        finally:
            self._seconds[stage] += monotonic() - started

    def flow(self, shift: Shift) -> Flow:
        """The figures so far, `shift` being that of the device."""
        return Flow(wall_s=monotonic() - self._started, busy_s=shift.busy_s, seconds=dict(self._seconds))
