"""What long work says of itself: receipts and manifests on disk, events while it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

State = Literal["queued", "running", "done", "failed"]


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that a shard is finished, written last. Digests are SHA-256 in hex.

    `settings` is the digest of all that shapes the lines, `input` that of what was read, `output` that of the file
    written. `counters` are additive numbers of this shard, `detail` the rest (averages, names, settings in full).
    """

    step: str
    shard: str
    rows: int
    lines: int
    errors: dict[str, int]
    settings: str
    input: str
    output: str
    finished_at: str
    counters: dict[str, float]
    detail: dict[str, Any]


class Rate(msgspec.Struct, frozen=True):
    """Requests a second (None: unlimited) and requests under way at once."""

    qps: Annotated[float, msgspec.Meta(gt=0)] | None
    concurrency: int

    @property
    def interval(self) -> float:
        """Seconds from one request to the next."""
        return 0.0 if self.qps is None else 1.0 / self.qps

    def __str__(self) -> str:
        qps = "unlimited" if self.qps is None else f"{self.qps:g}/s"
        return f"{qps}, {self.concurrency} at once"

    def within(self, other: Rate) -> bool:
        """Whether it allows no more than `other`, in either respect."""
        return self.interval >= other.interval and self.concurrency <= other.concurrency


class Adjustment(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the rate, or a rest. `time` is ISO 8601; `host`: `discord`, or another host by its name and port.

    `cause`: `http_429`, `quiet`, `invalid_answers`, `restored`, `used_up` (a route, until its reset). `retry_after`:
    seconds of rest; `assumed`: the answer did not say how many. `from` equals `to` where there was only a rest.
    """

    time: str
    host: str
    cause: str
    status: int | None = None
    retry_after: float | None = None
    assumed: bool = False
    before: Rate = msgspec.field(name="from")
    after: Rate = msgspec.field(name="to")

    def __str__(self) -> str:
        change = f"stays at {self.after}" if self.before == self.after else f"{self.before} -> {self.after}"
        wait = "" if self.retry_after is None else f", rests {_seconds(self.retry_after)} s"
        return f"{self.host}: {change} ({self.cause}{wait}{' (assumed)' if self.assumed else ''})"


def _seconds(wait: float) -> str:
    """A wait as it is told: whole seconds, or tenths of a short one."""
    return f"{wait:.0f}" if wait >= 10 else f"{wait:.1f}".removesuffix(".0")  # noqa: PLR2004 - two digits


class ShardStatus(msgspec.Struct, kw_only=True):
    """One shard in the manifest. `done` and `failed` count lines."""

    state: State = "queued"
    rows: int = 0
    done: int = 0
    failed: int = 0
    error: str | None = None


class Manifest(msgspec.Struct, kw_only=True):
    """The status file of a step's run: what an operator looks at, never what a resume relies on."""

    step: str
    profile: str
    date: str
    started_at: str
    updated_at: str
    settings: dict[str, Any]
    shards: dict[str, ShardStatus]
    adjustments: list[Adjustment] = msgspec.field(default_factory=list)
    warnings: list[str] = msgspec.field(default_factory=list)


class ShardStarted(msgspec.Struct, frozen=True, kw_only=True):
    """A shard begins, or goes on behind `done` lines of an earlier run."""

    shard: str
    rows: int
    done: int
    failed: int


class ShardAdvanced(msgspec.Struct, frozen=True, kw_only=True):
    """Lines so far in the shard's journal."""

    shard: str
    done: int
    failed: int


class ShardFinished(msgspec.Struct, frozen=True, kw_only=True):
    """A shard's file and receipt stand. `reused`: they stood before, nothing was done."""

    receipt: Receipt
    reused: bool = False


class ShardFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A shard did not finish; its journal keeps what it has."""

    shard: str
    error: str


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person should read once: a provider that did not start, a setting that does nothing."""

    text: str


class RateAdjusted(msgspec.Struct, frozen=True, kw_only=True):
    """The budget changed; `adjustment` says when, why, from and to."""

    adjustment: Adjustment


Event = ShardStarted | ShardAdvanced | ShardFinished | ShardFailed | Notice | RateAdjusted
