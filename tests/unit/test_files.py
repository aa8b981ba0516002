from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.errors import BusyError, IncompleteError, SettingError, StorageError
from modbot.files import journal as journals
from modbot.files import lease as leases
from modbot.files.atomic import ABANDONED_S, storage_errors, tmp_of, write_bytes, writing
from modbot.files.journal import Journal, ShardFiles, digest_of, read_receipt
from modbot.files.lease import Lease, hold, hold_file
from modbot.files.paths import Partition, check_date, check_profile
from modbot.files.processes import own_name, process_table, started
from modbot.records.jsonl import encode_line
from modbot.records.p1 import P1Record, RecordError
from modbot.stages.step import shard_work
from tests.engine_jobs import Job


def line(row: int, kind: str | None = None) -> bytes:
    error = None if kind is None else RecordError(kind=kind, detail="x")
    return encode_line(P1Record(row=row, error=error))


class TestAtomic:
    def test_a_file_appears_whole_and_leaves_nothing_beside_it(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "file"
        with writing(path) as out:
            out.write(b"half")
            assert not path.exists()
            (tmp,) = path.parent.iterdir()
            assert tmp.name.startswith("file.")
            assert tmp.suffix == ".tmp"
        assert path.read_bytes() == b"half"
        assert list(path.parent.iterdir()) == [path]

    def test_what_was_there_stays_when_the_block_fails(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_bytes(path, b"old")

        def fail() -> None:
            with writing(path) as out:
                out.write(b"new")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            (errno.ENOSPC, "the disk is full"),
            (errno.EDQUOT, "the disk quota is used up"),
            (errno.EROFS, "the disk is read-only"),
            (errno.EACCES, "not allowed to write here"),
            (errno.EIO, "cannot be written"),
        ],
    )
    def test_what_the_disk_refuses_is_told_with_the_file(self, code: int, told: str) -> None:
        with pytest.raises(StorageError, match=told) as raised, storage_errors("some/file"):
            raise OSError(code, os.strerror(code))
        assert raised.value.where == "some/file"

    def test_two_writers_at_once_each_publish_their_own(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        with writing(path) as first:
            first.write(b"first")
            with writing(path) as second:
                second.write(b"second")
            assert path.read_bytes() == b"second"
        assert path.read_bytes() == b"first"
        assert list(tmp_path.iterdir()) == [path]

    def test_the_name_may_be_settled_last(self, tmp_path: Path) -> None:
        with writing(tmp_path / "whole") as draft:
            draft.write(b"x")
            draft.path = tmp_path / "part"
        assert [path.name for path in tmp_path.iterdir()] == ["part"]

    def test_what_the_dead_left_of_a_file_goes_with_the_next_writing(self, tmp_path: Path) -> None:
        path = tmp_path / "file[1].json"
        here, pid = own_name(), os.getpid()
        ended = subprocess.Popen(["true"])  # noqa: S607 - the system's own
        ended.wait()
        old = time.time() - ABANDONED_S - 60
        dead = {
            f"{path.name}.{here}.{ended.pid}.1.0.tmp": None,
            f"{path.name}.{here}.{pid}.1.0.tmp": None,
            f"{path.name}.elsewhere.1.1.0.tmp": old,
        }
        living = {
            tmp_of(path).name: old,
            f"{path.name}.elsewhere.1.1.1.tmp": old + 120,
            f"other.json.{here}.{pid}.1.0.tmp": old,
            f"{path.name}.0123456789abcdef.tmp": old,
            f"{path.name}.tmp": old,
        }
        for name, changed in (dead | living).items():
            (tmp_path / name).touch()
            if changed is not None:
                os.utime(tmp_path / name, (changed, changed))
        write_bytes(path, b"x")
        assert {each.name for each in tmp_path.iterdir()} == {path.name, *living}

    def test_only_what_the_disk_refuses_the_file_is_told_as_its(self, tmp_path: Path) -> None:
        def read_badly() -> None:
            with writing(tmp_path / "file"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with pytest.raises(OSError, match="Input/output error"):
            read_badly()
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_in_the_files_place_is_named_itself(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="there is a folder of that name") as raised:
            write_bytes(tmp_path, b"x")
        assert raised.value.where == str(tmp_path)

    @pytest.mark.parametrize("size", [5_000, 5_000_000])
    def test_a_write_that_the_disk_refuses_is_told_with_the_file(self, tmp_path: Path, size: int) -> None:
        path = tmp_path / "file"
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
        try:
            with pytest.raises(StorageError, match="File too large") as raised:
                write_bytes(path, b"x" * size)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert raised.value.where == str(path)
        assert list(tmp_path.iterdir()) == []


class TestPaths:
    @pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", ".x", "a\0", "a\n", "x" * 65, "プロ"])
    def test_a_name_that_leads_elsewhere_is_no_profile(self, name: str) -> None:
        with pytest.raises(SettingError):
            check_profile(name)

    @pytest.mark.parametrize("text", ["", "today", "2025-1-1", "2025-02-30", "20250101", "2025-W01-1", "2025-01-01T00"])
    def test_what_is_no_day_is_no_date(self, text: str) -> None:
        with pytest.raises(SettingError):
            check_date(text)

    def test_a_partition_stays_below_its_folder(self) -> None:
        with pytest.raises(SettingError):
            Partition(Path("out"), "../x", "2025-10-01")


def journal_of(folder: Path, *, resume: bool, settings: str = "s", inputs: str = "i") -> Journal:
    return Journal(ShardFiles(folder, "shard_00"), settings=settings, inputs=inputs, resume=resume)


class TestJournal:
    @given(data=st.data())
    def test_any_cut_leaves_the_whole_lines_before_it(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("journal")
        lines = [line(row, kind) for row, kind in enumerate(data.draw(st.lists(st.sampled_from([None, "timeout"]))))]
        with journal_of(folder, resume=False) as journal:
            for each in lines:
                journal.append(each)
            path = journal.path
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        garbage = data.draw(st.binary(max_size=20))
        path.write_bytes(whole[:cut] + garbage)
        with journal_of(folder, resume=True) as journal:
            kept = path.read_bytes()
            assert whole.startswith(kept)
            assert whole[: len(kept)].count(b"\n") == len(journal.rows)
            assert len(journal.rows) >= whole[:cut].count(b"\n")
            for row in range(len(journal.rows), len(lines)):
                journal.append(lines[row])
        assert path.read_bytes() == whole

    def test_a_run_that_wakes_up_late_writes_where_nobody_reads(self, tmp_path: Path) -> None:
        with journal_of(tmp_path, resume=False) as frozen:
            frozen.append(line(0))
            with journal_of(tmp_path, resume=True) as follower:
                frozen.append(line(1))
                follower.append(line(1, "timeout"))
                with pytest.raises(BusyError, match="another run has taken this shard over"):
                    frozen.finish(step="p1", rows=2, finished_at="now", counters={}, detail={})
                follower.finish(step="p1", rows=2, finished_at="now", counters={}, detail={})
        files = ShardFiles(tmp_path, "shard_00")
        assert files.lines.read_bytes() == line(0) + line(1, "timeout")
        assert read_receipt(files, settings="s", inputs="i") is not None

    def test_a_row_that_stands_twice_is_cut_off(self, tmp_path: Path) -> None:
        with journal_of(tmp_path, resume=False) as journal:
            journal.append(line(0))
            path = journal.path
        path.write_bytes(line(0) + line(0) + line(1))
        with journal_of(tmp_path, resume=True) as journal:
            assert journal.rows == {0}
        assert path.read_bytes() == line(0)

    def test_a_journal_of_other_settings_or_input_is_not_gone_on_with(self, tmp_path: Path) -> None:
        with journal_of(tmp_path, resume=False) as journal:
            journal.append(line(0))
        for settings, inputs in (("t", "i"), ("t", "j")):
            with journal_of(tmp_path, resume=True, settings=settings, inputs=inputs) as journal:
                assert journal.rows == set()
        assert len(list(tmp_path.iterdir())) == 1

    def test_without_resume_it_begins_anew(self, tmp_path: Path) -> None:
        with journal_of(tmp_path, resume=False) as journal:
            journal.append(line(0))
        with journal_of(tmp_path, resume=False) as journal:
            assert journal.rows == set()

    def test_a_kill_between_the_lines_and_their_receipt_loses_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = Job(ShardFiles(tmp_path, "shard_00"), "well", rows=1)

        def killed(path: Path, data: bytes) -> None:
            if path == job.files.receipt:
                raise KeyboardInterrupt
            write_bytes(path, data)

        with monkeypatch.context() as patch, shard_work(job, lambda _: None, count=lambda: {"requests": 5}) as work:
            work.append(line(0))
            patch.setattr(journals, "write_bytes", killed)
            with pytest.raises(KeyboardInterrupt):
                work.finish("p1", {})
        assert job.files.lines.exists()
        assert not job.files.receipt.exists()
        with shard_work(job.resumed(), lambda _: None, count=lambda: {"requests": 1}) as work:
            assert work.recovered == {0}
            assert work.finish("p1", {}).counters["requests"] == 6

    def test_lines_of_a_finished_shard_are_no_journal_of_a_new_run(self, tmp_path: Path) -> None:
        job = Job(ShardFiles(tmp_path, "shard_00"), "well", rows=1)
        with shard_work(job, lambda _: None, count=lambda: {"requests": 5}) as work:
            work.append(line(0))
            work.finish("p1", {})
        job.files.receipt.unlink()  # as a run that does all again begins
        with shard_work(job.resumed(), lambda _: None, count=lambda: {"requests": 1}) as work:
            assert work.recovered == set()

    def test_what_was_counted_goes_with_the_lines_that_it_was_counted_of(self, tmp_path: Path) -> None:
        job = Job(ShardFiles(tmp_path, "shard_00"), "well", rows=1)
        with shard_work(job, lambda _: None, count=lambda: {"requests": 5}) as work:
            work.append(line(0))
        with shard_work(job, lambda _: None, count=lambda: {"requests": 7}):
            pass  # killed before it had a line
        with shard_work(job.resumed(), lambda _: None, count=lambda: {"requests": 1}) as work:
            work.append(line(0))
            assert work.finish("p1", {}).counters["requests"] == 1

    def test_a_finished_shard_has_a_receipt_that_is_checked(self, tmp_path: Path) -> None:
        files = ShardFiles(tmp_path, "shard_00")
        with journal_of(tmp_path, resume=False) as journal:
            journal.append(line(1, "expired"))
            journal.append(line(0))
            journal.finish(step="p1", rows=2, finished_at="now", counters={"requests": 2}, detail={})
        receipt = read_receipt(files, settings="s", inputs="i")
        assert receipt is not None
        assert (receipt.lines, receipt.errors) == (2, {"expired": 1})
        assert read_receipt(files, settings="t", inputs="i") is None
        assert read_receipt(files, settings="s", inputs="j") is None
        files.lines.write_bytes(line(0))
        assert read_receipt(files, settings="s", inputs="i") is None
        files.receipt.write_bytes(b"not json")
        assert read_receipt(files, settings="s", inputs="i") is None

    def test_a_shard_that_lacks_rows_is_not_finished(self, tmp_path: Path) -> None:
        with journal_of(tmp_path, resume=False) as journal:
            journal.append(line(0))
            with pytest.raises(IncompleteError, match="1 line for 2 rows"):
                journal.finish(step="p1", rows=2, finished_at="now", counters={}, detail={})
        assert not ShardFiles(tmp_path, "shard_00").receipt.exists()

    def test_digests_depend_on_content_and_not_on_order_of_keys(self) -> None:
        assert digest_of({"a": 1, "b": {2, 3}}) == digest_of({"b": {3, 2}, "a": 1})
        assert digest_of("a", "b") != digest_of("ab")


SLEEPER = "import sys, time; from pathlib import Path; from modbot.files.lease import Lease; \
lease = Lease(Path(sys.argv[1]), 'sleeper'); lease.acquire(); print('held', flush=True); time.sleep(60)"


class TestLease:
    def test_it_is_there_while_it_is_held(self, tmp_path: Path) -> None:
        part = Partition(tmp_path, "current", "2025-10-01")
        with hold(part, "modbot tag") as check:
            assert part.lease.exists()
            check()
            with pytest.raises(BusyError, match=f"held by 'modbot tag' on .*, process {os.getpid()}"), hold(part, "x"):
                pass
            assert part.lease.exists()
        assert list(part.lease.parent.iterdir()) == []

    def test_a_killed_owner_is_followed_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "lease.json"
        with subprocess.Popen([sys.executable, "-c", SLEEPER, str(path)], stdout=subprocess.PIPE) as sleeper:
            assert sleeper.stdout is not None
            assert sleeper.stdout.readline() == b"held\n"
            with pytest.raises(BusyError, match="'sleeper'"), hold_file(path, "second"):
                pass
            sleeper.kill()
            sleeper.wait()
        before = time.monotonic()
        with hold_file(path, "second"):
            assert time.monotonic() - before < 1
        assert list(tmp_path.iterdir()) == []

    def test_a_signal_while_it_is_created_leaves_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(path: Path, flags: int, mode: int) -> int:
            os.close(opened(path, flags, mode))
            raise KeyboardInterrupt

        opened = os.open
        lease = Lease(tmp_path / "lease.json", "first")
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", interrupted)
            with pytest.raises(KeyboardInterrupt):
                lease.acquire()
        assert list(tmp_path.iterdir()) == []

    def test_a_signal_while_it_is_given_back_leaves_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        is_ours, came = Lease._is_ours, iter([True])

        def interrupted(self: Lease) -> bool:
            if next(came, False):
                raise KeyboardInterrupt
            return is_ours(self)

        with pytest.raises(KeyboardInterrupt), hold_file(tmp_path / "lease.json", "first"):
            monkeypatch.setattr(Lease, "_is_ours", interrupted)
        assert list(tmp_path.iterdir()) == []

    def test_who_was_faster_with_a_dead_owners_keeps_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "lease.json"
        path.write_bytes(b"the dead one's")
        with hold_file(tmp_path / "other.json", "faster"):
            faster = (tmp_path / "other.json").read_bytes()

        def meanwhile(*_: object) -> None:
            path.write_bytes(faster)

        monkeypatch.setattr(Lease, "_wait_for_a_beat", meanwhile)
        with pytest.raises(BusyError, match="'faster'"), hold_file(path, "slower"):
            pass
        assert path.read_bytes() == faster
        assert [each.name for each in tmp_path.iterdir()] == [path.name]

    @pytest.mark.parametrize("left", [b"", b"garbage", None])
    def test_a_file_of_another_machine_that_stands_still_is_taken_over(
        self, left: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "STALE_AFTER", 0.3)
        path = tmp_path / "lease.json"
        path.write_bytes(self._of_another_machine() if left is None else left)
        with hold_file(path, "second") as check:
            check()
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_refuses_it_keeps_no_empty_one(self, tmp_path: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            with pytest.raises(StorageError), hold_file(tmp_path / "lease.json", "first"):
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(tmp_path.iterdir()) == []

    def test_an_owner_on_another_machine_whose_heart_beats_keeps_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "STALE_AFTER", 5.0)
        path = tmp_path / "lease.json"
        path.write_bytes(self._of_another_machine())
        timer = threading.Timer(0.2, lambda: path.write_bytes(self._of_another_machine(beat=1)))
        timer.start()
        with pytest.raises(BusyError, match="'elsewhere' on far"), hold_file(path, "second"):
            pass
        timer.join()

    def test_an_owner_notices_that_it_lost_it(self, tmp_path: Path) -> None:
        path = tmp_path / "lease.json"
        lease = Lease(path, "first")
        lease.acquire()
        path.write_bytes(self._of_another_machine())
        with pytest.raises(BusyError, match="'elsewhere' on far"):
            lease.check()
        lease.release()
        assert path.exists()

    def test_a_disk_that_is_away_for_a_moment_skips_a_beat(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
        path = tmp_path / "deep" / "lease.json"
        with hold_file(path, "first") as check:
            path.parent.rename(tmp_path / "away")
            time.sleep(0.2)
            (tmp_path / "away").rename(path.parent)
            before = path.read_bytes()
            deadline = time.monotonic() + 5
            while path.read_bytes() == before and time.monotonic() < deadline:
                time.sleep(0.01)
            assert path.read_bytes() != before
            check()

    @staticmethod
    def _of_another_machine(beat: int = 0) -> bytes:
        owner = leases.Owner(
            token="t",  # noqa: S106 - a name, not a secret
            command="elsewhere",
            host="far",
            machine="m",
            pid=1,
            process_start="1",
            since="then",
            beat=beat,
        )
        return msgspec.json.encode(owner)


def test_a_process_is_told_from_a_later_one_of_its_id() -> None:
    assert process_table() is not None
    assert started(os.getpid()) == started(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert started(child.pid) not in {None, started(os.getpid())}
        child.kill()
        # Not yet waited for: ended all the same.
        deadline = time.monotonic() + 5
        while started(child.pid) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert started(child.pid) is None
