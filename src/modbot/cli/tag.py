"""`modbot tag`."""

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
    tell_unmatchable,
    this_run,
)
from modbot.errors import SettingError
from modbot.settings import PRECISIONS, PROVIDERS, load
from modbot.words import counted

if TYPE_CHECKING:
    from modbot.engine.p1 import TagSummary

DEFAULT_FRAMES = 5


@click.command(
    epilog="Example: modbot tag --date 2025-10-01 --model open_nsfw --parallel 2 --resume\n\n"
    "One CSV: modbot tag --input index.csv --out p1.jsonl --metrics p1.json --model open_nsfw"
)
@partition_options
@click.option(
    "--shard-glob", metavar="GLOB", help="The shards.  [default: OUT_DIR/profiles/NAME/p0/shards/shard_*.csv]"
)
@click.option("--provider", type=click.Choice(PROVIDERS), help="What runs the model.  [default: WD14_PROVIDER]")
@click.option("--require-provider", is_flag=True, help="End with an error where another would have to go on.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=PRECISIONS[0],
    show_default=True,
    help="fp16: faster on a GPU, scores within about 0.001; never chosen by itself.",
)
@click.option("--calibration", type=PATH, help="Calibrated ratings: a file of `modbot models calibrate`.")
@click.option("--model", metavar="NAME", help="The tagger: see `modbot models list`.  [default: WD14_MODEL]")
@click.option(
    "--batch-size", "batch", type=COUNT, help="Images a batch.  [default: WD14_BATCH; by the GPU; 1 on a CPU]"
)
@click.option(
    "--frames", type=COUNT, default=DEFAULT_FRAMES, show_default=True, help="Of an animation, those most different."
)
@click.option(
    "--fast-decode",
    is_flag=True,
    help="Decode large JPEGs to a part of their size: faster; scores and pHash are not quite those of the whole.",
)
@fetching_options
@click.option("--parallel", type=COUNT, default=1, show_default=True, help="Shards at once, each in a process.")
@click.option("--resume", is_flag=True, help="Only what is unfinished, or was done with other settings.")
@click.option("--rules-config", type=PATH, help="Rules file whose tag groups are kept.  [default: configs/rules.yaml]")
@click.option(
    "--status-file", type=PATH, help="Manifest.  [default: OUT_DIR/profiles/NAME/status/p1_manifest_NAME.json]"
)
@click.option("--engine", default="local", show_default=True, help="Who runs the shards.")
@click.option("--input", "source", type=PATH, help="One CSV instead of the day's shards.")
@click.option("--out", type=PATH, help="With --input: the p1 file.")
@click.option("--metrics", type=PATH, help="With --input: the metrics file.  [default: OUT with .metrics.json]")
def tag(
    *,
    profile: str | None,
    date: str,
    shard_glob: str | None,
    provider: str | None,
    require_provider: bool,
    precision: str,
    calibration: Path | None,
    model: str | None,
    batch: int | None,
    frames: int,
    fast_decode: bool,
    concurrency: int | None,
    qps: float | None,
    parallel: int,
    resume: bool,
    retry_failed: str | None,
    rules_config: Path | None,
    allow_host: tuple[str, ...],
    max_bytes: int,
    status_file: Path | None,
    engine: str,
    source: Path | None,
    out: Path | None,
    metrics: Path | None,
) -> None:
    """p1: fetch each image once within one rate budget, hash it, tag it.

    A killed run goes on where it was with --resume. A failed image becomes a record with an error.
    """
    from modbot.cli.progress import telling
    from modbot.engine.p1 import TagRequest, tag_day, tag_file
    from modbot.models.execution import Execution

    require_engine(engine)
    settings = load()
    part = partition(settings, profile, date)
    request = TagRequest(
        model=model or settings.wd14_model,
        execution=Execution(
            provider=provider or settings.wd14_provider,
            precision=precision,
            batch=batch or settings.wd14_batch,
            required=require_provider,
            cache_dir=settings.cache_dir,
        ),
        calibration=calibration,
        frames=frames,
        fast_decode=fast_decode,
        concurrency=concurrency or settings.analysis_concurrency,
        qps=qps or settings.analysis_qps,
        parallel=parallel,
        resume=resume,
        retry=None if retry_failed is None else failure_kinds(retry_failed),
        rules=rules_config,
        allow_hosts=(*settings.allow_hosts, *allow_host),
        max_bytes=max_bytes,
    )
    if source is None:
        if out is not None or metrics is not None:
            raise SettingError("goes with --input", where="--out, --metrics", remedy="Name the CSV with --input.")
        summary = tag_day(part, settings, request, shard_glob=shard_glob, status_file=status_file, telling=telling)
    else:
        if out is None:
            raise SettingError("is missing", where="--out", remedy="Name the p1 file to write.")
        if shard_glob is not None:
            raise SettingError("does not go with --input", where="--shard-glob", remedy="Leave one of them out.")
        metrics_file = metrics or out.with_suffix(".metrics.json")
        summary = tag_file(
            part,
            settings,
            request,
            source=source,
            out=out,
            metrics_file=metrics_file,
            status_file=status_file,
            telling=telling,
        )
    _tell(summary)
    tell_unmatchable([request.model], rules_config)


def _tell(summary: TagSummary) -> None:
    m = summary.metrics
    calibration = m["settings"]["calibration"]
    how = ", ".join(m["running"]) + (f"; calibrated by {calibration}" if calibration else "")
    click.echo(
        f"p1: {counted(m['rows'], 'row')}, {counted(m['images_ok'], 'image')}, {failures(m)}; "
        f"{counted(m['records'], 'record')}; {counted(m['requests'], 'request')}, "
        f"{m['store_hits']} from the store, {m['inferred']} inferred, "
        f"{this_run(m, 'row')} ({how})"
    )
    click.echo(f"p1: {summary.flow}\n{summary.merged}\n{summary.metrics_file}")
