"""Where a day's files lie under OUT_DIR, and the configuration: paths of the project are spelled here alone."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from modbot.errors import SettingError

RULES_FILE = Path("configs/rules.yaml")
XSIGNALS_FILE = Path("configs/xsignals.yaml")
HASHLISTS_FILE = Path("configs/hashlists.yaml")

_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_profile(profile: str) -> str:
    """The profile's name, if it can be a folder's name and stays one below `profiles/`."""
    if not _PROFILE.fullmatch(profile):
        raise SettingError(
            f"{profile!r} cannot be a profile's name",
            where="--profile",
            remedy="Use letters, digits, '.', '_' and '-', beginning with a letter or digit.",
        )
    return profile


def check_date(text: str) -> str:
    """The date, if it is one: YYYY-MM-DD."""
    try:
        known = dt.date.fromisoformat(text).isoformat()
    except ValueError:
        known = None
    if text != known:
        remedy = "Give a day as YYYY-MM-DD, for example 2025-10-01."
        raise SettingError(f"{text!r} is no date", where="--date", remedy=remedy)
    return text


def date_of_index(path: Path) -> str | None:
    """The day that an index file's name says it is of; None if it says none."""
    found = re.fullmatch(r"p0_(\d{4}-\d{2}-\d{2})\.csv", path.name, re.ASCII)
    return None if found is None else found[1]


@dataclass(frozen=True)
class Partition:
    """One profile's one day under OUT_DIR, and the paths of all its files."""

    out_dir: Path
    profile: str
    date: str

    def __post_init__(self) -> None:
        check_profile(self.profile)
        check_date(self.date)

    @property
    def root(self) -> Path:
        return self.out_dir / "profiles" / self.profile

    @property
    def index(self) -> Path:
        return self.root / "p0" / f"p0_{self.date}.csv"

    @property
    def shards(self) -> Path:
        """The folder of the shard CSVs and of `shards.json`."""
        return self.root / "p0" / "shards"

    def step_shards(self, step: str) -> Path:
        """The folder of a step's finished shards, journals and receipts of this day; `step` is `p1` or `p2`."""
        return self.root / step / "shards" / self.date

    def merged(self, step: str) -> Path:
        return self.root / step / f"{step}_{self.date}.jsonl"

    def step_metrics(self, step: str) -> Path:
        return self.root / "metrics" / f"{step}_metrics_{self.date}.json"

    def shard_metrics(self, step: str) -> Path:
        """The folder of a step's metrics by shard: apart, so that a glob over the day's metrics counts once."""
        return self.root / "metrics" / "shards" / step / self.date

    def manifest(self, step: str) -> Path:
        return self.status / f"{step}_manifest_{self.profile}.json"

    @property
    def status(self) -> Path:
        return self.root / "status"

    @property
    def budget(self) -> Path:
        """What the rate budget hands from one process of this profile to the next."""
        return self.status / "budget.json"

    def budgets(self) -> list[Path]:
        """That of every profile: what a server told one of them holds for all."""
        return sorted(self.out_dir.glob("profiles/*/status/budget.json"))

    @property
    def discord_lease(self) -> Path:
        """Who is fetching from Discord, of all profiles."""
        return self.out_dir / "status" / "discord.lease"

    @property
    def lease(self) -> Path:
        return self.status / f"lease_{self.date}.json"

    def lease_of(self, out: Path) -> Path:
        """That of a run which is at work on no partition, and writes `out`."""
        name = hashlib.sha256(os.fsencode(out.resolve())).hexdigest()
        return self.status / f"lease_of_{name[:16]}.json"

    @property
    def findings(self) -> Path:
        return self.root / "p3" / f"findings_{self.date}.jsonl"

    @property
    def report(self) -> Path:
        return self.root / "p3" / f"report_{self.date}.csv"

    @property
    def scan_metrics(self) -> Path:
        return self.root / "metrics" / "p3" / f"p3_metrics_{self.date}.json"

    @property
    def latest_scan(self) -> Path:
        return self.root / "metrics" / "p3_run.json"

    @property
    def ab_compare(self) -> Path:
        return self.root / "metrics" / "p3_ab_compare.json"

    @property
    def ab_diff(self) -> Path:
        return self.root / "exports" / "p3_ab_diff.csv"

    @property
    def ab_samples(self) -> Path:
        return self.root / "exports" / "p3_ab_diff_samples.jsonl"

    @property
    def ab_day_compare(self) -> Path:
        """As the three above, of a day that is compared as one of several."""
        return self.root / "metrics" / "p3" / f"p3_ab_compare_{self.date}.json"

    @property
    def ab_day_diff(self) -> Path:
        return self.root / "exports" / f"p3_ab_diff_{self.date}.csv"

    @property
    def ab_day_samples(self) -> Path:
        return self.root / "exports" / f"p3_ab_diff_samples_{self.date}.jsonl"

    @property
    def uncertain(self) -> Path:
        return self.root / "review" / "uncertain_top200.csv"


def leases(out_dir: Path) -> list[Path]:
    """Where the runs that are at work have their leases."""
    return sorted(out_dir.glob("profiles/*/status/lease_*.json"))
