"""The metrics of the steps: additive numbers at the top, so that summing days key by key makes sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modbot.records.p1 import ERROR_KINDS

FETCH_SUMS = (
    "requests",
    "bytes",
    "http_429",
    "http_5xx",
    "http_403",
    "http_404",
    "retries",
    "refreshed",
    "store_hits",
)
P1_SUMS = (
    *FETCH_SUMS,
    "inferred",
    "reused",
    "batch_halved",
)
P2_SUMS = ("records", "nudenet_executed", "nudenet_skipped", "nudenet_reused", "nudenet_failed", "batch_halved")


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How long a step took. `seconds` and `done`: wall time and lines of this run alone.

    The counters are the day's: they go on where an earlier run left them. `worker_seconds`: what the workers of all
    runs spent, added up, as far as it was not lost in a kill.
    """

    seconds: float
    done: int
    worker_seconds: float

    def as_metrics(self) -> dict[str, Any]:
        seconds = round(self.seconds, 3)
        return {
            "wall_time_s": seconds,
            "averages": {"per_second": round(self.done / self.seconds, 3) if self.seconds > 0 else 0.0},
            "run": {"done": self.done, "wall_time_s": seconds},
            "all_runs": {"worker_seconds": round(self.worker_seconds, 3)},
        }


def p1_metrics(
    totals: Mapping[str, float], *, rows: int, records: int, times: Times, detail: Mapping[str, Any]
) -> dict[str, Any]:
    """p1's metrics. `totals`: the shards' counters and `failed_<kind>`, added up."""
    return {
        "rows": rows,
        "records": records,
        **_outcomes(totals, rows),
        **_sums(totals, P1_SUMS),
        **times.as_metrics(),
        **detail,
    }


def fetch_metrics(totals: Mapping[str, float], *, rows: int, times: Times, detail: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of fetching alone, as `p1_metrics`."""
    return {"rows": rows, **_outcomes(totals, rows), **_sums(totals, FETCH_SUMS), **times.as_metrics(), **detail}


def p2_metrics(totals: Mapping[str, float], *, times: Times, detail: Mapping[str, Any]) -> dict[str, Any]:
    """p2's metrics, as `p1_metrics`."""
    return {**_sums(totals, P2_SUMS), **times.as_metrics(), **detail}


def _outcomes(totals: Mapping[str, float], rows: int) -> dict[str, int]:
    """How many rows have an image, and how many failed, by kind; the usual kinds always."""
    kinds = sorted({*ERROR_KINDS, *(key.removeprefix("failed_") for key in totals if key.startswith("failed_"))})
    failures = {f"failed_{kind}": _whole(totals.get(f"failed_{kind}", 0)) for kind in kinds}
    failed = sum(failures.values())
    return {"images_ok": rows - failed, "failed": failed, **failures}


def _sums(totals: Mapping[str, float], keys: Sequence[str]) -> dict[str, int]:
    return {key: _whole(totals.get(key, 0)) for key in keys}


def _whole(value: float) -> int:
    return round(value)
