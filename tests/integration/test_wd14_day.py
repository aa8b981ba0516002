"""A day under a tagger of WD14's shape: tags reach the records (a group's whatever their score) and the rules."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from samples.server import SampleServer
from tests.real_day import DATE, RealDay
from tests.tiny_models import Tag, build, padded

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}

RULES = """\
version: 2
rule_titles: {red_nude: Red}
groups:
  nsfw_general: [nude]
  rare: [filler_00389]
rules:
  - {id: red_nude, severity: red, when: score("nude") > 0.9, reasons: ['nude {score("nude"):.2f}']}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SampleServer]:
    folder = tmp_path / "colours"
    folder.mkdir()
    for name, colour in COLOURS.items():
        png = BytesIO()
        Image.new("RGB", (300, 200), colour).save(png, format="PNG")
        (folder / f"{name}.png").write_bytes(png.getvalue())
    gif = BytesIO()
    frames = [Image.new("RGB", (64, 64), COLOURS["red" if number == 37 else "green"]) for number in range(60)]
    for number, frame in enumerate(frames):
        frame.putpixel((number, number), (0, 0, 0))  # frames that are alike would become one
    frames[0].save(gif, format="GIF", save_all=True, append_images=frames[1:])
    (folder / "odd_frame.gif").write_bytes(gif.getvalue())
    with SampleServer(folder) as running:
        yield running


@pytest.fixture
def day(tmp_path: Path, server: SampleServer, models_dir: Path) -> RealDay:
    models = tmp_path / "models"
    build(models / "tiny", padded(400))
    shutil.copytree(models_dir / "320n", models / "320n")
    made = RealDay(tmp_path / "day", server, models)
    rows = [f"{server.base_url}/{name}.png" for name in COLOURS] + [f"{server.base_url}/odd_frame.gif"]
    index = made.tree / "p0" / f"p0_{DATE}.csv"
    index.parent.mkdir(parents=True)
    index.write_text("url\n" + "\n".join(rows) + "\n")
    (made.root / "rules.yaml").write_text(RULES)
    made.split(2)
    return made


def score(tag: Tag, colour: tuple[int, int, int]) -> float:
    return round(tag.score(*colour), 6)


def file(record: dict[str, Any]) -> str:
    url: str = record["messages"][0]["url"]
    return url.rsplit("/", 1)[1]


def test_tags_go_from_the_model_to_the_verdict(day: RealDay) -> None:
    told = day.tag("--model", "tiny", "--rules-config", "rules.yaml", "--parallel", "2", "--batch-size", "3").stdout
    assert "cannot match" not in told
    records = {file(record): record for record in day.records("p1")}
    tags = {tag.name: tag for tag in padded(400)}
    # A picture that is not square stands on white: two thirds of it are the colour, a third is white.
    for name, colour in COLOURS.items():
        wd14 = records[f"{name}.png"]["wd14"]
        assert (wd14["model"], wd14["input_size"], wd14["frame"]) == ("tiny", 448, 0)
        assert set(wd14["rating"]) == {"general", "sensitive", "questionable", "explicit"}
        raw = dict(map(tuple, wd14["general_raw"]))
        assert len(wd14["general_raw"]) >= 129
        assert "filler_00389" in raw
        assert all(score >= 0.35 for _, score in wd14["general"])
        assert [s for _, s in wd14["general_raw"]] == sorted((s for _, s in wd14["general_raw"]), reverse=True)
        if name == "white":
            for tag, found in raw.items():
                assert math.isclose(found, score(tags[tag], colour), abs_tol=1e-5)
    odd = records["odd_frame.gif"]
    assert (odd["image"]["frames"], odd["wd14"]["frame"]) == (60, 37)
    assert odd["wd14"]["rating"]["explicit"] > 0.9

    day.run("analyze", "--rules-config", "rules.yaml")
    executed = {file(record) for record in day.records("p2") if record["meta"]["nudenet_ran"]}
    assert "odd_frame.gif" in executed
    assert "green.png" not in executed
    day.run("scan", "--rules", "rules.yaml")
    verdicts = {file(f): (f["severity"], f["rule_id"]) for f in day.findings()}
    assert verdicts["odd_frame.gif"] == ("red", "red_nude")
    assert verdicts["green.png"] == ("green", None)
    report = json.loads((day.tree / "metrics" / "p3_run.json").read_bytes())
    assert report["rules"]["red_nude"] >= 1
