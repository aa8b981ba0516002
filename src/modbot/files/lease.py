"""Who is at work on a partition: a file with owner and heartbeat, on a volume that several machines share.

The file is created exclusively and rewritten every two seconds. Whether its owner lives is judged by whether the
heartbeat changes, never by comparing clocks; on the same machine the process is looked up as well, so that a killed
run can be followed at once.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from modbot.errors import BusyError, InterruptedRunError
from modbot.files.atomic import storage_errors, tmp_of
from modbot.files.paths import Partition
from modbot.files.processes import own_name, process_table, started
from modbot.records import jsonl

BEAT_SECONDS = 2.0
GLANCE_SECONDS = 0.2
STALE_AFTER = 4 * BEAT_SECONDS


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lease. `machine` tells process ids apart that belong to different machines or containers."""

    token: str
    command: str
    host: str
    machine: str
    pid: int
    process_start: str
    since: str
    beat: int = 0

    def __str__(self) -> str:
        return f"'{self.command}' on {self.host}, process {self.pid}, since {self.since}"


def _is_dead(owner: Owner) -> bool:
    """Whether the owner certainly ended: it ran on this machine and its process is gone."""
    return owner.machine == process_table() and started(owner.pid) != owner.process_start


class Lease:
    """A held lease; its heartbeat beats until `release`."""

    def __init__(self, path: Path, command: str) -> None:
        self.path = path
        self._owner = Owner(
            token=uuid.uuid4().hex,
            command=command,
            host=socket.gethostname(),
            machine=own_name(),
            pid=os.getpid(),
            process_start=started(os.getpid()) or "",
            since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        self._stop = threading.Event()
        self._lost = False
        self._beater = threading.Thread(target=self._beat, name=f"lease {path.name}", daemon=True)

    def acquire(self) -> None:
        """Takes the lease, from a dead owner if need be.

        Raises:
            BusyError: another run lives and holds it.
            InterruptedRunError: `stop` was called while it waited.
            StorageError: the folder cannot be written.
        """
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while not self._create():
                self._take_from_the_dead()
        self._beater.start()

    def _create(self) -> bool:
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        except BaseException as error:
            if not isinstance(error, OSError):
                self._remove_empty()  # a signal came as it was created
            raise
        try:
            with os.fdopen(fd, "wb") as out:
                out.write(msgspec.json.encode(self._owner))
        except BaseException:  # the disk, or a signal
            self.path.unlink(missing_ok=True)  # empty, it would make the next run wait for its owner
            raise
        return True

    def _remove_empty(self) -> None:
        """Removes a file that nothing was written into: whose it is cannot be told, but it is no lease yet."""
        with suppress(OSError):
            if self.path.stat().st_size == 0:
                self.path.unlink()

    def _take_from_the_dead(self) -> None:
        seen = self._read()
        if seen is None:
            return
        owner = _parse(seen)
        if owner is None or not _is_dead(owner):
            self._wait_for_a_beat(seen, owner)
        grave = tmp_of(self.path.with_name(f"{self.path.name}.{self._owner.token}"))
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return
        buried = grave.read_bytes()
        if buried != seen:
            # Somebody was faster and took it over between our look and our hand: give it back.
            with suppress(FileExistsError):
                os.link(grave, self.path)
            grave.unlink()
            raise self._busy(_parse(buried))
        grave.unlink()

    def _wait_for_a_beat(self, seen: bytes, owner: Owner | None) -> None:
        """Returns when the file stood still for `STALE_AFTER` seconds; raises BusyError when it moves."""
        if owner is not None and owner.machine == process_table():
            raise self._busy(owner)
        deadline = time.monotonic() + STALE_AFTER
        sys.stderr.write(f"{self.path}: looking for {STALE_AFTER:g} s whether {owner or 'its owner'} still lives\n")
        while time.monotonic() < deadline:
            if self._stop.wait(BEAT_SECONDS / 4):
                raise InterruptedRunError("stopped while it waited for a lease", where=str(self.path))
            now = self._read()
            if now is None:
                return
            if now != seen:
                raise self._busy(_parse(now))

    def _busy(self, owner: Owner | None) -> BusyError:
        return BusyError(
            f"held by {owner or 'another run'}",
            where=str(self.path),
            remedy="Wait until it ends, or end it; a run that died is noticed within ten seconds.",
        )

    def _read(self) -> bytes | None:
        return _bytes(self.path)

    def _is_ours(self) -> bool:
        data = self._read()
        owner = _parse(data) if data is not None else None
        return owner is not None and owner.token == self._owner.token

    def _is_ours_after_all(self) -> bool:
        time.sleep(GLANCE_SECONDS)
        return self._is_ours()

    def _beat(self) -> None:
        tmp = tmp_of(self.path.with_name(f"{self.path.name}.{self._owner.token}"))
        while not self._stop.wait(BEAT_SECONDS):
            try:
                # Looked at twice: for a moment it may lie aside in the hand of one who took it for a dead owner's.
                if not self._is_ours() and not (self._stop.wait(GLANCE_SECONDS) or self._is_ours()):
                    self._lost = True
                    return
                self._owner = msgspec.structs.replace(self._owner, beat=self._owner.beat + 1)
                tmp.write_bytes(msgspec.json.encode(self._owner))
                tmp.rename(self.path)
            except OSError:
                # A disk that is full or away for a moment skips a beat: the next may come in time.
                with suppress(OSError):
                    tmp.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises BusyError if another run took the lease over, because this one seemed dead to it."""
        if self._lost or not (self._is_ours() or self._is_ours_after_all()):
            data = self._read()
            raise self._busy(_parse(data) if data is not None else None)

    @property
    def lost(self) -> bool:
        """Whether the last heartbeat found another run's lease in the place of this one."""
        return self._lost

    def stop(self) -> None:
        """Ends the heartbeat, or an `acquire` that waits for another's."""
        self._stop.set()

    def release(self) -> None:
        """Gives the lease back, if it is still ours."""
        self.stop()
        if self._beater.is_alive():
            self._beater.join()
        # Why a run ended matters more than a lease that it could not remove: that one is seen to be a dead run's.
        with suppress(OSError):
            if self._is_ours():
                self.path.unlink(missing_ok=True)


def holder(path: Path) -> Owner | None:
    """Who lives and holds the lease at `path`, if anybody does; looks for some seconds at one of another machine.

    Raises:
        StorageError: it cannot be read.
    """
    with storage_errors(path):
        seen = _bytes(path)
        owner = None if seen is None else _parse(seen)
        if seen is None or (owner is not None and _is_dead(owner)):
            return None
        if owner is not None and owner.machine == process_table():
            return owner
        deadline = time.monotonic() + STALE_AFTER
        while time.monotonic() < deadline:
            time.sleep(BEAT_SECONDS / 4)
            now = _bytes(path)
            if now != seen:
                return None if now is None else _parse(now)
        return None


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parse(data: bytes) -> Owner | None:
    try:
        return jsonl.decode(data, Owner)
    except msgspec.DecodeError:
        return None


@contextmanager
def hold_file(path: Path, command: str) -> Iterator[Callable[[], None]]:
    """Holds the lease at `path`; gives a function that raises BusyError once another run took it over."""
    lease = Lease(path, command)
    try:
        # In here, for a signal may come when it is just taken.
        lease.acquire()
        yield lease.check
    finally:
        try:
            lease.release()
        except BaseException:  # a signal that comes in the middle of it
            lease.release()
            raise


@contextmanager
def hold(partition: Partition, command: str) -> Iterator[Callable[[], None]]:
    """Holds a partition while the block runs; every command that writes one does.

    Raises:
        BusyError: another run holds it; the message says who.
    """
    with hold_file(partition.lease, command) as check:
        yield check
