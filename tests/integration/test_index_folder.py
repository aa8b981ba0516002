"""`modbot index folder` says when p1 would not be allowed to read what was indexed."""

from __future__ import annotations

from pathlib import Path

import pytest

from modbot.cli.main import main
from tests.real_day import DATE


@pytest.mark.parametrize(
    ("root", "told"), [(None, "not set"), ("elsewhere", "elsewhere"), ("photos", None), (".", None)]
)
def test_a_folder_that_p1_may_not_read_is_told(
    root: str | None,
    told: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODBOT_FILE_ROOT", raising=False)
    for name in ("photos", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"a picture")
    if root:
        monkeypatch.setenv("MODBOT_FILE_ROOT", str(tmp_path / root))
    assert main(["index", "folder", "photos", "--date", DATE]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("1 row: ")
    if told is None:
        assert err == ""
    else:
        assert "warning: p1 reads only below MODBOT_FILE_ROOT (" in err
        assert f"{told}): set it to {tmp_path / 'photos'}\n" in err
