"""`modbot fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modbot.cli.options import (
    COUNT,
    PATH,
    failure_kinds,
    failures,
    fetching_options,
    partition,
    partition_options,
    require_engine,
    this_run,
)
from modbot.settings import load
from modbot.words import counted

if TYPE_CHECKING:
    from modbot.engine.fetch import FetchSummary
    from modbot.stages.forecast import Forecast


@click.command(epilog="Example: modbot fetch --date 2025-10-01 --resume")
@partition_options
@click.option(
    "--shard-glob", metavar="GLOB", help="The shards.  [default: OUT_DIR/profiles/NAME/p0/shards/shard_*.csv]"
)
@fetching_options
@click.option("--parallel", type=COUNT, default=1, show_default=True, help="Shards at once, each in a process.")
@click.option("--resume", is_flag=True, help="Only what is unfinished; what is done is not looked at again.")
@click.option("--dry-run", is_flag=True, help="Say what there is to fetch and how long it takes; send nothing.")
@click.option(
    "--status-file", type=PATH, help="Manifest.  [default: OUT_DIR/profiles/NAME/status/fetch_manifest_NAME.json]"
)
@click.option("--engine", default="local", show_default=True, help="Who runs the shards.")
def fetch(
    *,
    profile: str | None,
    date: str,
    shard_glob: str | None,
    concurrency: int | None,
    qps: float | None,
    parallel: int,
    resume: bool,
    retry_failed: str | None,
    allow_host: tuple[str, ...],
    max_bytes: int,
    dry_run: bool,
    status_file: Path | None,
    engine: str,
) -> None:
    """Fetch the day's images into the store, without any model: p1's first half, for a cheap machine.

    p1 then finds its images in the store. What failed here is counted, and p1 asks for it once more.
    """
    from modbot.cli.progress import telling
    from modbot.engine.fetch import FetchRequest, fetch_day, forecast_day

    require_engine(engine)
    settings = load()
    part = partition(settings, profile, date)
    request = FetchRequest(
        concurrency=concurrency or settings.analysis_concurrency,
        qps=qps or settings.analysis_qps,
        parallel=parallel,
        resume=resume,
        retry=None if retry_failed is None else failure_kinds(retry_failed),
        allow_hosts=(*settings.allow_hosts, *allow_host),
        max_bytes=max_bytes,
    )
    if dry_run:
        _foretell(forecast_day(part, settings, request, shard_glob=shard_glob))
        return
    _tell(fetch_day(part, settings, request, shard_glob=shard_glob, status_file=status_file, telling=telling))


def _foretell(f: Forecast) -> None:
    from modbot.cli.progress import duration
    from modbot.fetch.hosts import FORBIDDEN

    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(f.refused.items()))
    refused = f"{f.refused.total()} that cannot be fetched ({kinds})" if kinds else ""
    other = [refused, counted(f.files, "local file") if f.files else ""]
    click.echo(
        f"{counted(f.rows, 'link')}: "
        + ", ".join([counted(f.attachments, "distinct attachment"), *filter(None, other)])
    )
    if f.refused[FORBIDDEN]:
        click.echo(f"{FORBIDDEN}: name further hosts to fetch from with --allow-host or MODBOT_ALLOW_HOSTS")
    click.echo(f"{f.stored} stored, {f.attachments - f.stored} not")
    if f.expired:
        way = (
            f"{f.refreshable} of them get a fresh link by reading {counted(f.messages, 'message')}"
            if f.token
            else "set DISCORD_BOT_TOKEN for fresh links"
        )
        click.echo(f"{counted(f.expired, 'link has', 'links have')} expired: {way}")
    slowest = f.slowest
    limited = slowest.rate.qps is not None or slowest.rest_s
    time = f"about {duration(slowest.seconds)} at {slowest.rate}" if limited else "no limit of requests a second"
    rest = f", of which {duration(slowest.rest_s)} are a rest that {slowest.host} asked for" if slowest.rest_s else ""
    click.echo(f"{counted(f.requests, 'request')}: {time}{rest}\nnothing was sent")


def _tell(summary: FetchSummary) -> None:
    m = summary.metrics
    click.echo(
        f"fetch: {counted(m['rows'], 'row')}, {m['images_ok']} in the store, {failures(m)}; "
        f"{counted(m['requests'], 'request')}, {m['bytes'] / 1e6:.1f} MB, "
        f"{m['store_hits']} were stored already, {this_run(m, 'row')}"
    )
    click.echo(f"{summary.metrics_file}\n{summary.lines}")
