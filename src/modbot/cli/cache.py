"""`modbot cache`: what lies in CACHE_DIR, whether the images are whole, and making room."""

from __future__ import annotations

import time

import click

from modbot.cli.options import AGE, SIZE
from modbot.errors import SettingError, UnmetError
from modbot.settings import load
from modbot.words import counted

SHOWN = 20


@click.group(epilog="Example: modbot cache stats")
def cache() -> None:
    """Look after CACHE_DIR: the images that were fetched, and what models keep there."""


@cache.command(epilog="Example: modbot cache stats")
def stats() -> None:
    """Say how much lies in the cache, by kind, and how much room is left."""
    from modbot.cli.progress import duration
    from modbot.cli.show import facts
    from modbot.stages.cache import stats as look

    settings = load()
    found = look(settings.cache_dir)
    unused = "" if found.oldest is None else f", the oldest unused for {duration(max(0.0, time.time() - found.oldest))}"
    facts(
        f"{settings.cache_dir}",
        [
            ("images", f"{counted(found.images.files, 'file')}, {amount(found.images.bytes)}{unused}"),
            ("links", f"{counted(found.links, 'attachment')} known"),
            *((part.name, f"{counted(part.files, 'file')}, {amount(part.bytes)}") for part in found.others),
            ("free", amount(found.free)),
        ],
    )


@cache.command(epilog="Example: modbot cache verify")
def verify() -> None:
    """Read every image; remove those that are not what their digest says, to be fetched anew.

    Ends with exit code 1 if there were any.
    """
    from modbot.cli.progress import telling
    from modbot.stages.cache import verify as run

    settings = load()
    found = run(settings.cache_dir, telling=telling)
    for digest in found.damaged[:SHOWN]:
        click.echo(f"damaged, removed: {digest}")
    if len(found.damaged) > SHOWN:
        click.echo(f"… and {len(found.damaged) - SHOWN} more")
    click.echo(f"{counted(found.images, 'image')}, {amount(found.bytes)}: {len(found.damaged)} damaged")
    if found.damaged:
        raise UnmetError(
            counted(len(found.damaged), "image was damaged, and is removed", "images were damaged, and are removed"),
            where=str(settings.cache_dir),
            remedy="modbot fetch gets those of its day again while their links last; p1 does, too.",
        )


@cache.command(epilog="Example: modbot cache prune --max-bytes 200GB --older-than 30d --dry-run")
@click.option("--max-bytes", type=SIZE, help="Keep at most so much of images: those least lately used go.")
@click.option("--older-than", type=AGE, help="Remove the images that were not used for so long: 30d, 12h.")
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
def prune(*, max_bytes: int | None, older_than: float | None, dry_run: bool) -> None:
    """Make room: remove images that were not used for longest.

    Never those that were used within a day, and nothing while a step is at work under OUT_DIR. Ends with exit code 1
    where the limit could not be met.
    """
    from modbot.files.paths import leases
    from modbot.stages.cache import prune as run

    if max_bytes is None and older_than is None:
        raise SettingError(
            "one of them is needed", where="--max-bytes, --older-than", remedy="Say what is to go: --older-than 30d."
        )
    settings = load()
    done = run(
        settings.cache_dir,
        lambda: leases(settings.out_dir),
        max_bytes=max_bytes,
        older_than=older_than,
        dry_run=dry_run,
    )
    would = "would be removed" if dry_run else "removed"
    links = f" with {counted(done.links, 'loose link')}" if done.links else ""
    click.echo(
        f"{counted(done.removed, 'image')}, {amount(done.removed_bytes)} {would}{links}; "
        f"{done.left}, {amount(done.left_bytes)} left"
    )
    if max_bytes is not None and done.left_bytes > max_bytes:
        raise UnmetError(
            f"{amount(done.left_bytes)} are left, more than {amount(max_bytes)}: "
            f"{counted(done.recent, 'image was', 'images were')} used within a day",
            where="--max-bytes",
            remedy="Run it again tomorrow, or set a higher limit.",
        )


def amount(size: int) -> str:
    """`1.2 GB`, `310 KB`, `12 bytes`."""
    value, unit = float(size), "bytes"
    for unit_ in ("KB", "MB", "GB", "TB"):
        if value < 1000:  # noqa: PLR2004 - where the next unit begins
            break
        value, unit = value / 1000, unit_
    return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"  # noqa: PLR2004 - digits
