from __future__ import annotations

import signal
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
