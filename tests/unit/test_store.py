from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from modbot.errors import InputError, StorageError
from modbot.fetch import store as module
from modbot.fetch.store import ABANDONED_S, Store, Stored, TooLargeError
from modbot.files.processes import own_name

DATA = b"some image" * 1_000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def _put(store: Store, key: str = "key", data: bytes = DATA) -> Stored:
    with store.receive(key, limit=len(data)) as incoming:
        return incoming.finish(data)


def _files(store: Store) -> set[str]:
    return {str(path.relative_to(store._root)) for path in store._root.rglob("*") if path.is_file()}


def test_what_was_received_is_found_and_read(store: Store) -> None:
    assert store.find("key") is None
    stored = _put(store)
    assert stored == Stored(SHA, len(DATA))
    assert store.find("key") == stored
    assert store.read(SHA) == DATA
    assert store.find("another key") is None
    assert f"{SHA[:2]}/{SHA}" in _files(store)


def test_pieces_add_up(store: Store) -> None:
    with store.receive("key", limit=len(DATA)) as incoming:
        incoming.write(DATA[:7])
        incoming.write(DATA[7:7_000])
        assert incoming.finish(DATA[7_000:]) == Stored(SHA, len(DATA))
    assert store.read(SHA) == DATA


def test_one_image_under_two_keys_is_one_file(store: Store) -> None:
    _put(store, "one")
    before = len(_files(store))
    _put(store, "two")
    assert len(_files(store)) == before + 1
    assert store.find("one") == store.find("two")


def test_a_key_may_be_any_text(store: Store) -> None:
    for key in ("../../x", "a" * 10_000, "あ\udc80", "\0"):
        _put(store, key)
        assert store.find(key) is not None
    assert all(name.split("/")[0] in {SHA[:2], "links"} for name in _files(store))


def test_one_byte_too_many_is_refused_and_leaves_nothing(store: Store) -> None:
    with store.receive("key", limit=9) as incoming:
        incoming.write(b"12345")
        with pytest.raises(TooLargeError):
            incoming.write(b"67890")
    assert _files(store) == set()


def test_leaving_without_finish_leaves_nothing(store: Store) -> None:
    with store.receive("key", limit=9) as incoming:
        incoming.write(b"12345")
    assert _files(store) == set()
    assert store.find("key") is None


@pytest.mark.parametrize("damage", [DATA[:-1], DATA + b"x", b"", bytes(len(DATA))])
def test_a_damaged_image_is_removed_by_who_reads_it_and_replaced(store: Store, damage: bytes) -> None:
    _put(store)
    store.path(SHA).write_bytes(damage)
    assert (store.find("key") is not None) == (len(damage) == len(DATA))
    with pytest.raises(InputError, match=r"damaged\n.*Run p1 again"):
        store.read(SHA)
    assert store.find("key") is None
    _put(store)
    assert store.find("key") == Stored(SHA, len(DATA))
    assert store.read(SHA) == DATA


def test_to_find_an_image_is_not_to_read_it(store: Store) -> None:
    stored = _put(store)
    with mock.patch.object(hashlib, "sha256", wraps=hashlib.sha256) as sha256:
        assert store.find("key") == stored
    assert [call.args for call in sha256.call_args_list] == [(b"key",)]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EROFS])
def test_an_image_is_found_where_its_time_cannot_be_set(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    stored = _put(store)
    os.utime(store.path(SHA), (0, 0))

    def refuse(path: str) -> None:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(os, "utime", refuse)
    assert store.find("key") == stored


def test_a_disk_that_fails_where_an_image_is_found_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(store)
    os.utime(store.path(SHA), (0, 0))
    monkeypatch.setattr(os, "utime", mock.Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO))))
    with pytest.raises(StorageError, match="cannot be read"):
        store.find("key")


def test_what_replaced_a_damaged_image_meanwhile_stays(store: Store) -> None:
    _put(store)
    store.path(SHA).write_bytes(bytes(len(DATA)))

    def replaced(path: Path, damaged: os.stat_result, remove: Callable[..., None] = module._remove) -> None:
        _put(store, "another key")
        remove(path, damaged)

    with mock.patch.object(module, "_remove", replaced), pytest.raises(InputError):
        store.read(SHA)
    assert store.read(SHA) == DATA


@pytest.mark.parametrize("name", ["", "../../victim", f"{SHA}\n", SHA.upper(), "/etc/hostname"])
def test_what_is_no_digest_names_no_file(store: Store, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"of somebody else")
    with pytest.raises(InputError, match="no hex SHA-256"):
        store.read(name)
    assert victim.exists()


def test_a_damaged_link_is_no_link(store: Store, tmp_path: Path) -> None:
    _put(store)
    link = next(path for path in (store._root / "links").rglob("*") if path.is_file())
    other = f'{{"sha256": "../../../victim", "bytes": {len(DATA)}}}'.encode()
    (tmp_path / "victim").write_bytes(DATA)
    for text in (b"", b"{", b'{"sha256": 5}', b'{"sha256": "\xff"}', other):
        link.write_bytes(text)
        assert store.find("key") is None


def test_whatever_the_moment_of_a_crash_a_stored_image_is_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of the disk is refused once, the first only, the second only, ...: a kill stops just there."""

    class KilledError(BaseException):
        pass

    place = module._place
    for steps in range(3):
        left = [steps]

        def stopping(tmp: str, path: str, left: list[int] = left) -> None:
            if not left[0]:
                raise KilledError
            left[0] -= 1
            place(tmp, path)

        monkeypatch.setattr(module, "_place", stopping)
        key, data = f"key{steps}", f"image{steps}".encode()
        incoming = store.receive(key, limit=100)
        if steps < 2:
            with pytest.raises(KilledError):
                incoming.finish(data)
        else:
            incoming.finish(data)
        in_place = store.path(hashlib.sha256(data).hexdigest()).exists()
        assert (store.find(key) is not None) == in_place == (steps == 2)
        monkeypatch.setattr(module, "_place", place)
        _put(store, key, data)
        assert store.find(key) is not None


def test_sweep_removes_what_a_dead_process_left_and_spares_the_living(store: Store, tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from modbot.fetch.store import Store;"
        "incoming = Store(Path(sys.argv[1])).receive('k', limit=9); incoming.write(b'dead'); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == 9
    with store.receive("key", limit=len(DATA)) as incoming:
        incoming.write(DATA[:10])
        assert len(_files(store)) == 2
        assert store.sweep() == 1
        incoming.finish(DATA[10:])
    assert store.find("key") is not None
    assert store.sweep() == 0


def test_sweep_judges_another_machine_by_age_alone(store: Store) -> None:
    young, old = (store._tmp / f"otherworld.1.1.{name}.tmp" for name in ("young", "old"))
    stray = store._tmp / "stray.tmp"
    for path in (young, old, stray):
        path.write_bytes(b"x")
    for path in (old, stray):
        state = path.stat()
        os.utime(path, (state.st_atime, state.st_mtime - ABANDONED_S - 60))
    assert store.sweep() == 2
    assert young.exists()


def test_a_reused_process_id_is_not_mistaken_for_the_owner(store: Store) -> None:
    tmp = store._tmp / f"{own_name()}.{os.getpid()}.1.x.tmp"
    tmp.write_bytes(b"x")
    assert store.sweep() == 1


def test_two_at_the_same_image_do_not_disturb_each_other(store: Store) -> None:
    threads = [threading.Thread(target=_put, args=(store, f"key{i % 3}")) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {store.find(f"key{i}") for i in range(3)} == {Stored(SHA, len(DATA))}
    assert not list(store._tmp.iterdir())


def test_a_full_disk_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(module, "_place", full)
    with pytest.raises(StorageError, match="the disk is full"):
        _put(store)
    assert not list(store._tmp.iterdir())


def test_a_store_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="images"):
        Store(tmp_path)
