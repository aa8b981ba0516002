"""What the models said of a content is kept: a later run infers nothing again, and gives the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from samples.server import SampleServer
from tests.real_day import RealDay, kill_group, until
from tests.tiny_models import build, padded

RULES = """\
version: 2
rule_titles: {{any: Any}}
groups:
  nsfw_general: [nude]
  rare: [{tag}]
rules:
  - {{id: any, severity: yellow, when: score("nude") > 0.5}}
"""


@pytest.fixture
def day(tmp_path: Path, images: Path, server: SampleServer, models_dir: Path) -> RealDay:
    models = tmp_path / "models"
    build(models / "tiny", padded(400))
    for name in ("320n", "open_nsfw"):
        shutil.copytree(models_dir / name, models / name)
    made = RealDay(tmp_path / "day", server, models)
    made.index(images)
    made.split(2)
    return made


def p1(day: RealDay, *flags: str) -> tuple[bytes, dict[str, Any]]:
    day.tag("--batch-size", "3", *flags)
    return day.merged("p1").read_bytes(), day.metrics("p1")


def test_nothing_is_inferred_or_detected_twice(day: RealDay) -> None:
    first, counted = p1(day)
    assert counted["inferred"] > 20
    again, recounted = p1(day, "--parallel", "2")
    assert (again, recounted["inferred"]) == (first, 0)
    assert recounted["reused"] == counted["inferred"] + counted["reused"]

    day.run("analyze", "--nudenet-mode", "always")
    p2, counted = day.merged("p2").read_bytes(), day.metrics("p2")
    assert (counted["nudenet_executed"] > 20, counted["nudenet_reused"]) == (True, 0)
    day.run("analyze", "--nudenet-mode", "always")
    assert day.merged("p2").read_bytes() == p2
    recounted = day.metrics("p2")
    assert (recounted["nudenet_executed"], recounted["nudenet_reused"]) == (0, counted["nudenet_executed"])
    assert recounted["records"] == counted["records"]
    assert not day.leftovers()


def test_another_model_or_preparation_is_another_matter_and_for_animations_the_number_of_frames(day: RealDay) -> None:
    p1(day)
    assert p1(day, "--model", "tiny")[1]["inferred"] > 20
    animations = sum(record["image"]["frames"] > 1 for record in day.records("p1") if record["image"])
    assert p1(day, "--model", "tiny", "--frames", "2")[1]["inferred"] == animations > 0
    assert p1(day, "--model", "tiny", "--fast-decode")[1]["inferred"] > 20
    assert p1(day, "--model", "tiny")[1]["inferred"] == 0


def test_an_edited_vocabulary_needs_no_inference(day: RealDay) -> None:
    rules = day.root / "rules.yaml"
    rules.write_text(RULES.format(tag="filler_00389"))
    first, _ = p1(day, "--model", "tiny", "--rules-config", "rules.yaml")
    rules.write_text(RULES.format(tag="filler_00007"))
    edited, counted = p1(day, "--model", "tiny", "--rules-config", "rules.yaml", "--resume")
    assert counted["inferred"] == 0
    assert edited != first
    shutil.rmtree(day.root / "cache" / "scores")
    fresh, counted = p1(day, "--model", "tiny", "--rules-config", "rules.yaml")
    assert counted["inferred"] > 20
    assert fresh == edited


def test_what_a_killed_run_inferred_is_known_to_the_next(day: RealDay) -> None:
    process = day.start("tag", "--qps", "unlimited")
    until(lambda: day.journal_lines("p1") >= 8)
    kill_group(process)
    known = day.journal_lines("p1")
    _, counted = p1(day)
    assert counted["reused"] >= known / 2
    assert not day.leftovers()
    assert p1(day)[1]["inferred"] == 0
