"""Worker processes that die, at every moment at which they can."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modbot.engine.local import ATTEMPTS, cores_each, run_shards
from modbot.errors import BusyError, StorageError
from modbot.files.journal import ShardFiles
from modbot.files.processes import signals_held_back
from modbot.records.progress import Event, Notice, ShardFailed, ShardFinished
from tests.engine_jobs import Job


def jobs(folder: Path, *manners: str) -> list[Job]:
    return [Job(ShardFiles(folder, f"shard_{number:02d}"), manner) for number, manner in enumerate(manners)]


def finished(events: list[Event]) -> set[str]:
    return {event.receipt.shard for event in events if isinstance(event, ShardFinished)}


def test_every_shard_is_done_and_workers_are_used_again(tmp_path: Path) -> None:
    events: list[Event] = []
    todo = jobs(tmp_path, *["well"] * 5)
    assert run_shards(todo, parallel=2, report=events.append) == []
    assert finished(events) == {job.name for job in todo}
    processes = {trace.name.split(".")[1] for job in todo for trace in job.traces()}
    assert len(processes) == 2


def test_a_shard_whose_worker_dies_is_gone_on_with(tmp_path: Path) -> None:
    events: list[Event] = []
    todo = jobs(tmp_path, "well", "dies_once", "well")
    assert run_shards(todo, parallel=1, report=events.append) == []
    assert finished(events) == {job.name for job in todo}
    assert [trace.name.split(".")[2] for trace in todo[1].traces()].count("again") == 1


def test_a_shard_that_kills_every_worker_is_given_up_and_the_others_are_done(tmp_path: Path) -> None:
    events: list[Event] = []
    todo = jobs(tmp_path, "dies", "well", "well")
    assert run_shards(todo, parallel=2, report=events.append) == ["shard_00"]
    assert finished(events) == {"shard_01", "shard_02"}
    assert len(todo[0].traces()) == ATTEMPTS
    (failure,) = [event for event in events if isinstance(event, ShardFailed)]
    assert failure.error == f"its process died {ATTEMPTS} times (exit code 1)"


def test_a_shard_whose_device_breaks_goes_on_in_a_new_process(tmp_path: Path) -> None:
    events: list[Event] = []
    todo = jobs(tmp_path, "breaks_once", "well")
    assert run_shards(todo, parallel=1, report=events.append) == []
    assert finished(events) == {job.name for job in todo}
    first, again = todo[0].traces()
    assert first.name.split(".")[1] != again.name.split(".")[1]
    assert [event.text for event in events if isinstance(event, Notice)] == [
        "shard_00: cuda: gives no results any more; begun again in a new process"
    ]


def test_a_shard_whose_device_breaks_every_time_is_given_up(tmp_path: Path) -> None:
    events: list[Event] = []
    todo = jobs(tmp_path, "breaks", "well")
    assert run_shards(todo, parallel=1, report=events.append) == ["shard_00"]
    assert finished(events) == {"shard_01"}
    assert len(todo[0].traces()) == ATTEMPTS
    (failure,) = [event for event in events if isinstance(event, ShardFailed)]
    assert failure.error == "cuda: gives no results any more"


def test_a_worker_that_dies_between_two_shards_takes_none_with_it(tmp_path: Path) -> None:
    events: list[Event] = []

    def slowly(event: Event) -> None:
        events.append(event)
        # Long enough for the worker to die before it gets its next shard.
        time.sleep(0.3)

    todo = jobs(tmp_path, "dies_afterwards", "well")
    assert run_shards(todo, parallel=1, report=slowly) == []
    assert finished(events) == {"shard_00", "shard_01"}


def test_a_defect_fails_its_shard_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    assert run_shards(jobs(tmp_path, "raises", "well"), parallel=1, report=events.append) == ["shard_00"]
    assert finished(events) == {"shard_01"}
    assert "ZeroDivisionError: a defect" in capfd.readouterr().err


def test_what_no_shard_can_help_ends_the_run_at_once(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(StorageError, match="the disk is full"):
        run_shards(jobs(tmp_path, "slow", "full"), parallel=2, report=lambda _: None)
    assert time.monotonic() - begun < 20


def test_what_is_raised_in_between_ends_the_run(tmp_path: Path) -> None:
    def lost() -> None:
        raise BusyError("held by another run")

    with pytest.raises(BusyError):
        run_shards(jobs(tmp_path, "slow"), parallel=1, report=lambda _: None, tick=lost)


def test_threads_are_shared_among_the_workers_that_there_are() -> None:
    cores = cores_each(1, 10)
    assert cores_each(cores, 10) == 1
    assert cores_each(10 * cores, 1) == cores
    assert cores_each(2, 0) >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_a_process_is_started(number: signal.Signals) -> None:
    came: list[int] = []
    before = signal.signal(number, lambda number, _: came.append(number))
    try:
        with signals_held_back():
            os.kill(os.getpid(), number)
            time.sleep(0.1)
            assert came == []
        assert came == [number]
        os.kill(os.getpid(), number)
        assert came == [number, number]
    finally:
        signal.signal(number, before)


STARTS = """
import multiprocessing as mp, signal, sys
from multiprocessing import resource_tracker
from modbot.files.processes import signals_held_back

if __name__ == "__main__":
    resource_tracker.ensure_running()
    with signals_held_back():
        process = mp.get_context("spawn").Process(target=signal.raise_signal, args=(int(sys.argv[1]),))
        process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_process_is_deaf_to_the_terminal_until_it_will_hear(number: signal.Signals) -> None:
    done = subprocess.run([sys.executable, "-c", STARTS, str(int(number))], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
