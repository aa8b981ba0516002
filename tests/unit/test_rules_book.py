"""What a rules file is read with: the source that wins the mode, the constants, the lists, the signals' settings."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from modbot.records.evidence import read
from modbot.rules import Mode
from modbot.stages.rulebook import ModeRequest, open_rulebook
from tests.p2_records import plain

RULES = """
version: 2
{mode}
rule_titles: {{a: A}}
rules: [{{id: a, severity: red, when: {when}}}]
"""
SOURCES = ("--lock-mode", "--dsl-mode", "MODBOT_DSL_MODE", "the file's dsl_mode")
MODES: tuple[Mode | None, ...] = (None, "warn", "strict")


def written(folder: Path, when: str = "1 > 0", mode: str = "") -> Path:
    path = folder / "rules.yaml"
    path.write_text(RULES.format(when=json.dumps(when), mode=mode), encoding="utf-8")
    return path


@pytest.mark.parametrize("modes", list(itertools.product(MODES, repeat=4)), ids=str)
def test_the_first_source_that_says_a_mode_wins_and_the_banner_names_it(
    tmp_path: Path, modes: tuple[Mode | None, ...]
) -> None:
    lock, flag, environment, own = modes
    path = written(tmp_path, mode=f"dsl_mode: {own}" if own else "")
    book = open_rulebook(path, ModeRequest(lock=lock, flag=flag, environment=environment))
    said = [(mode, source) for mode, source in zip(modes, SOURCES, strict=True) if mode]
    mode, source = said[0] if said else ("warn", "the default")
    assert (book.mode, book.mode_source) == (mode, source)
    assert book.loaded.mode == mode
    assert book.banner.endswith(f"1 rule), mode {mode} (from {source})")


def test_a_mode_that_cannot_be_used_counts_as_unset(tmp_path: Path) -> None:
    path = written(tmp_path, mode="dsl_mode: lax")
    assert open_rulebook(path, ModeRequest()).mode_source == "the default"


@pytest.mark.parametrize(("settings", "matches"), [(None, True), ("strong_weight: 0.1", False)])
def test_signals_that_p2_did_not_compute_are_those_of_the_settings(
    tmp_path: Path, settings: str | None, *, matches: bool
) -> None:
    if settings is not None:
        (tmp_path / "xsignals.yaml").write_text(settings, encoding="utf-8")
    path = written(tmp_path, "exposure_score > 0.5")
    book = open_rulebook(path, ModeRequest(), xsignals=tmp_path / "xsignals.yaml")
    record = plain(
        1,
        xsignals=None,
        nudity_detections=[{"class": "FEMALE_BREAST_EXPOSED", "score": 0.9, "box": [0, 0, 5, 5]}],
        image={"width": 10, "height": 10},
    )
    judged = book.judge("yellow")(read(json.dumps(record).encode(), 1))
    assert judged.outcome.rule_id == ("a" if matches else None)
    assert judged.outcome.metrics["exposure_score"] == pytest.approx(0.9 if matches else 0.09)


@pytest.mark.parametrize(("consts", "matches"), [({}, False), ({"limit": 0.1}, True)])
def test_a_constant_that_is_given_wins_over_the_files(
    tmp_path: Path, consts: dict[str, float], *, matches: bool
) -> None:
    path = written(tmp_path, "rating.explicit >= const_limit", mode="thresholds: {limit: 0.9}")
    book = open_rulebook(path, ModeRequest(), consts=consts)
    record = plain(1, wd14={"rating": {"general": 0.1, "explicit": 0.5}})
    assert (book.judge("yellow")(read(json.dumps(record).encode(), 1)).outcome.rule_id == "a") is matches


@pytest.mark.parametrize("found", ["nothing", "a folder", "a file that is too large", "no text"])
def test_a_rules_file_that_cannot_be_used_is_told_about(tmp_path: Path, found: str) -> None:
    path = tmp_path / "rules.yaml"
    if found == "a folder":
        path.mkdir()
    elif found == "a file that is too large":
        with path.open("wb") as out:
            out.truncate(100 * 1024 * 1024)
    elif found == "no text":
        path.write_bytes(b"\xff\xfe\x00")
    loaded = open_rulebook(path, ModeRequest()).loaded
    assert (loaded.status, loaded.ruleset) == ("error", None)
    assert [issue.code for issue in loaded.issues] == ["R2-IO" if found in {"nothing", "a folder"} else "R2-YAML"]
