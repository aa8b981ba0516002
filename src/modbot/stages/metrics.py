"""The metrics of p1 and p2: additive numbers at the top, so that summing days key by key makes sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modbot.records.p1 import ERROR_KINDS

P1_SUMS = (
    "requests",
    "bytes",
    "http_429",
    "http_5xx",
    "http_403",
    "http_404",
    "retries",
    "refreshed",
    "store_hits",
    "inferred",
    "reused",
    "batch_halved",
)
P2_SUMS = ("records", "nudenet_executed", "nudenet_skipped", "nudenet_reused", "nudenet_failed", "batch_halved")


def p1_metrics(
    totals: Mapping[str, float], *, rows: int, records: int, seconds: float, detail: Mapping[str, Any]
) -> dict[str, Any]:
    """p1's metrics. `totals`: the shards' counters and `failed_<kind>`, added up; `seconds`: this run's wall time."""
    kinds = sorted({*ERROR_KINDS, *(key.removeprefix("failed_") for key in totals if key.startswith("failed_"))})
    failures = {f"failed_{kind}": _whole(totals.get(f"failed_{kind}", 0)) for kind in kinds}
    failed = sum(failures.values())
    return {
        "rows": rows,
        "records": records,
        "images_ok": rows - failed,
        "failed": failed,
        **failures,
        **_sums(totals, P1_SUMS),
        "wall_time_s": round(seconds, 3),
        "averages": _averages(rows, seconds),
        **detail,
    }


def p2_metrics(totals: Mapping[str, float], *, seconds: float, detail: Mapping[str, Any]) -> dict[str, Any]:
    """p2's metrics, as `p1_metrics`."""
    sums = _sums(totals, P2_SUMS)
    return {
        **sums,
        "wall_time_s": round(seconds, 3),
        "averages": _averages(sums["records"], seconds),
        **detail,
    }


def _sums(totals: Mapping[str, float], keys: Sequence[str]) -> dict[str, int]:
    return {key: _whole(totals.get(key, 0)) for key in keys}


def _whole(value: float) -> int:
    return round(value)


def _averages(rows: int, seconds: float) -> dict[str, float]:
    return {"per_second": round(rows / seconds, 3) if seconds > 0 else 0.0}
