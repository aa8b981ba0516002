"""CACHE_DIR: what lies in it, whether the images are whole, and making room.

Images are the only thing that is ever removed here. What the models computed and compiled is told of, no more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path

import msgspec

from modbot.errors import BusyError, StorageError
from modbot.fetch.store import Image, Store
from modbot.files.lease import holder
from modbot.records.progress import Event, ShardAdvanced, ShardStarted
from modbot.stages.step import Telling

RECENT_S = 86_400.0
"""An image that was used within a day is never removed: a run under another OUT_DIR may be at work on it."""

IMAGES = "images"
_READERS = 4
_AT_ONCE = 256


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the cache: its folder below CACHE_DIR, and what is in it."""

    name: str
    files: int
    bytes: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in the cache. `oldest`: when the image that was not used for longest was used, in Unix seconds."""

    images: Part
    links: int
    oldest: float | None
    others: list[Part]
    free: int


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """How many images were read, and those that were not what their digest says: they are removed."""

    images: int
    bytes: int
    damaged: list[str]


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What was, or would be, removed; what is left; and why less went than was asked for, if it did.

    `recent`: images that had to go for the limit, and were used too lately.
    """

    removed: int
    removed_bytes: int
    links: int
    left: int
    left_bytes: int
    recent: int


def stats(cache_dir: Path) -> Stats:
    """What lies in the cache. Raises StorageError."""
    store = Store(cache_dir)
    files = size = 0
    oldest: float | None = None
    for image in store.images():
        files, size = files + 1, size + image.bytes
        oldest = image.used if oldest is None else min(oldest, image.used)
    free = os.statvfs(cache_dir)
    return Stats(
        images=Part(name=IMAGES, files=files, bytes=size),
        links=store.links(),
        oldest=oldest,
        others=[_part(cache_dir, folder) for folder in sorted(_other_folders(cache_dir))],
        free=free.f_bavail * free.f_frsize,
    )


def _other_folders(cache_dir: Path) -> Iterator[Path]:
    """The folders beside the images; of the scores, one for each model."""
    for folder in _folders(cache_dir):
        if folder.name == "scores":
            yield from _folders(folder)
        elif folder.name != IMAGES:
            yield folder


def _folders(folder: Path) -> list[Path]:
    try:
        return [Path(each.path) for each in os.scandir(folder) if each.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror})", where=str(folder)) from error


def _part(cache_dir: Path, folder: Path) -> Part:
    files = size = 0
    for path, _, names in os.walk(folder, onerror=_refuse):
        for name in names:
            with suppress(FileNotFoundError):  # gone since
                files, size = files + 1, size + (Path(path) / name).lstat().st_size
    return Part(name=str(folder.relative_to(cache_dir)), files=files, bytes=size)


def _refuse(error: OSError) -> None:
    raise StorageError(f"cannot be read ({error.strerror})", where=str(error.filename)) from error


def verify(cache_dir: Path, *, telling: Telling) -> Verified:
    """Reads every image and removes those that are not what their digest says: the next fetch gets them anew.

    Raises:
        StorageError
    """
    store = Store(cache_dir)
    images = [(image.sha256, image.bytes) for image in store.images()]
    damaged: list[str] = []
    done = 0
    with ThreadPoolExecutor(_READERS) as readers, telling("verify", len(images)) as report:
        report(ShardStarted(shard=IMAGES, rows=len(images), done=0, failed=0))
        rest = iter(images)
        while some := [digest for digest, _ in islice(rest, _AT_ONCE)]:
            for digest, whole in zip(some, readers.map(store.check, some), strict=True):
                done += 1
                if not whole:
                    damaged.append(digest)
                report(_advanced(done, len(damaged)))
    return Verified(images=len(images), bytes=sum(size for _, size in images), damaged=damaged)


def _advanced(done: int, failed: int) -> Event:
    return ShardAdvanced(shard=IMAGES, done=done, failed=failed)


def prune(
    cache_dir: Path,
    leases: Callable[[], Iterable[Path]],
    *,
    max_bytes: int | None,
    older_than: float | None,
    dry_run: bool,
) -> Pruned:
    """Removes the images that were not used for `older_than` seconds, then, least lately used first, what is too much.

    `leases` gives where running steps would have theirs: while one is at work, nothing is removed.

    Raises:
        BusyError: a step is at work.
        StorageError
    """
    if not dry_run:
        refuse_while_at_work(leases())
    store = Store(cache_dir)
    now = store.disk_time()
    images = sorted(store.images(), key=lambda image: (image.used, image.sha256))
    total = sum(image.bytes for image in images)
    chosen, recent = _choose(images, total, max_bytes=max_bytes, older_than=older_than, now=now)
    gone = chosen if dry_run else [image for image in chosen if store.drop(image)]
    removed = sum(image.bytes for image in gone)
    return Pruned(
        removed=len(gone),
        removed_bytes=removed,
        links=0 if dry_run else store.drop_loose_links(now),
        left=len(images) - len(gone),
        left_bytes=total - removed,
        recent=recent,
    )


def _choose(
    images: Iterable[Image], total: int, *, max_bytes: int | None, older_than: float | None, now: float
) -> tuple[list[Image], int]:
    """Which images go, and how many more would have to and were used too lately. `images`: least lately used first."""
    chosen: list[Image] = []
    recent = 0
    for image in images:
        age = now - image.used
        too_old = older_than is not None and age > older_than
        too_much = max_bytes is not None and total > max_bytes
        if not (too_old or too_much):
            break
        if age <= RECENT_S:
            recent += 1
        else:
            chosen.append(image)
        total -= image.bytes
    return chosen, recent


def refuse_while_at_work(leases: Iterable[Path]) -> None:
    """Raises BusyError if one of these leases is held by a run that lives."""
    for lease in leases:
        owner = holder(lease)
        if owner is not None:
            raise BusyError(
                f"nothing is removed while a step is at work: {owner}",
                where=str(lease),
                remedy="Run it again when that has ended, or look with --dry-run.",
            )
