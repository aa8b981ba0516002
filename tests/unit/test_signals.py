from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.errors import SettingError
from modbot.records.p1 import Rating
from modbot.records.p2 import DETECTION_CLASSES, Detection, XSignals
from modbot.records.tags import Group
from modbot.signals import Box, GateMode, SignalConfig, compute, exposure_score, gate_opens, union_area

CONFIG = SignalConfig()
GATE = {"wd14_questionable": 0.35, "wd14_explicit": 0.20}
NSFW = Group(["nude", "sex", "cum_*"])

scores = st.floats(0, 1)
ratings = st.builds(Rating, general=scores, sensitive=scores, questionable=scores, explicit=scores)
boxes = st.tuples(*[st.integers(-20, 60)] * 2, *[st.integers(0, 60)] * 2)
detections = st.lists(
    st.builds(Detection, class_=st.sampled_from(DETECTION_CLASSES), score=scores, box=boxes), max_size=14
)


def rating(general: float = 0.0, sensitive: float = 0.0, questionable: float = 0.0, explicit: float = 0.0) -> Rating:
    return Rating(general=general, sensitive=sensitive, questionable=questionable, explicit=explicit)


def found(class_: str, score: float, box: tuple[int, int, int, int] = (0, 0, 10, 10)) -> Detection:
    return Detection(class_=class_, score=score, box=box)


def signals(
    rated: Rating | None = None,
    tags: dict[str, float] | None = None,
    detected: list[Detection] | None = None,
    size: tuple[int, int] = (100, 50),
) -> XSignals:
    return compute(rated or rating(), tags or {}, detected or [], *size, NSFW, CONFIG)


@pytest.mark.parametrize(
    ("detected", "score"),
    [
        ([], 0.0),
        ([found("FEMALE_BREAST_EXPOSED", 0.7)], 0.7),
        ([found("FEMALE_BREAST_EXPOSED", 0.6)], 0.6),
        ([found("FEMALE_BREAST_EXPOSED", 0.59)], 0.0),
        ([found("BUTTOCKS_COVERED", 0.5)], 0.3),
        ([found("BUTTOCKS_COVERED", 0.49)], 0.0),
        ([found("MALE_BREAST_EXPOSED", 0.9)], 0.54),  # weak
        ([found("FACE_FEMALE", 0.99), found("FEET_EXPOSED", 0.9)], 0.0),
        ([found("ANUS_EXPOSED", 0.8), found("BELLY_EXPOSED", 0.5), found("BELLY_EXPOSED", 0.4)], 0.86),
    ],
)
def test_exposure_joins_the_strongest_strong_and_weak_detection(detected: list[Detection], score: float) -> None:
    assert signals(detected=detected).exposure_score == score
    assert exposure_score(detected, CONFIG) == score


def test_placement_risk_by_hand() -> None:
    tags = {"nude": 0.9, "sex": 0.6, "cum_on_body": 0.3, "cum_in_mouth": 0.1, "smile": 1.0}
    given_ = signals(rating(0.1, 0.1, 0.2, 0.6), tags, [found("ANUS_EXPOSED", 0.8)])
    assert given_.placement_risk_pre == pytest.approx(0.5 * 0.6 + 0.3 * 0.6 + 0.7 * 0.8)
    assert given_.nsfw_general_sum == pytest.approx(1.9)


def test_the_mean_of_fewer_than_three_tags_is_of_those() -> None:
    assert signals(tags={"nude": 0.8, "sex": 0.4}).placement_risk_pre == pytest.approx(0.3 * 0.6)


def test_margin_and_ratio_by_hand() -> None:
    given_ = signals(rating(0.1, 0.3, 0.2, 0.4))
    assert given_.nsfw_margin == 0.1
    assert given_.nsfw_ratio == round(0.6 / 1.000001, 6)
    assert signals().nsfw_ratio == 0.0


def test_boxes_count_once_where_they_overlap() -> None:
    detected = [
        found("FEMALE_BREAST_EXPOSED", 0.9, (0, 0, 20, 10)),
        found("FEMALE_BREAST_EXPOSED", 0.8, (10, 0, 20, 10)),
        found("FEMALE_BREAST_EXPOSED", 0.59, (50, 0, 50, 50)),
        found("BUTTOCKS_EXPOSED", 0.9, (50, 0, 50, 50)),
    ]
    given_ = signals(detected=detected)
    assert given_.nudity_box_count == 2
    assert given_.nudity_area_ratio == 300 / 5000


def test_only_the_ten_largest_detections_count() -> None:
    faces = [found("FACE_FEMALE", 0.9)] * 10
    assert signals(detected=[found("ANUS_EXPOSED", 0.8), *faces]) == signals()
    assert signals(detected=[found("ANUS_EXPOSED", 0.95), *faces]).exposure_score == 0.95


def test_an_image_without_area_has_none() -> None:
    assert signals(detected=[found("ANUS_EXPOSED", 0.9)], size=(0, 0)).nudity_area_ratio == 0.0


@given(ratings, st.dictionaries(st.sampled_from(["nude", "sex", "cum_x", "other"]), scores), detections)
def test_signals_stay_in_their_bounds(rated: Rating, tags: dict[str, float], detected: list[Detection]) -> None:
    given_ = compute(rated, tags, detected, 40, 30, NSFW, CONFIG)
    assert 0 <= given_.exposure_score <= 1
    assert 0 <= given_.placement_risk_pre <= 1.5
    assert -1 <= given_.nsfw_margin <= 1
    assert 0 <= given_.nsfw_ratio <= 1
    assert 0 <= given_.nsfw_general_sum <= 3
    assert 0 <= given_.nudity_area_ratio <= 1
    assert 0 <= given_.nudity_box_count <= 10


@given(detections, st.integers(0, 13), st.floats(0, 1))
def test_a_surer_detection_never_lowers_exposure(detected: list[Detection], index: int, raised: float) -> None:
    if index >= len(detected) or detected[index].score >= raised:
        return
    surer = [
        Detection(class_=d.class_, score=raised if i == index else d.score, box=d.box) for i, d in enumerate(detected)
    ]
    assert exposure_score(surer, CONFIG) >= exposure_score(detected, CONFIG)


@given(detections, st.randoms(use_true_random=False))
def test_the_order_of_detections_does_not_matter(detected: list[Detection], random: Random) -> None:
    distinct = list({d.score: d for d in detected}.values())
    shuffled = random.sample(distinct, len(distinct))
    assert signals(detected=shuffled) == signals(detected=distinct)


@given(st.lists(boxes, max_size=6), st.integers(1, 40), st.integers(1, 40))
def test_the_union_is_what_a_grid_counts(given_boxes: list[Box], width: int, height: int) -> None:
    covered = {
        (column, row)
        for x, y, w, h in given_boxes
        for column in range(int(max(x, 0)), int(min(x + w, width)))
        for row in range(int(max(y, 0)), int(min(y + h, height)))
    }
    assert union_area(given_boxes, width, height) == len(covered)


@pytest.mark.parametrize(
    ("rated", "mode", "opens"),
    [
        (rating(questionable=0.35), "auto", True),
        (rating(questionable=0.349), "auto", False),
        (rating(explicit=0.20), "auto", True),
        (rating(explicit=0.199), "auto", False),
        (rating(general=1.0), "always", True),
        (rating(explicit=1.0), "never", False),
    ],
)
def test_the_gate(rated: Rating, mode: GateMode, *, opens: bool) -> None:
    assert gate_opens(rated, GATE, mode) is opens


def test_the_gate_goes_by_the_files_thresholds() -> None:
    assert gate_opens(rating(explicit=0.1), {**GATE, "wd14_explicit": 0.1}, "auto")


def test_a_setting_that_is_left_out_keeps_its_default() -> None:
    config = SignalConfig.from_mapping({"weak_weight": 1, "strong_classes": ["face_female"], "nsfw_general": ["x"]})
    assert config.weak_weight == 1.0
    assert config.strong_classes == {"FACE_FEMALE"}
    assert config.strong_threshold == 0.60
    assert exposure_score([found("FACE_FEMALE", 0.7)], config) == 0.7


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"strong_weigth": 1}, "there is no setting `strong_weigth`"),
        ({"strong_weight": "high"}, "'high' is no number between 0 and 1"),
        ({"strong_weight": True}, "True is no number between 0 and 1"),
        ({"weak_threshold": 1.5}, "1.5 is no number between 0 and 1"),
        ({"weak_threshold": float("nan")}, "nan is no number between 0 and 1"),
        ({"top_tags": 0}, "0 is no whole number above 0"),
        ({"max_detections": 2.5}, "2.5 is no whole number above 0"),
        ({"box_classes": "ANUS_EXPOSED"}, "must be a list of class names"),
        ({"box_classes": [1]}, "must be a list of class names"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(values: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingError, match=r"xsignals\.yaml") as refused:
        SignalConfig.from_mapping(values)
    assert told in str(refused.value)
    assert refused.value.remedy
