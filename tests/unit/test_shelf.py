"""Results kept by content: found again, whole or not at all, whatever became of the run that wrote them."""

from __future__ import annotations

import errno
import hashlib
import os
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.errors import StorageError
from modbot.files import shelf
from modbot.files.atomic import write_all
from modbot.files.shelf import Shelf, ShelfWriter, sweep

RECORDS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.binary(max_size=40)), max_size=20)


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def write(folder: Path, *numbers: int) -> Path:
    """One file with a record for each number; gives its path."""
    before = set(folder.glob("*.shelf"))
    with ShelfWriter(folder) as writer:
        for number in numbers:
            writer.put(digest(number), f"payload {number}".encode())
    (path,) = set(folder.glob("*.shelf")) - before
    return path


def opened(folder: Path) -> Shelf:
    """The shelf with all that lies there now, none of it damaged."""
    kept = Shelf(folder)
    assert kept.refresh() == []
    return kept


def dead(path: Path) -> Path:
    """The file as a run leaves it that was killed: under its temporary name, of a process that is no more."""
    table, pid, _, *rest = path.name.split(".")
    return path.rename(path.with_name(".".join([table, pid, "0", *rest]) + ".tmp"))


def unfinished(path: Path) -> None:
    """Takes index and trailer away."""
    whole = path.read_bytes()
    end = int.from_bytes(whole[-32:-24], "little")
    path.write_bytes(whole[:end])


@given(files=st.lists(RECORDS, max_size=4))
def test_what_was_put_is_found(
    files: list[list[tuple[int, int, bytes]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shelf")
    put: dict[tuple[str, int], set[bytes]] = {}
    for records in files:
        with ShelfWriter(folder) as writer:
            for number, part, payload in records:
                writer.put(digest(number), payload, part)
                put.setdefault((digest(number), part), set()).add(payload)
    with opened(folder) as kept:
        assert len(kept) == sum(map(len, files))
        for number in range(6):
            for part in range(4):
                found = kept.get(digest(number), part)
                expected = put.get((digest(number), part))
                assert found in expected if expected else found is None


def test_there_is_no_file_without_a_record(tmp_path: Path) -> None:
    with ShelfWriter(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    with opened(tmp_path / "new") as kept:
        assert kept.get(digest(1)) is None


def test_a_reader_takes_in_what_has_appeared(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with opened(tmp_path) as kept:
        write(tmp_path, 2)
        assert kept.get(digest(2)) is None
        kept.refresh()
        kept.refresh()
        assert (len(kept), kept.get(digest(1)), kept.get(digest(2))) == (2, b"payload 1", b"payload 2")


def test_many_files_are_read_with_few_of_them_open(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path, number)
    with opened(tmp_path) as kept:
        for number in [*range(40), *range(40)]:
            assert kept.get(digest(number)) == f"payload {number}".encode()


def test_a_run_that_fails_keeps_what_it_computed(tmp_path: Path) -> None:
    writer = ShelfWriter(tmp_path)

    def fail() -> None:
        with writer:
            writer.put(digest(1), b"true all the same")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with opened(tmp_path) as kept:
        assert kept.get(digest(1)) == b"true all the same"


def test_what_is_being_written_is_known_to_its_writer(tmp_path: Path) -> None:
    with ShelfWriter(tmp_path) as writer:
        assert writer.get(digest(1)) is None
        writer.put(digest(1), b"first")
        writer.put(digest(1), b"of part 2", 2)
        assert (writer.get(digest(1)), writer.get(digest(1), 2)) == (b"first", b"of part 2")
        assert writer.get(digest(2)) is None
        writer.put(digest(1), b"second")
        assert writer.get(digest(1)) == b"second"
        assert opened(tmp_path).get(digest(1)) is None
        (path,) = tmp_path.iterdir()
        path.write_bytes(path.read_bytes().replace(b"second", b"rotten"))
        assert writer.get(digest(1)) is None


def test_what_a_killed_run_left_is_published(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2)
    unfinished(path)
    left = dead(path)
    assert sweep(tmp_path) == 1
    assert not left.exists()
    with opened(tmp_path) as kept:
        assert (kept.get(digest(1)), kept.get(digest(2))) == (b"payload 1", b"payload 2")


@pytest.mark.parametrize("cut", [1, 10, 52])
def test_a_torn_record_is_left_out(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path, 1, 2)
    unfinished(path)
    os.truncate(path, path.stat().st_size - cut)
    dead(path)
    assert sweep(tmp_path) == 1
    with opened(tmp_path) as kept:
        assert (kept.get(digest(1)), kept.get(digest(2)), len(kept)) == (b"payload 1", None, 1)


def test_a_live_run_is_left_alone(tmp_path: Path) -> None:
    with ShelfWriter(tmp_path) as writer:
        writer.put(digest(1), b"under way")
        assert sweep(tmp_path) == 0
        assert len(list(tmp_path.glob("*.tmp"))) == 1
    assert sweep(tmp_path) == 0


def test_a_record_that_rotted_is_not_given(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2)
    rotten = bytearray(path.read_bytes())
    rotten[50] ^= 1
    path.write_bytes(rotten)
    write(tmp_path, 3)
    with opened(tmp_path) as kept:
        assert (kept.get(digest(1)), kept.get(digest(2)), kept.get(digest(3))) == (None, b"payload 2", b"payload 3")


def test_the_sound_one_of_two_is_given(tmp_path: Path) -> None:
    first = write(tmp_path, 1)
    write(tmp_path, 1)
    rotten = bytearray(first.read_bytes())
    rotten[50] ^= 1
    first.write_bytes(rotten)
    with opened(tmp_path) as kept:
        assert kept.get(digest(1)) == b"payload 1"


@pytest.mark.parametrize("damage", [b"", b"no shelf at all", bytes(200)])
def test_a_file_that_is_none_is_named_and_passed_over(tmp_path: Path, damage: bytes) -> None:
    bad = write(tmp_path, 1)
    bad.write_bytes(damage)
    write(tmp_path, 2)
    with Shelf(tmp_path) as kept:
        assert (kept.refresh(), kept.get(digest(2))) == ([bad], b"payload 2")
        assert kept.refresh() == []


def test_of_a_file_without_its_index_the_records_are_found(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2)
    unfinished(path)
    with Shelf(tmp_path) as kept:
        assert (kept.refresh(), kept.get(digest(2))) == ([path], b"payload 2")


def test_an_index_that_lies_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2)
    lying = bytearray(path.read_bytes())
    end = int.from_bytes(lying[-32:-24], "little")
    lying[end + 40 : end + 48] = (1 << 62).to_bytes(8, "little")
    path.write_bytes(lying)
    with Shelf(tmp_path) as kept:
        assert (kept.refresh(), kept.get(digest(1)), kept.get(digest(2))) == ([path], b"payload 1", b"payload 2")


def test_a_file_that_was_pruned_meanwhile_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    with opened(tmp_path) as kept:
        path.unlink()
        assert kept.get(digest(1)) is None


def test_the_disk_is_named_when_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with ShelfWriter(tmp_path / "file") as writer, pytest.raises(StorageError, match="file"):
        writer.put(digest(1), b"x")


def test_the_largest_payload_is_kept_and_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "LARGEST", 4)
    with ShelfWriter(tmp_path) as writer:
        writer.put(digest(1), b"1234")
        with pytest.raises(ValueError, match="5 bytes"):
            writer.put(digest(2), b"12345")


def test_what_a_full_disk_took_a_part_of_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(file: FileIO, data: bytes) -> None:
        write_all(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with ShelfWriter(tmp_path) as writer:
        writer.put(digest(1), b"one")
        with monkeypatch.context() as patch:
            patch.setattr(shelf, "write_all", half)
            with pytest.raises(StorageError, match="the disk is full"):
                writer.put(digest(2), b"two")
        writer.put(digest(3), b"three")
    with opened(tmp_path) as kept:
        assert [kept.get(digest(number)) for number in (1, 2, 3)] == [b"one", None, b"three"]
