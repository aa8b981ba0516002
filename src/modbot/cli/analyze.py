"""`modbot analyze`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modbot.cli.options import (
    COUNT,
    PATH,
    QPS,
    partition,
    partition_options,
    require_engine,
    tell_unmatchable,
    this_run,
)
from modbot.errors import SettingError
from modbot.settings import PROVIDERS, load
from modbot.words import counted

if TYPE_CHECKING:
    from modbot.signals import GateMode

GATES = ("auto", "always", "never")
GPU_BATCH = 16
"""Images a batch on a GPU where nothing else is said: the runbook's value."""


class WithExtraArguments(click.Command):
    """A command whose `--extra-args` is split as a shell would, and comes last: a flag given there wins."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, extra = _apart(args)
        return super().parse_args(ctx, own + [word for text in extra for word in _words(text)])


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise SettingError(str(error), where="--extra-args", remedy="Close the quotation mark.") from None


def _apart(args: list[str]) -> tuple[list[str], list[str]]:
    own: list[str] = []
    extra: list[str] = []
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--extra-args":
            own.append(word)
            continue
        text = value if equals else next(words, None)
        if text is None:
            raise SettingError("needs a value", where="--extra-args", remedy='For example "--nudenet-mode auto".')
        extra.append(text)
    return own, extra


@click.command(
    cls=WithExtraArguments,
    epilog="Example: modbot analyze --date 2025-10-01 --parallel 2 --resume --nudenet-mode auto",
)
@partition_options
@click.option(
    "--shard-glob", metavar="GLOB", help="The shards.  [default: OUT_DIR/profiles/NAME/p0/shards/shard_*.csv]"
)
@click.option(
    "--nudenet-mode",
    "gate",
    type=click.Choice(GATES),
    default="auto",
    show_default=True,
    help="auto: NudeNet where the ratings reach the rules file's thresholds.",
)
@click.option("--provider", type=click.Choice(PROVIDERS), help="What runs NudeNet.  [default: NUDENET_PROVIDER]")
@click.option("--require-provider", is_flag=True, help="End with an error where another would have to go on.")
@click.option("--model", metavar="NAME", help="The detector.  [default: NUDENET_MODEL]")
@click.option("--batch-size", "batch", type=COUNT, help="Images a batch.  [default: NUDENET_BATCH; 1 on a CPU]")
@click.option("--qps", type=QPS, help="Accepted for the runbook's sake: p2 sends no requests.")
@click.option("--concurrency", type=COUNT, help="Likewise.")
@click.option("--parallel", type=COUNT, default=1, show_default=True, help="Shards at once, each in a process.")
@click.option("--resume", is_flag=True, help="Only what is unfinished, or was done with other settings.")
@click.option("--rules-config", type=PATH, help="Rules file: gate and vocabulary.  [default: configs/rules.yaml]")
@click.option(
    "--status-file", type=PATH, help="Manifest.  [default: OUT_DIR/profiles/NAME/status/p2_manifest_NAME.json]"
)
@click.option("--engine", default="local", show_default=True, help="Who runs the shards.")
@click.option("--extra-args", metavar="FLAGS", expose_value=False, help="Further flags in one text; they win.")
def analyze(
    *,
    profile: str | None,
    date: str,
    shard_glob: str | None,
    gate: GateMode,
    provider: str | None,
    require_provider: bool,
    model: str | None,
    batch: int | None,
    qps: float | None,  # noqa: ARG001 - accepted, see its help
    concurrency: int | None,  # noqa: ARG001 - accepted, see its help
    parallel: int,
    resume: bool,
    rules_config: Path | None,
    status_file: Path | None,
    engine: str,
) -> None:
    """p2: run NudeNet where the ratings say so, and compute the signals that cross both.

    It reads the images that p1 stored; it sends no requests.
    """
    from modbot.cli.progress import telling
    from modbot.engine.p2 import AnalyzeRequest, analyze_day
    from modbot.models.execution import Execution

    require_engine(engine)
    settings = load()
    request = AnalyzeRequest(
        model=model or settings.nudenet_model,
        execution=Execution(
            provider=provider or settings.nudenet_provider,
            batch=batch or settings.nudenet_batch,
            most=GPU_BATCH,
            required=require_provider,
            cache_dir=settings.cache_dir,
        ),
        gate=gate,
        parallel=parallel,
        resume=resume,
        rules=rules_config,
    )
    part = partition(settings, profile, date)
    summary = analyze_day(part, settings, request, shard_glob=shard_glob, status_file=status_file, telling=telling)
    m = summary.metrics
    click.echo(
        f"p2: {counted(m['records'], 'record')}, NudeNet on {m['nudenet_executed']}, known of {m['nudenet_reused']}, "
        f"skipped {m['nudenet_skipped']}, "
        f"failed {m['nudenet_failed']}; {this_run(m, 'record')} ({', '.join(m['running']) or 'no detector'})"
    )
    click.echo(f"p2: {summary.flow}\n{summary.merged}\n{summary.metrics_file}")
    tell_unmatchable(m["taggers"], rules_config)
