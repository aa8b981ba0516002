"""Killed, told to stop, or out of disk at moments that nobody chose, the day ends with the bytes of an undisturbed one.

A phase is a step of the day, or a part of one. It is begun, disturbed at some moment of the time that it takes, begun
again, and so on a few times; then it may end in peace, and what it leaves is compared with what an undisturbed run
leaves. `make test` kills each phase once, `make chaos` a hundred times in all. What was counted stands in the summary.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import pytest

from modbot.files.lease import holder
from modbot.files.processes import started
from modbot.records.index import attachment_key
from samples.make import write_pictures
from samples.server import SampleServer
from tests.counts import Count
from tests.real_day import DATE, RealDay, descendants, until
from tests.tiny_models import build, padded

SHARDS = 3
IN_A_ROW = 4
"""So often one day's phase is disturbed; then it may end."""

ROWS = {"store": 300}
"""Of the index, by phase; the others have the samples once. Storing is quick, so it is given more to do."""


@dataclass(frozen=True)
class Phase:
    """What is run, which phases the day has behind it, when it counts as begun, and what it leaves."""

    command: tuple[str, ...]
    after: tuple[str, ...]
    begun: Callable[[RealDay], bool]
    left: Callable[[RealDay], object]


def _leased(day: RealDay) -> bool:
    """By a run that lives: one that was killed leaves its lease."""
    return any(holder(lease) for lease in (day.tree / "status").glob("lease_*"))


def _asked(day: RealDay) -> bool:
    return day.server.gets.total() > 0


def _shards_done(day: RealDay) -> bool:
    """So that p1 has only its merge before it."""
    return _leased(day) and len(list((day.tree / "p1" / "shards" / DATE).glob("*.receipt.json"))) == SHARDS


def _images(day: RealDay) -> object:
    """Which content each link has, and that each is stored whole."""
    folder = day.root / "cache" / "images"
    stored = {file.name for file in folder.glob("??/*") if hashlib.sha256(file.read_bytes()).hexdigest() == file.name}
    links = {link.name: json.loads(link.read_bytes())["sha256"] for link in (folder / "links").glob("*/*")}
    assert set(links.values()) <= stored
    return links


def _p1(day: RealDay) -> object:
    return day.merged("p1").read_bytes()


def _p2(day: RealDay) -> object:
    return day.merged("p2").read_bytes()


def _p3(day: RealDay) -> object:
    return day.findings(), (day.tree / "p3" / f"report_{DATE}.csv").read_bytes()


_FETCH = ("fetch", "--qps", "unlimited", "--parallel", "2", "--resume")
_TAG = ("tag", "--qps", "unlimited", "--parallel", "2", "--resume")
_ANALYZE = ("analyze", "--nudenet-mode", "always", "--parallel", "2", "--resume")
PHASES = {
    "store": Phase(_FETCH, (), _asked, _images),
    "p1": Phase(_TAG, (), _leased, _p1),
    "merge": Phase(_TAG, ("p1",), _shards_done, _p1),
    "p2": Phase(_ANALYZE, ("p1",), _leased, _p2),
    "p3": Phase(("scan",), ("p1", "p2"), _leased, _p3),
}


class Calm:
    """Days on which nothing happened: what each phase begins with, how long it takes, and what it leaves."""

    def __init__(self, root: Path, server: SampleServer, models: Path, images: Path) -> None:
        self._root = root
        self._server = server
        self._models = models
        self._images = images
        self._days: dict[tuple[str, ...], RealDay] = {}
        self._known: dict[str, tuple[float, object]] = {}

    def day(self, name: str, phase: str) -> RealDay:
        """A new day on which all is done that comes before the phase."""
        before = self._done(PHASES[phase].after, ROWS.get(phase))
        day = self._new(name)
        for folder in ("out", "cache"):
            if (before.root / folder).exists():
                shutil.copytree(before.root / folder, day.root / folder, dirs_exist_ok=True)
        self._server.gets.clear()
        return day

    def of(self, phase: str) -> tuple[float, object]:
        """Seconds from its beginning to its end, and what it leaves."""
        self._done((*PHASES[phase].after, phase), ROWS.get(phase))
        return self._known[phase]

    def growth(self, phase: str) -> int:
        """So many bytes are there more after a phase than before it."""
        after, rows = PHASES[phase].after, ROWS.get(phase)
        return _size(self._done((*after, phase), rows)) - _size(self._done(after, rows))

    def _done(self, phases: tuple[str, ...], rows: int | None) -> RealDay:
        """The day after these phases, done once."""
        key = (*phases, str(rows))
        if key not in self._days:
            if phases:
                day = self.day(f"calm {'-'.join(key)}", phases[-1])
                self._known[phases[-1]] = self._do(day, phases[-1])
            else:
                day = self._new(f"calm {'-'.join(key)}")
                day.index(self._images, rows=rows)
                day.split(SHARDS)
            self._days[key] = day
        return self._days[key]

    def _do(self, day: RealDay, phase: str) -> tuple[float, object]:
        process, begin = _start(day, phase)
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
        return time.monotonic() - begin, PHASES[phase].left(day)

    def _new(self, name: str) -> RealDay:
        day = RealDay(self._root / name, self._server, self._models)
        day.env["WD14_MODEL"] = "tiny"
        return day


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Calm]:
    root = tmp_path_factory.mktemp("calm")
    images, models = root / "images", root / "models"
    write_pictures(images, with_largest=False)
    build(models / "tiny", padded(400))
    (models / "320n").symlink_to(models_dir / "320n")
    with SampleServer(images) as server:
        yield Calm(root, server, models, images)


# --- what may happen ---


def _start(day: RealDay, phase: str) -> tuple[subprocess.Popen[str], float]:
    """Begins a phase; gives the process, and when the phase itself began (or the process ended)."""
    process = day.start(*PHASES[phase].command)
    until(lambda: PHASES[phase].begun(day) or process.poll() is not None)
    return process, time.monotonic()


def _kill_tree(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def _kill_leader(process: subprocess.Popen[str]) -> None:
    """What it started has to end by itself, before the next run begins."""
    process.kill()


Disturbance = Callable[[subprocess.Popen[str]], None]
KILLED: dict[str, Disturbance] = {"killed": _kill_tree, "its leader killed": _kill_leader}
STOPPED: dict[str, Disturbance] = {
    "SIGTERM": lambda process: process.send_signal(signal.SIGTERM),
    "SIGHUP": lambda process: process.send_signal(signal.SIGHUP),
    "Ctrl-C": lambda process: os.killpg(process.pid, signal.SIGINT),
}


@dataclass
class Log:
    """What happened in a phase, and what it cost."""

    phase: str
    disturbed: Counter[str] = field(default_factory=Counter)
    days: int = 0
    refetched: int = 0
    lost: int = 0
    doubled: int = 0
    differing: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    slowest_end: float = 0.0

    def __str__(self) -> str:
        happened = ", ".join(f"{name} {number} x" for name, number in sorted(self.disturbed.items()))
        ended = f"; ended within {self.slowest_end:.1f} s" if self.slowest_end else ""
        return (
            f"{self.phase}: {happened} on {self.days} days{ended}; {self.refetched} stored images fetched again, "
            f"{self.lost} rows lost, {self.doubled} doubled, {len(self.differing)} days differ, "
            f"{len(self.leftovers)} files left over"
        )

    def require_nothing_lost(self) -> None:
        assert (self.refetched, self.lost, self.doubled) == (0, 0, 0), str(self)
        assert self.differing == []
        assert self.leftovers == []


def _disturb(calm: Calm, log: Log, chance: random.Random, *, kinds: Mapping[str, Disturbance], times: int) -> None:
    """Disturbs days of a phase, `times` in all, each day a few times in a row, and looks at what they leave."""
    seconds, expected = calm.of(log.phase)
    while log.disturbed.total() < times:
        log.days += 1
        assert log.days <= 10 * times, f"hardly a run is still under way when it is to be disturbed: {log}"
        day = calm.day(f"{log.phase} {'-'.join(kinds)} {log.days}", log.phase)
        stored: set[str] = set()
        for _ in range(min(IN_A_ROW, times - log.disturbed.total())):
            process, begin = _start(day, log.phase)
            time.sleep(max(0.0, begin + chance.uniform(0, seconds) - time.monotonic()))
            kind, lines = chance.choice([*kinds]), _lines(day)
            ended = not _happen(process, kind, kinds[kind], log)
            log.lost += max(0, lines - _lines(day))
            stored = _note_fetched(day, log, stored)
            if ended:
                seconds *= 0.9  # of which the end itself is a part
                break
        _end(day, log, stored, expected, ended=ended)


def _note_fetched(day: RealDay, log: Log, stored: set[str]) -> set[str]:
    """Counts what was asked for although it was stored; gives what is stored now."""
    log.refetched += len(_fetched(day) & stored)
    day.server.gets.clear()
    return day.stored_links()


def _end(day: RealDay, log: Log, stored: set[str], expected: object, *, ended: bool) -> None:
    """Lets a day's phase end in peace, unless it has `ended`, and looks at what it leaves."""
    if not ended:
        day.run(*PHASES[log.phase].command)
        _note_fetched(day, log, stored)
    if (left := PHASES[log.phase].left(day)) != expected:
        log.differing.append(_difference(left, expected))
    _count_rows(day, log)
    log.leftovers += map(str, day.leftovers())
    shutil.rmtree(day.root)


def _difference(left: object, expected: object) -> str:
    """The first line, or whatever else, that is not as expected."""
    if not (isinstance(left, bytes) and isinstance(expected, bytes)):
        return f"{left} instead of {expected}"
    lines = zip_longest(left.splitlines(), expected.splitlines())
    return next(f"{line!r} instead of {other!r}" for line, other in lines if line != other)


def _happen(process: subprocess.Popen[str], kind: str, disturb: Disturbance, log: Log) -> bool:
    """Lets it happen to a process; gives whether that had not ended, nor was at its very end."""
    family = [process.pid]
    with suppress(FileNotFoundError):  # one of them ends while we look
        family += descendants(process.pid)
    begin = time.monotonic()
    if process.poll() is None:
        disturb(process)
    _, told = process.communicate(timeout=60)
    took = time.monotonic() - begin
    until(lambda: not any(_runs(pid) for pid in family), seconds=5)
    if process.returncode == 0:
        return False
    if kind in STOPPED:
        assert process.returncode == 130, told
        assert "Traceback" not in told
        assert took < 5, f"{kind}: {took:.1f} s to the end"
        log.slowest_end = max(log.slowest_end, took)
    log.disturbed[kind] += 1
    return True


def _runs(pid: int) -> bool:
    return started(pid) is not None


def _fetched(day: RealDay) -> set[str]:
    """The names under which the store knows the links that were asked for."""
    return {hashlib.sha256(attachment_key(day.server.base_url + path).encode()).hexdigest() for path in day.server.gets}


def _lines(day: RealDay) -> int:
    """Finished lines, in journals and shards."""
    return day.journal_lines("p1") + day.journal_lines("p2")


def _count_rows(day: RealDay, log: Log) -> None:
    if not day.merged("p1").exists():
        return
    rows = Counter(a["row"] for record in day.records("p1") for m in record["messages"] for a in m["attachments"])
    total = sum(json.loads((day.tree / "p0" / "shards" / "shards.json").read_bytes())["rows"])
    log.lost += len(set(range(total)) - set(rows))
    log.doubled += rows.total() - len(rows)


TIMES = {"store": 25, "p1": 35, "merge": 10, "p2": 20, "p3": 10}


@pytest.mark.parametrize("times", [1, pytest.param(100, marks=pytest.mark.chaos)], ids=["once", "a hundred times"])
@pytest.mark.parametrize("phase", PHASES)
def test_killed_at_any_moment(phase: str, times: int, calm: Calm, count: Count) -> None:
    log = Log(phase)
    _disturb(calm, log, _chance(phase, times), kinds=KILLED, times=min(times, TIMES[phase]))
    count(str(log), log.disturbed)
    log.require_nothing_lost()


@pytest.mark.chaos
@pytest.mark.parametrize("phase", PHASES)
def test_told_to_stop_at_any_moment(phase: str, calm: Calm, count: Count) -> None:
    log = Log(phase)
    _disturb(calm, log, _chance(phase), kinds=STOPPED, times=6)
    count(str(log), log.disturbed)
    log.require_nothing_lost()


class SmallDisk:
    """A disk of its own, which has as much room as it is given."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def free(self) -> int:
        room = os.statvfs(self._folder)
        return room.f_bavail * room.f_frsize

    def take(self, day: RealDay) -> None:
        """Lets a day that has not begun stand on this disk."""
        for name in ("out", "cache"):
            there, here = day.root / name, self._folder / name
            shutil.rmtree(here, ignore_errors=True)
            there.mkdir(exist_ok=True)
            shutil.move(there, here)
            there.symlink_to(here)

    @contextmanager
    def with_room_for(self, size: int) -> Iterator[None]:
        ballast = self._folder / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, self.free - size))
        yield
        ballast.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a disk of its own")
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607 - the system's own


@pytest.mark.chaos
@pytest.mark.parametrize("phase", PHASES)
def test_the_disk_fills_up_at_any_byte(phase: str, calm: Calm, small_disk: SmallDisk, count: Count) -> None:
    """How much room there is decides how far a run comes: at random, from none to what it needs."""
    log, chance = Log(phase), _chance(phase)
    _, expected = calm.of(phase)
    needed = calm.growth(phase)
    for log.days in range(1, 4):
        day = calm.day(f"{phase} on a small disk {log.days}", phase)
        small_disk.take(day)
        stored: set[str] = set()
        for _ in range(IN_A_ROW):
            with small_disk.with_room_for(int(chance.uniform(0, needed))):
                process, _ = _start(day, phase)
                _, told = process.communicate(timeout=60)
            stored = _note_fetched(day, log, stored)
            if process.returncode == 0:
                break
            assert (process.returncode, "the disk is full" in told, "Traceback" in told) == (1, True, False), told
            log.disturbed["full disk"] += 1
        _end(day, log, stored, expected, ended=process.returncode == 0)
    count(str(log), log.disturbed)
    assert log.disturbed.total() > 0
    log.require_nothing_lost()


def _size(day: RealDay) -> int:
    files = (file for folder in ("out", "cache") for file in (day.root / folder).rglob("*") if file.is_file())
    return sum(file.stat().st_blocks * 512 for file in files)


def _chance(*seed: object) -> random.Random:
    return random.Random(str(seed))  # noqa: S311 - chance that can be had again
