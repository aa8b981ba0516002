from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from modbot.cli import group
from modbot.cli import main as module

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_passes_over_every_exception_does_not_pass_over_a_signal(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def command(*_: object, **__: object) -> int:
        with suppress(Exception):
            signal.raise_signal(number)
        return 0

    monkeypatch.setattr(group.modbot, "main", command)
    before = signal.signal(number, module._stop)
    try:
        assert module.main(["tag"]) == 130
    finally:
        signal.signal(number, before)
    told = capfd.readouterr().err
    assert told == f"modbot: stopped by {number.name}; what was finished is kept\nGo on with --resume.\n"


def test_who_cannot_resume_is_not_told_to(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def command(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(group.modbot, "main", command)
    assert module.main(["scan", "--date", "2025-10-01"]) == 130
    assert capfd.readouterr().err == "modbot: interrupted; what was finished is kept\nRun the same command again.\n"


class Dropping:
    """Its end drops what is raised there."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_is_dropped_comes_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arrived = []

    def command(*_: object, **__: object) -> int:
        Dropping()
        try:
            time.sleep(10)
        finally:
            arrived.append("once")
            time.sleep(3 * module.LOOK_SECONDS)  # while things are put away, it is on its way
            arrived.append("put away")
        return 0

    monkeypatch.setattr(group.modbot, "main", command)
    monkeypatch.setattr(sys, "unraisablehook", module._tell_unraisable)
    before = {number: signal.signal(number, module._stop) for number in (signal.SIGTERM, signal.SIGALRM)}
    try:
        assert module.main(["tag"]) == 130
        assert arrived == ["once", "put away"]
        time.sleep(2 * module.LOOK_SECONDS)  # and when it has come, no more
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capfd.readouterr().err == "modbot: stopped by SIGTERM; what was finished is kept\nGo on with --resume.\n"


AT_THE_END = """
import atexit
import signal

from modbot.cli import main as module

ignore = signal.signal
coming = [signal.SIGHUP, signal.SIGTERM]


def told(arguments):
    {while_it_is_told}
    signal.signal = late
    return 3


def late(number, handler):
    if coming and {when_all_is_told}:
        signal.raise_signal(coming.pop())
    return ignore(number, handler)


module.main = told
atexit.register(lambda: [signal.raise_signal(number) for number in (*module.ENDING, signal.SIGALRM)])
module.run()
"""
COMES = "signal.raise_signal(signal.SIGHUP)"


@pytest.mark.parametrize(
    ("while_it_is_told", "when_all_is_told", "code"), [(COMES, False, 130), ("pass", True, 3), ("pass", False, 3)]
)
def test_a_signal_at_the_very_end_leaves_no_traceback(
    *, while_it_is_told: str, when_all_is_told: bool, code: int
) -> None:
    script = AT_THE_END.format(while_it_is_told=while_it_is_told, when_all_is_told=when_all_is_told)
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


SLOW_CLICK = """
import time
print("importing", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("start", [("-m", "modbot.cli.main"), ("-m", "app.cli_scan"), ("scripts/split_index.py",)])
def test_a_signal_while_modbot_is_still_imported_ends_it_without_a_word(
    number: signal.Signals, start: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "click.py").write_text(SLOW_CLICK)
    with subprocess.Popen(
        [sys.executable, *start, "--help"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"importing\n"
        started.send_signal(number)
        out, err = started.communicate(timeout=30)
    assert (started.returncode, out, err) == (130, b"", b"")
