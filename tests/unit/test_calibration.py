"""Temperatures: fitted to what people say of the same images; they never turn the order of two scores round."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from modbot.errors import InputError
from modbot.models.calibration import (
    RATINGS,
    Calibration,
    Temperatures,
    cooled,
    document,
    fit,
    fit_all,
    quality,
    read_calibration,
)
from modbot.records import jsonl
from modbot.records.p1 import Rating, Wd14

scores = st.integers(0, 10**6).map(lambda millionths: millionths / 10**6)
temperatures = st.floats(0.1, 10)


@given(scores, scores, temperatures)
def test_no_order_is_turned_round(one: float, other: float, temperature: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= cooled(low, temperature) <= cooled(high, temperature) <= 1


@given(scores, temperatures)
def test_a_half_and_the_ends_stay_where_they_are(score: float, temperature: float) -> None:
    assert cooled(0.5, temperature) == 0.5
    assert (cooled(0.0, temperature), cooled(1.0, temperature)) == (0.0, 1.0)
    assert cooled(score, 1.0) == score
    moved = cooled(score, temperature)
    if 0 < score < 1 and temperature > 1:
        assert abs(moved - 0.5) <= abs(score - 0.5) + 1e-6


def said(temperature: float, count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores of a model that is too sure by `temperature` (too unsure, below 1), and what people say."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, count)
    labels = random.random(count) < 1 / (1 + np.exp(-logits))
    return 1 / (1 + np.exp(-logits * temperature)), labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_scores_is_found(temperature: float) -> None:
    given_scores, labels = said(temperature, 20_000, 5)
    found = fit(given_scores, labels)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.too_few is None
    assert found.after.nll <= found.before.nll + 1e-9
    assert found.after.ece < 0.02
    if temperature == 2.5:
        assert found.before.ece > 0.05
    for nearby in (found.temperature * 0.97, found.temperature * 1.03):
        moved = np.array([cooled(score, nearby) for score in given_scores])
        assert quality(moved, labels).nll >= found.after.nll - 1e-7


@given(st.integers(0, 10_000), temperatures)
def test_a_fit_never_makes_it_worse(seed: int, temperature: float) -> None:
    given_scores, labels = said(temperature, 60, seed)
    found = fit(np.round(given_scores, 6), labels)
    assert 0.1 <= found.temperature <= 10
    assert found.after.nll <= found.before.nll + 1e-5


def test_labels_that_the_scores_separate_end_at_the_limit() -> None:
    found = fit(np.array([0.2] * 20 + [0.8] * 20), np.array([False] * 20 + [True] * 20))
    assert found.temperature == 0.1


@pytest.mark.parametrize(
    ("column", "positives", "complaint"),
    [([0.3] * 60, 3, "3 images with it, 57 without"), ([0.3] * 60, 55, "5 without"), ([0.0] * 60, 30, "does not give")],
)
def test_too_little_to_go_by_changes_nothing(column: list[float], positives: int, complaint: str) -> None:
    found = fit(np.array(column), np.arange(60) < positives)
    assert found.temperature == 1
    assert complaint in (found.too_few or "")
    assert found.before == found.after


@pytest.mark.parametrize(
    ("column", "complaint"),
    [
        ([1.0] * 30 + [0.3] * 30, "scores of 0 and 1 not counted, 0 images with it, 30 without"),
        ([0.7] * 30 + [0.0] * 29 + [0.4], "scores of 0 and 1 not counted, 30 images with it, 1 without"),
    ],
)
def test_scores_that_no_temperature_moves_are_nothing_to_go_by(column: list[float], complaint: str) -> None:
    found = fit(np.array(column), np.arange(60) < 30)
    assert found.temperature == 1
    assert complaint in (found.too_few or "")
    assert (found.positives, found.negatives) == (30, 30)


def test_the_table_says_what_the_scores_are_worth() -> None:
    table = quality(np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True])).bins
    assert [(each.low, each.high, each.count, each.share) for each in table] == [(0.0, 0.1, 2, 0.5), (0.9, 1.0, 2, 1.0)]


WD14 = Wd14(
    model="tiny",
    revision="r1",
    input_size=448,
    rating=Rating(general=0.9, sensitive=0.5, questionable=0.2, explicit=0.0),
    general=[("nude", 0.9)],
    character=[],
    general_raw=[],
)


def test_the_file_is_read_back_and_the_record_says_so(tmp_path: Path) -> None:
    ratings = [WD14.rating, Rating(general=0.1, sensitive=0.2, questionable=0.7, explicit=0.9)] * 30
    labels = ["general"] * 25 + ["explicit"] * 15 + ["sensitive", "questionable"] * 10
    fits = fit_all(ratings, labels)
    (tmp_path / "calibration.yaml").write_bytes(document("tiny", "r1", fits, len(labels)))
    calibration = read_calibration(tmp_path / "calibration.yaml")
    assert (calibration.model, calibration.revision) == ("tiny", "r1")
    assert msgspec.structs.asdict(calibration.temperatures) == {name: fits[name].temperature for name in RATINGS}
    told = yaml.safe_load((tmp_path / "calibration.yaml").read_text())["fitted"]
    assert told["labels"] == 60
    assert told["explicit"]["with"] == 15
    applied = calibration.apply(WD14)
    assert (applied.general, applied.rating.explicit, applied.rating.sensitive) == (WD14.general, 0.0, 0.5)
    assert applied.rating.general == cooled(0.9, fits["general"].temperature) != 0.9
    line = jsonl.decode_any(jsonl.encode_line(applied))
    assert line["calibration"]["digest"] == calibration.digest
    assert line["calibration"]["rating"]["general"] == 0.9
    assert "calibration" not in jsonl.decode_any(jsonl.encode_line(WD14))
    assert jsonl.decode(jsonl.encode_line(applied), Wd14) == applied


TEMPERATURES = dict.fromkeys(RATINGS, 1.5)
GOOD = {"model": "m", "revision": "r", "temperatures": TEMPERATURES}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no calibration"),
        ("[", "is no calibration"),
        (yaml.safe_dump(GOOD | {"temperatures": {"general": 1}}), "sensitive"),
        (yaml.safe_dump(GOOD | {"temperatures": TEMPERATURES | {"general": 0}}), r"temperatures\.general"),
        (yaml.safe_dump(GOOD | {"temperatures": TEMPERATURES | {"cute": 1}}), "cute"),
        (yaml.safe_dump(GOOD | {"colour": "red"}), "colour"),
        ("\xff", "is no calibration"),
        ("model: !!bool maybe", "is no calibration"),
        ("model: !!timestamp now", "is no calibration"),
        ("model: !!int ''", "is no calibration"),
        ("model: 1" + ":1" * 300 + ".5", "is no calibration"),
        (yaml.safe_dump(GOOD) + "#" * 1024**2 + "\n", "larger than 1 MiB"),
    ],
)
def test_what_is_no_calibration_is_refused_by_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "calibration.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=complaint) as caught:
        read_calibration(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_calibration(tmp_path / "nowhere.yaml")


def test_temperatures_of_one_change_no_rating() -> None:
    temperatures = Temperatures(**dict.fromkeys(RATINGS, 1.0))
    same = Calibration(model="m", revision="r", temperatures=temperatures, file="f", digest="d")
    assert same.apply(WD14).rating == WD14.rating
