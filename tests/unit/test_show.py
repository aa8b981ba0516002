from __future__ import annotations

import pytest

from modbot.cli.show import facts, grid

HOSTILE = "a\x1b]0;b\x07\u202ec\nd"
INERT = "a\ufffd]0;b\ufffd\ufffdc\ufffdd"


@pytest.mark.parametrize("terminal", [False, True])
def test_what_records_and_rules_hold_moves_no_cursor(
    terminal: bool,  # noqa: FBT001 - a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    facts("facts", [("model", HOSTILE)])
    grid("grid", ("rule", "won"), [(HOSTILE, "1")])
    out = capsys.readouterr().out
    assert out.count(INERT) == 2
    assert not {"\x1b]", "\x07", "\u202e"} & set(out)
