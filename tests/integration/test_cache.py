"""`modbot cache`: what lies there, whether it is whole, and what goes when room is needed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modbot.cli.main import main
from modbot.cli.options import age, size
from modbot.fetch.store import MAX_BYTES, Store, Stored
from modbot.files.lease import hold_file, holder

DAY = 86_400.0
Cache = Callable[..., str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cache:
    """Runs `modbot cache …`, which must end with the code, and gives what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OUT_DIR", str(tmp_path / "out"))

    def run(*arguments: str, code: int = 0) -> str:
        ended = main(["cache", *arguments])
        said = capsys.readouterr()
        assert ended == code, said
        return said.out + said.err

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def put(store: Store, name: str, count: int, *, days_old: float = 0.0) -> Stored:
    """An image of so many bytes under the key `name`, last used so long ago."""
    data = (name * count).encode()[:count]
    with store.receive(name, limit=10**9) as incoming:
        stored = incoming.finish(data)
    used = time.time() - days_old * DAY
    os.utime(store.path(stored.sha256), (used, used))
    os.utime(store._link(name), (used, used))
    return stored


def names(store: Store) -> set[str]:
    return {image.sha256 for image in store.images()}


def test_what_lies_there_is_told(cache: Cache, store: Store, tmp_path: Path) -> None:
    put(store, "a", 1_500, days_old=3)
    put(store, "b", 2_000)
    for name in ("scores/tagger@1/x.shelf", "scores/320n@2/y.shelf", "trt/abc/engine"):
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(1_000_000))
    (tmp_path / "cache" / "elsewhere").symlink_to("/usr")
    said = cache("stats")
    assert "images: 2 files, 3.5 KB, the oldest unused for 72 h 00 min" in said
    assert "links: 2 attachments known" in said
    for line in (
        "scores/320n@2: 1 file, 1.0 MB",
        "scores/tagger@1: 1 file, 1.0 MB",
        "trt: 1 file, 1.0 MB",
        "free: ",
    ):
        assert f"\n{line}" in said
    assert "elsewhere" not in said


def test_damaged_images_are_told_and_removed(cache: Cache, store: Store) -> None:
    good, bad, short = (put(store, name, 1_000) for name in "abc")
    assert "3 images, 3.0 KB: 0 damaged" in cache("verify")
    store.path(bad.sha256).write_bytes(bytes(1_000))
    store.path(short.sha256).write_bytes(b"c")
    said = cache("verify", code=1)
    assert f"damaged, removed: {bad.sha256}\n" in said
    assert f"damaged, removed: {short.sha256}\n" in said
    assert "2 images were damaged, and are removed" in said
    assert names(store) == {good.sha256}
    assert store.find("b") is None
    cache("verify")


def test_what_was_not_used_for_longest_goes_first(cache: Cache, store: Store) -> None:
    old, older, oldest, new = (
        put(store, name, 1_000, days_old=days) for name, days in zip("abcd", (10, 20, 40, 0), strict=True)
    )
    said = cache("prune", "--max-bytes", "3KB", "--dry-run")
    assert "1 image, 1.0 KB would be removed; 3, 3.0 KB left" in said
    assert len(names(store)) == 4
    assert "1 image, 1.0 KB removed with 1 loose link; 3, 3.0 KB left" in cache("prune", "--older-than", "30d")
    assert names(store) == {old.sha256, older.sha256, new.sha256}
    assert store.find("b") == older  # and now it is one that is in use
    assert "1 image, 1.0 KB removed" in cache("prune", "--max-bytes", "2 kb")
    assert names(store) == {older.sha256, new.sha256}
    assert store.find("c") is None
    assert oldest.sha256 not in names(store)


def test_what_is_in_use_stays_though_the_limit_is_not_met(cache: Cache, store: Store) -> None:
    recent, old = put(store, "a", 5_000, days_old=0.5), put(store, "b", 1_000, days_old=2)
    said = cache("prune", "--max-bytes", "1KB", "--older-than", "1h", code=1)
    assert "1 image, 1.0 KB removed" in said
    assert "5.0 KB are left, more than 1.0 KB: 1 image was used within a day" in said
    assert names(store) == {recent.sha256}
    assert old.sha256 not in names(store)


def test_nothing_goes_while_a_step_is_at_work(cache: Cache, store: Store, tmp_path: Path) -> None:
    put(store, "a", 1_000, days_old=90)
    lease = tmp_path / "out" / "profiles" / "other" / "status" / "lease_2025-10-01.json"
    with hold_file(lease, "modbot tag"):
        said = cache("prune", "--older-than", "30d", code=1)
        assert "nothing is removed while a step is at work: 'modbot tag'" in said
        assert "1 image, 1.0 KB would be removed" in cache("prune", "--older-than", "30d", "--dry-run")
        assert len(names(store)) == 1
    cache("prune", "--older-than", "30d")
    assert names(store) == set()


def test_a_dead_runs_lease_holds_nothing_up(cache: Cache, store: Store, tmp_path: Path) -> None:
    put(store, "a", 1_000, days_old=90)
    lease = tmp_path / "out" / "profiles" / "p" / "status" / "lease_2025-10-01.json"
    with hold_file(lease, "modbot tag"):
        held = json.loads(lease.read_bytes())
    lease.write_text(json.dumps(held | {"process_start": "1"}))
    assert holder(lease) is None
    cache("prune", "--older-than", "30d")
    assert names(store) == set()


@pytest.mark.usefixtures("store")
def test_links_out_of_the_store_are_never_followed(cache: Cache, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    digest = hashlib.sha256(b"x").hexdigest()
    precious = outside / digest
    precious.write_bytes(b"not what its name says")
    past = time.time() - 90 * DAY
    os.utime(precious, (past, past))
    images = tmp_path / "cache" / "images"
    (images / digest[:2]).symlink_to(outside)  # a folder that leads away
    (images / "00").mkdir()
    (images / "00" / ("0" * 64)).symlink_to(precious)  # a file that does
    (images / "links" / "00").parent.mkdir(exist_ok=True)
    (images / "links" / "00").symlink_to(outside)
    assert "0 images" in cache("verify")
    assert "0 images" in cache("prune", "--older-than", "1h")
    assert precious.read_bytes() == b"not what its name says"
    assert (images / "00" / ("0" * 64)).is_symlink()


def test_an_image_used_since_it_was_chosen_stays(store: Store) -> None:
    put(store, "a", 1_000, days_old=90)
    [image] = store.images()
    assert store.find("a") is not None
    assert not store.drop(image)
    [used] = store.images()
    assert used.used > image.used
    assert store.drop(used)
    assert store.drop(used)  # another was faster


def test_a_young_link_waits_for_its_image(store: Store) -> None:
    put(store, "a", 10)
    [image] = store.images()
    store.drop(image)
    assert store.drop_loose_links(time.time()) == 0
    assert store.drop_loose_links(time.time() + 2 * 3_600) == 1
    assert store.links() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("prune",),
        ("prune", "--max-bytes", "0"),
        ("prune", "--max-bytes", "-1GB"),
        ("prune", "--max-bytes", "much"),
        ("prune", "--older-than", "30"),
        ("prune", "--older-than", "30y"),
    ],
)
def test_what_cannot_be_meant_is_refused(cache: Cache, store: Store, arguments: tuple[str, ...]) -> None:
    put(store, "a", 10, days_old=90)
    cache(*arguments, code=2)
    assert len(names(store)) == 1


def test_sizes_and_ages_as_people_write_them() -> None:
    assert [size(text) for text in ("50MB", "20 gb", "1.5GiB", "7", "12b", "3K")] == [
        MAX_BYTES,
        20_000_000_000,
        1_610_612_736,
        7,
        12,
        3_000,
    ]
    assert [age(text) for text in ("30d", "12h", "1.5 h", "2w", "5m")] == [30 * DAY, DAY / 2, 5_400, 14 * DAY, 300]
