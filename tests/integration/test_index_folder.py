"""`modbot index folder`: what is in the index, and what is said when p1 would not be allowed to read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modbot.cli.main import main
from modbot.sources import folder
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


def test_files_stand_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.png", "a.png", "c.png", ".hidden/x.png", "b/.y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link.png").symlink_to("a.png")
    names = [row["filename"] for row in folder.rows(tmp_path)]
    assert names == ["a.png", "1.png", "2.png", "c.png"]


def test_a_folder_may_nest_as_deep_as_a_path_can_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    depth = 1_500
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("deep.png").touch()
    names = [row["filename"] for row in folder.rows(tmp_path)]
    Path("deep.png").unlink()
    for _ in range(depth):  # what pytest tidies up by itself must not be so deep
        os.chdir("..")
        Path("d").rmdir()
    assert names == ["deep.png"]


@pytest.mark.parametrize(("seconds", "told"), [(0, "1970-01-01T00:00:00+00:00"), (1e14, ""), (-1e14, ""), (1e300, "")])
def test_a_time_that_no_calendar_has_is_left_out(seconds: float, told: str) -> None:
    assert folder._time(seconds) == told


def test_a_file_that_goes_meanwhile_is_passed_over(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"x")
    rows = folder.rows(tmp_path)
    assert next(rows)["filename"] == "a.png"
    (tmp_path / "b.png").unlink()
    assert [row["filename"] for row in rows] == ["c.png"]
