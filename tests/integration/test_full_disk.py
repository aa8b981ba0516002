"""A disk that fills up in the middle of p1: it ends with a clear word, and goes on when there is room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from samples.make import write_pictures
from samples.server import SampleServer
from tests.real_day import RealDay

SIZES = {"CACHE_DIR": "1800k", "OUT_DIR": "700k"}
"""Less than the step needs there, more than what must be there before it begins."""


@pytest.fixture(params=SIZES)
def on_disk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def small_disk(tmp_path: Path, on_disk: str) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or _mount("-t", "tmpfs", "-o", f"size={SIZES[on_disk]}", "tmpfs", str(folder)):
        pytest.skip("needs the right to mount a disk of its own")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S607 - the system's own


def _mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode  # noqa: S607 - as above


def test_p1_goes_on_when_there_is_room_again(on_disk: str, small_disk: Path, tmp_path: Path, models_dir: Path) -> None:
    images = tmp_path / "images"
    write_pictures(images, with_largest=False)
    with SampleServer(images) as server:
        undisturbed = RealDay(tmp_path / "undisturbed", server, models_dir)
        undisturbed.index(images, rows=400)
        undisturbed.split(2)
        undisturbed.tag()

        day = RealDay(tmp_path / "day", server, models_dir)
        if on_disk == "CACHE_DIR":
            day.env["CACHE_DIR"] = str(small_disk)
        else:
            (day.root / "out").symlink_to(small_disk)
        day.index(images, rows=400)
        day.split(2)
        told = day.tag(code=1).stderr
        assert "the disk is full" in told
        assert str(small_disk) in told or "out/" in told
        assert not day.merged("p1").exists()
        assert _mount("-o", "remount,size=64m", str(small_disk)) == 0
        day.tag("--resume")
        assert day.merged("p1").read_bytes() == undisturbed.merged("p1").read_bytes()
        assert not list(small_disk.rglob("*.tmp"))
