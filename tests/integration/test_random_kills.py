"""Killed again and again, at moments that nobody chose, the day ends with the bytes of an undisturbed one."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from samples.make import write_pictures
from samples.server import SampleServer
from tests.real_day import RealDay, kill_group

pytestmark = pytest.mark.chaos

ROWS = 200
KILLS = 6
"""A step that was killed this often may end in peace."""

STEPS = {
    "tag": ("tag", "--qps", "50", "--parallel", "2", "--resume"),
    "analyze": ("analyze", "--nudenet-mode", "always", "--parallel", "2", "--resume"),
}


@pytest.mark.parametrize("seed", range(3))
def test_random_kills_do_not_show_in_the_bytes(seed: int, tmp_path: Path, models_dir: Path) -> None:
    images = tmp_path / "images"
    write_pictures(images, with_largest=False)
    with SampleServer(images) as server:
        quiet, stormy = (RealDay(tmp_path / name, server, models_dir) for name in ("quiet", "stormy"))
        for day in (quiet, stormy):
            day.index(images, rows=ROWS)
            day.split(5)
        quiet.tag("--parallel", "2")
        quiet.run(*STEPS["analyze"])
        moments = random.Random(seed)  # noqa: S311 - chance that can be had again
        kills = sum(_until_it_ends(stormy, step, moments) for step in STEPS)
    assert kills > 0
    for step in ("p1", "p2"):
        assert stormy.merged(step).read_bytes() == quiet.merged(step).read_bytes()
    assert stormy.leftovers() == []


def _until_it_ends(day: RealDay, step: str, moments: random.Random) -> int:
    """Runs a step, killing it at some moment of each try, until it ends well; returns how often it was killed."""
    for kills in range(KILLS):
        process = day.start(*STEPS[step])
        try:
            _, told = process.communicate(timeout=moments.uniform(0.3, 4.0))
        except subprocess.TimeoutExpired:
            kill_group(process)
        else:
            assert process.returncode == 0, told
            return kills
    day.run(*STEPS[step])
    return KILLS
