"""The WD14 loader, on a model whose answers can be worked out by hand."""

from __future__ import annotations

import pickle
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from modbot.errors import ModelError, SettingError
from modbot.models import registry
from modbot.models.decoder import prepare
from modbot.models.execution import Execution
from modbot.models.tagger import Tagger, load_tagger, open_tagger, read_tags
from modbot.records.p1 import RAW_TAGS, Wd14
from tests.tiny_models import CHARACTER, RATING, TAGS, Tag, build, padded, write_model, write_tags

BY_NAME = {tag.name: tag for tag in TAGS}


def opened(tmp_path: Path, tags: list[Tag] | None = None) -> Tagger:
    build(tmp_path / "tiny", tags or TAGS)
    return open_tagger("tiny", models_dir=tmp_path, provider="cpu")


def described(tagger: Tagger, picture: Image.Image, *, keep: frozenset[str] = frozenset()) -> Wd14:
    (row,) = tagger.scores([prepare(picture, tagger.preparation)])
    return tagger.describe(row, keep=keep.__contains__, frame=3)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (10, 130, 77)])
@pytest.mark.parametrize("size", [(448, 448), (100, 100), (900, 900)])
def test_solid_colours_have_the_scores_worked_out_by_hand(
    tmp_path: Path, colour: tuple[int, int, int], size: tuple[int, int]
) -> None:
    record = described(opened(tmp_path), Image.new("RGB", size, colour))
    assert (record.model, record.input_size, record.frame) == ("tiny", 448, 3)
    for name in ("general", "sensitive", "questionable", "explicit"):
        assert getattr(record.rating, name) == pytest.approx(BY_NAME[name].score(*colour), abs=2e-6)
    assert {name for name, _ in record.general_raw} == {tag.name for tag in TAGS if tag.category == 0}
    for name, score in record.general_raw:
        assert score == pytest.approx(BY_NAME[name].score(*colour), abs=2e-6)
        assert score == round(score, 6)
    assert record.general == [pair for pair in record.general_raw if pair[1] >= 0.35]
    miku = BY_NAME["hatsune_miku"].score(*colour)
    assert [name for name, _ in record.character] == (["hatsune_miku"] if miku >= 0.85 else [])


def test_a_character_is_named_above_its_threshold(tmp_path: Path) -> None:
    record = described(opened(tmp_path), Image.new("RGB", (10, 10), (0, 255, 255)))
    ((name, score),) = record.character
    assert name == "hatsune_miku"
    assert score == pytest.approx(BY_NAME[name].score(0, 255, 255), abs=2e-6)
    assert "hatsune_miku" not in dict(record.general_raw)


def test_a_wide_picture_lies_on_a_white_square(tmp_path: Path) -> None:
    # Of the seven rows that the model looks at, four are red and three are white.
    record = described(opened(tmp_path), Image.new("RGB", (448, 224), "red"))
    assert record.rating.explicit == pytest.approx(BY_NAME["explicit"].score(255, 255 * 3 / 7, 255 * 3 / 7), abs=2e-6)


def test_tags_are_ordered_by_score_and_then_by_name(tmp_path: Path) -> None:
    names = [name for name, _ in described(opened(tmp_path), Image.new("RGB", (9, 9), "blue")).general_raw]
    assert names[:2] == [":d", "long_hair"]


def test_raw_tags_are_the_highest_and_those_of_the_groups(tmp_path: Path) -> None:
    tagger = opened(tmp_path, padded(300))
    picture = Image.new("RGB", (9, 9), "white")
    assert len(described(tagger, picture).general_raw) == RAW_TAGS
    record = described(tagger, picture, keep=frozenset({"filler_00280", "filler_00001", "hatsune_miku"}))
    scores = [score for _, score in record.general_raw]
    assert len(record.general_raw) == RAW_TAGS + 1
    assert record.general_raw[-1][0] == "filler_00280"
    assert scores == sorted(scores, reverse=True)


def test_keep_sees_normalised_names(tmp_path: Path) -> None:
    tags = [*padded(200), Tag("Long Hair-Style", bias=-9)]
    record = described(opened(tmp_path, tags), Image.new("RGB", (9, 9)), keep=frozenset({"long_hair_style"}))
    assert record.general_raw[-1][0] == "Long Hair-Style"


def test_a_batch_is_its_single_runs_and_may_be_empty(tmp_path: Path) -> None:
    tagger = opened(tmp_path)
    inputs = [prepare(Image.new("RGB", (50, 20), (i, 90, 255 - i)), tagger.preparation) for i in range(0, 250, 50)]
    assert tagger.scores(inputs).tobytes() == b"".join(tagger.scores([one]).tobytes() for one in inputs)
    assert len(tagger.scores([])) == 0


@pytest.mark.parametrize(
    ("worse", "better"), [((0.15, 0.85), (0.9, 0.1)), ((0.0, 1.0), (1.0, 0.4)), ((0.9, 0.0), (0.2, 0.3))]
)
def test_an_explicit_frame_is_worse_than_one_that_is_as_surely_questionable(
    tmp_path: Path, worse: tuple[float, float], better: tuple[float, float]
) -> None:
    tagger = opened(tmp_path)
    rows = np.zeros((2, len(TAGS)), np.float32)
    names = [tag.name for tag in TAGS]
    for row, scores in zip(rows, (worse, better), strict=True):
        row[[names.index("questionable"), names.index("explicit")]] = scores
    assert 0 <= tagger.badness(rows[1]) < tagger.badness(rows[0]) <= 1


def test_badness_is_of_the_models_own_ratings(tmp_path: Path) -> None:
    tagger = opened(tmp_path)
    red, green = tagger.scores(
        [prepare(Image.new("RGB", (8, 8), colour), tagger.preparation) for colour in ("red", "lime")]
    )
    for row, colour in ((red, (255, 0, 0)), (green, (0, 255, 0))):
        questionable, explicit = (BY_NAME[name].score(*colour) for name in ("questionable", "explicit"))
        assert tagger.badness(row) == pytest.approx((explicit + questionable / 2) / 1.5, abs=1e-6)


def test_an_imported_model_is_named_after_its_weights(tmp_path: Path) -> None:
    tagger = opened(tmp_path)
    assert tagger.has_tags
    assert tagger.revision.startswith("sha256-")
    assert (tagger.provider, tagger.precision, tagger.warnings) == ("cpu", "fp32", ())
    build(tmp_path / "tiny", TAGS[:-1])
    assert open_tagger("tiny", models_dir=tmp_path, provider="cpu").revision != tagger.revision


def test_a_tagger_that_was_checked_is_loaded_without_reading_its_weights_again(tmp_path: Path) -> None:
    build(tmp_path / "tiny")
    checked = pickle.loads(pickle.dumps(registry.installed("tiny", tmp_path, kind="tagger")))  # noqa: S301 - ours
    with mock.patch.object(registry, "sha256_of", wraps=registry.sha256_of) as read:
        assert load_tagger(checked, Execution(provider="cpu")).revision == checked.revision
        read.assert_not_called()
        checked.model.touch()
        assert load_tagger(checked, Execution(provider="cpu")).revision == checked.revision
        read.assert_called_once_with(checked.model)
    build(tmp_path / "tiny", TAGS[:-1])
    with pytest.raises(ModelError, match="no longer revision sha256-"):
        load_tagger(checked, Execution(provider="cpu"))
    checked.model.unlink()
    with pytest.raises(ModelError, match="the tagger tiny is not on disk"):
        load_tagger(checked, Execution(provider="cpu"))


def test_a_provider_that_is_not_here_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "tiny")
    tagger = open_tagger("tiny", models_dir=tmp_path, provider="cuda")
    assert tagger.provider == "cpu"
    (warning,) = tagger.warnings
    assert warning.startswith("cuda: ")
    assert warning.endswith("going on with cpu")
    assert len(open_tagger("tiny", models_dir=tmp_path, provider="tensorrt").warnings) == 2
    assert open_tagger("tiny", models_dir=tmp_path, provider="auto").warnings == ()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(SettingError, match="no provider 'npu'"):
        open_tagger("tiny", models_dir=tmp_path, provider="npu")


def test_a_tagger_that_is_not_there_names_both_ways_out(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        open_tagger("wd-eva02-large-tagger-v3", models_dir=tmp_path, provider="cpu")
    assert caught.value.exit_code == 2
    assert "modbot models get wd-eva02-large-tagger-v3" in str(caught.value)
    assert "--model open_nsfw" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../tiny", "/etc", "", ".hidden", "a/b", "x\n"])
def test_a_name_stays_below_the_models_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be a model's name"):
        open_tagger(name, models_dir=tmp_path / "models", provider="cpu")


def test_a_detector_is_no_tagger(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="320n is a detector"):
        open_tagger("320n", models_dir=tmp_path, provider="cpu")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "is missing"),
        (b"", "no columns name and category"),
        (b"id,tag\n1,general\n", "no columns name and category"),
        (b"tag_id,name,category,count\n1,general,9,5\n2,,0,5\n", "line 3"),
        (b"tag_id,name,category,count\n1,general,9,5\n2,hair\n", "line 3"),
        (b"tag_id,name,category,count\n1,general,7,5\n", "line 2"),
        (b"tag_id,name,category,count\n1,general,9,5\n2,1girl,0,5\n", "has the ratings general;"),
        (b"\xff\xfe\x00name,category", "cannot be read"),
        (b'tag_id,name,category,count\n1,"general,9,5\n' + b"x" * 200_000, "cannot be read"),
    ],
)
def test_a_broken_tag_list_is_refused(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "selected_tags.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=complaint) as caught:
        read_tags(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("outputs", [None, "tags"])
def test_a_tag_list_of_another_model_is_refused(tmp_path: Path, outputs: str | None) -> None:
    build(tmp_path / "tiny")
    write_model(tmp_path / "tiny" / "model.onnx", TAGS, outputs=outputs)
    assert open_tagger("tiny", models_dir=tmp_path, provider="cpu").has_tags
    write_tags(tmp_path / "tiny" / "selected_tags.csv", [*TAGS, Tag("one_more")])
    with pytest.raises(ModelError, match=r"the model has 10 outputs, selected_tags\.csv has 11 tags"):
        open_tagger("tiny", models_dir=tmp_path, provider="cpu")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "tiny")
    (tmp_path / "tiny" / "model.onnx").write_bytes(b"not an ONNX file")
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_tagger("tiny", models_dir=tmp_path, provider="cpu")


def test_a_model_of_another_shape_is_refused(tmp_path: Path, models_dir: Path) -> None:
    build(tmp_path / "tiny")
    (tmp_path / "tiny" / "model.onnx").write_bytes((models_dir / "320n" / "model.onnx").read_bytes())
    with pytest.raises(ModelError, match="is needed"):
        open_tagger("tiny", models_dir=tmp_path, provider="cpu")


def test_categories_of_the_list_are_read(tmp_path: Path) -> None:
    tags = read_tags(build(tmp_path) / "selected_tags.csv")
    assert tags.names == [tag.name for tag in TAGS]
    assert list(tags.ratings) == [tag.name for tag in TAGS if tag.category == RATING]
    assert [tags.names[i] for i in tags.character] == [tag.name for tag in TAGS if tag.category == CHARACTER]


def test_the_catalogue_says_what_is_listed_and_how_large_the_input_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = described(opened(tmp_path), picture := Image.new("RGB", (9, 9), "white"))
    Path("configs").mkdir()
    entry = """models:
  tiny:
    kind: tagger
    source: {from: import, page: here}
    files: {model.onnx: null, selected_tags.csv: null}
    input_size: 448
    thresholds: {general: 0.001, character: 0.001}
    licence: none
"""
    Path("configs/models.yaml").write_text(entry)
    record = described(opened(tmp_path), picture)
    assert record.general == [pair for pair in record.general_raw if pair[1] >= 0.001] != plain.general
    assert [name for name, _ in record.character] == ["hatsune_miku"]
    Path("configs/models.yaml").write_text(entry.replace("448", "384"))
    with pytest.raises(ModelError, match="takes pictures of 448 pixels, the catalogue says 384"):
        opened(tmp_path)
