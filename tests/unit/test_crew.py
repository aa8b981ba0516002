from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from modbot.errors import InputError, ModbotError
from modbot.files.processes import started
from modbot.records.jsonl import decode
from modbot.stages import crew as crew_module
from modbot.stages.crew import Crew
from modbot.stages.report import read_outcome


def test_results_come_in_the_order_of_the_tasks_however_many_processes() -> None:
    with Crew(2) as crew:
        assert list(crew.do([partial(pow, 2, number) for number in range(7)])) == [2**number for number in range(7)]
        assert list(crew.do([partial(pow, 3, 2)])) == [9]


def noted(number: int, done: Path) -> int:
    with done.open("ab") as file:
        file.write(b".")
    return number


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_task_is_asked_for_when_a_process_is_free_for_it(ahead: int, tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.touch()

    def tasks() -> Iterator[Callable[[], int]]:
        for number in range(20):
            assert number - done.stat().st_size < 2 * (1 + ahead)
            yield partial(noted, number, done)

    with Crew(2) as crew:
        assert list(crew.do(tasks(), ahead=ahead)) == list(range(20))


def test_without_tasks_there_are_no_results() -> None:
    assert list(Crew().do([])) == []


def test_what_a_task_raises_is_raised_here() -> None:
    with Crew(1) as crew, pytest.raises(InputError, match="line 7 is no finding") as raised:
        list(crew.do([partial(read_outcome, b"{", Path("f.jsonl"), 7)]))
    assert raised.value.where == "f.jsonl"


def test_a_failure_of_no_known_reason_is_told_by_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    with Crew(1) as crew, pytest.raises(ModbotError, match=r"a worker process failed \(JSONDecodeError"):
        list(crew.do([partial(json.loads, "{")]))
    assert "Traceback" in capfd.readouterr().err


def test_a_process_that_dies_is_told() -> None:
    tasks: list[Callable[[], object]] = [partial(time.sleep, 0), partial(os._exit, 3)]
    with Crew(2) as crew, pytest.raises(ModbotError, match=r"a worker process died \(exit code 3\)"):
        list(crew.do(tasks))


def test_whoever_is_still_at_work_is_ended_with_the_block() -> None:
    begun = time.monotonic()
    tasks: list[Callable[[], object]] = [partial(time.sleep, 0), partial(time.sleep, 60)]
    with Crew(1) as crew:
        next(crew.do(tasks))
        pids = [worker.process.pid for worker in crew._workers]
    assert time.monotonic() - begun < 20
    assert [started(pid or 0) for pid in pids] == [None]


def test_a_process_that_is_told_to_end_before_it_can_heed_it_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "leave_the_terminal", partial(time.sleep, 1))
    crew = Crew(1)  # what is forked has the patch, too
    begun = time.monotonic()
    crew.end()
    assert time.monotonic() - begun < crew_module.PATIENCE_SECONDS / 2


def test_a_task_and_its_result_are_values() -> None:
    with Crew(1) as crew:
        assert list(crew.do([partial(decode, b"[1,2]", list)])) == [[1, 2]]
