"""What the steps that fetch have in common: their settings, and the one rate budget of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modbot.fetch.coordinator import LocalCoordinator
from modbot.fetch.hosts import HostPolicy
from modbot.fetch.remote import serve
from modbot.fetch.turn import Turn
from modbot.files.paths import Partition
from modbot.records.progress import RateAdjusted
from modbot.settings import Settings
from modbot.stages.fetch import FetchSettings
from modbot.stages.step import Bus


def fetch_settings(
    settings: Settings, *, concurrency: int, allow_hosts: tuple[str, ...], max_bytes: int
) -> FetchSettings:
    """What every worker is to know. Raises SettingError for a host that is none."""
    HostPolicy.of(allow_hosts, settings.file_root)
    return FetchSettings(
        cache_dir=settings.cache_dir,
        concurrency=concurrency,
        allow_hosts=allow_hosts,
        file_root=settings.file_root,
        token=settings.discord_token,
        discord_api=settings.discord_api,
        max_bytes=max_bytes,
    )


@contextmanager
def one_budget(partition: Partition, command: str, *, qps: float, concurrency: int, bus: Bus) -> Iterator[Path]:
    """The rate budget of the run, served to its workers; gives the socket."""
    coordinator = LocalCoordinator(
        qps=qps,
        concurrency=concurrency,
        state=partition.budget,
        turn=Turn(partition.discord_lease, command, partition.budgets),
        on_adjustment=lambda adjustment: bus.publish(RateAdjusted(adjustment=adjustment)),
    )
    with serve(coordinator) as socket:
        yield socket
