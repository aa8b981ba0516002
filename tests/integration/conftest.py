"""What the integration tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.p3_day import Day


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Day:
    monkeypatch.chdir(tmp_path)
    for name in ("MODBOT_DSL_MODE", "MODBOT_PROFILE", "MODBOT_TZ", "OUT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return Day(tmp_path, capsys)
