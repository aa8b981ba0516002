from __future__ import annotations

import pytest

from samples import demo


def test_ctrl_c_ends_the_demo_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_run_day", interrupted)
    assert demo.main() == 130
    assert capfd.readouterr() == ("", "")
