"""The reference of the rules language is complete, its example is good, and its outputs are what the commands say.

An output that changes on purpose is written with UPDATE_GOLDEN=1.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from modbot.files.paths import Partition
from modbot.rules import load_rules, names
from modbot.rules.cases import RECORD_KEYS
from modbot.rules.load import RULE_KEYS, TOP_LEVEL
from tests.p2_records import plain

DOC = Path(__file__).parents[2] / "docs" / "rules.md"
TEXT = DOC.read_text(encoding="utf-8")
SOURCES = Path(__file__).parents[2] / "src" / "modbot" / "rules"

EXAMPLE = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[0]
MISTAKE = EXAMPLE.replace("when: minors_peak", "when: minors_peek")
CHANGED = EXAMPLE.replace("rating.explicit >= 0.80", "rating.explicit >= 0.95")
CONSOLE = re.compile(r"```console\n(\$ modbot ([^\n]*)\n)(.*?)```", re.DOTALL)
COMMANDS = [found[2] for found in CONSOLE.finditer(TEXT)]

LINK = "https://discord.com/channels/1/2/30"
DIGEST = "6f3b1d0e5a7c49288e0d1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e"


def record() -> dict[str, object]:
    """The image that the document explains: nude, perhaps with a child, in a channel that is not NSFW."""
    found = plain(1)
    tags = [["nude", 0.62], ["1girl", 0.98], ["child", 0.21], ["smile", 0.5]]
    found["messages"] = [{**found["messages"][0], "message_link": LINK, "is_nsfw_channel": False}]
    rating = {"general": 0.02, "sensitive": 0.1, "questionable": 0.02, "explicit": 0.86}
    found["wd14"] = {**found["wd14"], "rating": rating, "general_raw": tags}
    found["nudity_detections"] = [{"class": "FEMALE_BREAST_EXPOSED", "score": 0.74, "box": [0, 0, 10, 10]}]
    signals = {"exposure_score": 0.74, "placement_risk_pre": 1.134, "nsfw_margin": 0.76, "nsfw_ratio": 0.88}
    found["xsignals"] = {**found["xsignals"], **signals, "nsfw_general_sum": 0.62, "nudity_box_count": 1}
    found["sha256"], found["message_link"], found["is_nsfw_channel"] = DIGEST, LINK, False
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"rules.yaml": EXAMPLE, "mistake.yaml": MISTAKE, "changed.yaml": CHANGED}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    analysis = tmp_path / Partition(Path("out"), "current", "2025-10-01").merged("p2")
    analysis.parent.mkdir(parents=True)
    analysis.write_text(json.dumps(record()), encoding="utf-8")
    return tmp_path


def said(folder: Path, command: str) -> str:
    """What a person sees of the command."""
    arguments = [sys.executable, "-m", "modbot.cli.main", *shlex.split(command)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MODBOT", "OUT_DIR"))}
    ran = subprocess.run(
        arguments, cwd=folder, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return ran.stdout


def test_there_are_outputs() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_the_document_says(folder: Path, command: str) -> None:
    output = said(folder, command)
    if os.environ.get("UPDATE_GOLDEN"):
        blocks = CONSOLE.sub(
            lambda found: f"```console\n{found[1]}{output if found[2] == command else found[3]}```",
            DOC.read_text(encoding="utf-8"),
        )
        DOC.write_text(blocks, encoding="utf-8")
        return
    (told,) = (found[3] for found in CONSOLE.finditer(TEXT) if found[2] == command)
    assert output == told


@pytest.mark.parametrize("mode", ["warn", "strict"])
def test_the_example_is_good(mode: str) -> None:
    loaded = load_rules(EXAMPLE.encode(), file="rules.yaml", mode="strict" if mode == "strict" else "warn")
    assert loaded.status == "ok"
    assert loaded.issues == ()


def test_every_function_name_key_and_code_is_told() -> None:
    codes = {code for path in SOURCES.glob("*.py") for code in re.findall(r"R2-[A-Z]+\d*", path.read_text("utf-8"))}
    identifiers = {
        *names.BUILT_INS,
        *(f"rating.{name}" for name in names.RATINGS),
        "channel.is_nsfw",
        "message.is_spoiler",
    }
    groups = {group for _, group in names.GROUP_SIGNALS.values()}
    keys = {*TOP_LEVEL, *RULE_KEYS, *RECORD_KEYS}
    told = {name for name in codes | identifiers | groups | keys if re.search(rf"\b{re.escape(name)}\b", TEXT)}
    assert codes | identifiers | groups | keys == told
    assert [name for name in names.FUNCTIONS if f"`{name}(" not in TEXT] == []
