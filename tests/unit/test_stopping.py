from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress

import pytest

from modbot.cli import main as module


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_passes_over_every_exception_does_not_pass_over_a_signal(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def command(*_: object, **__: object) -> int:
        with suppress(Exception):
            signal.raise_signal(number)
        return 0

    monkeypatch.setattr(module.modbot, "main", command)
    before = signal.signal(number, module._stop)
    try:
        assert module.main([]) == 130
    finally:
        signal.signal(number, before)
    told = capfd.readouterr().err
    assert told == f"modbot: stopped by {number.name}; what was finished is kept\nGo on with --resume.\n"


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

    monkeypatch.setattr(module.modbot, "main", command)
    monkeypatch.setattr(sys, "unraisablehook", module._tell_unraisable)
    before = {number: signal.signal(number, module._stop) for number in (signal.SIGTERM, signal.SIGALRM)}
    try:
        assert module.main([]) == 130
        assert arrived == ["once", "put away"]
        time.sleep(2 * module.LOOK_SECONDS)  # and when it has come, no more
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capfd.readouterr().err == "modbot: stopped by SIGTERM; what was finished is kept\nGo on with --resume.\n"
