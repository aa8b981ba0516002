"""Explanations as people and programs get them; a change that is meant is written with UPDATE_GOLDEN=1, and read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from modbot.cli.main import main
from modbot.files.paths import Partition
from tests.p2_records import plain

GOLDEN = Path(__file__).parent / "explain"
DATE = "2025-10-01"
TAGS = [["dog", 0.62], ["sex", 0.55], ["child", 0.3], ["guro", 0.2]]

RECORDS: dict[str, dict[str, object]] = {
    "raised": {},
    "two_matches": {"rating": {"general": 0.05, "sensitive": 0.05, "questionable": 0.2, "explicit": 0.7}},
    "stopped": {"nsfw": True, "rating": {"general": 0.99, "sensitive": 0.01, "questionable": 0.0, "explicit": 0.0}},
    "unjudged": {"error": "inference failed", "rating": {"general": 0.9, "explicit": 0.1}, "tags": [["child", 0.3]]},
    "expired": {"expired": True},
    "hostile": {"tags": [["\x1b[2J\u202e_dog", 0.7], ["dog\n", 0.6]], "link": "https://x.example/\x1b]0;owned\x07"},
}


def record(number: int, changes: dict[str, object]) -> dict[str, object]:
    """A p2 record, with what makes it interesting."""
    base = plain(number)
    link = changes.get("link", f"https://discord.com/channels/1/2/{number}")
    base["message_link"] = link
    base["messages"] = [{**base["messages"][0], "message_link": link, "is_nsfw_channel": bool(changes.get("nsfw"))}]
    base["sha256"] = f"{number:064x}"
    if changes.get("expired"):
        return {**base, "wd14": None, "error": {"kind": "expired", "detail": "HTTP 404", "attempts": 2}}
    rating = changes.get("rating", {"general": 0.1, "sensitive": 0.2, "questionable": 0.4, "explicit": 0.3})
    tags = changes.get("tags", TAGS)
    base["wd14"] = {**base["wd14"], "rating": rating, "general": tags, "general_raw": tags}
    base["nudity_detections"] = [{"class": "BELLY_EXPOSED", "score": 0.7, "box": [0, 0, 10, 10]}]
    base["xsignals"] = {**dict.fromkeys(base["xsignals"], 0.0), "exposure_score": 0.42}
    base["meta"] = {**base["meta"], "nudenet_error": changes.get("error")}
    return base


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    analysis = Partition(Path("out"), "current", DATE).merged("p2")
    analysis.parent.mkdir(parents=True)
    lines = [json.dumps(record(number, changes)) for number, changes in enumerate(RECORDS.values())]
    analysis.write_text("\n".join(lines), encoding="utf-8")
    Path("configs").mkdir()
    shutil.copy(GOLDEN / "rules.yaml", "configs/rules.yaml")
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("form", ["txt", "json"])
@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_explained_as_before(name: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    digest = f"{list(RECORDS).index(name):064x}"
    given = ["--json"] if form == "json" else []
    assert main(["explain", "--date", DATE, "--sha256", digest, *given]) == 0
    said = capsys.readouterr().out
    golden = GOLDEN / f"{name}.{form}"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(said, encoding="utf-8")
    assert said == golden.read_text(encoding="utf-8")
    assert form == "json" or all(line.isprintable() for line in said.splitlines())
