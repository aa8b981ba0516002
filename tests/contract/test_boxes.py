"""The detector rewritten gives the numbers of the detector itself, wherever a score asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
import pytest
from skimage import data

from modbot.models import boxes, catalogue, registry
from modbot.models.decoder import prepare
from modbot.models.execution import Execution
from modbot.models.imaging import decode
from modbot.models.nudenet import load_detector, open_detector
from modbot.models.preparation import BlackCorner
from modbot.models.providers import Array

ASKED = 0.2
EVERYWHERE = 1e-12


@pytest.fixture(scope="module")
def model(models_dir: Path) -> registry.Installed:
    return registry.locate("320n", models_dir, kind="detector")


def run(model: Path | bytes, images: Array) -> Array:
    runtime = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (output,) = runtime.run(None, {"images": images})
    return np.asarray(output, dtype=np.float32)


def photographs(side: int) -> Array:
    """float32 [3, 3, side, side]: two with people, faces at all edges; one without."""
    folder = Path(data.__file__).parent
    astronaut, gravel = (
        decode((folder / name).read_bytes()).frames[0].picture for name in ("astronaut.png", "gravel.png")
    )
    face = astronaut.crop((130, 10, 330, 210))
    edges = astronaut.resize((600, 600))
    for corner in ((-90, 200), (490, 200), (200, -90), (200, 490), (200, 200)):
        edges.paste(face, corner)
    pixels = [prepare(picture, BlackCorner(size=side)) for picture in (astronaut, edges, gravel)]
    return np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


def noise(side: int) -> Array:
    return np.random.default_rng(3).random((2, 3, side, side), dtype=np.float32)


def test_an_older_runtime_understands_it_too(model: registry.Installed) -> None:
    """ONNX Runtime 1.24 makes nothing of constants that are no tensors, and then of what they shape."""
    rewritten = onnx.load_from_string(boxes.where_scored(model.model, ASKED))
    constants = [node for function in rewritten.functions for node in function.node if node.op_type == "Constant"]
    assert constants
    assert {attribute.name for node in constants for attribute in node.attribute} == {"value"}


@pytest.mark.parametrize("least", [ASKED, 0.02, EVERYWHERE])
@pytest.mark.parametrize("side", [320, 96])
@pytest.mark.parametrize("draw", [photographs, noise])
def test_boxes_are_the_models_own_wherever_they_are_asked_for(
    model: registry.Installed, draw: Callable[[int], Array], side: int, least: float
) -> None:
    images = draw(side)
    wanted, found = run(model.model, images), run(boxes.where_scored(model.model, least), images)
    assert found.shape == wanted.shape
    assert np.allclose(found[:, 4:], wanted[:, 4:], rtol=0, atol=1e-5)
    asked = wanted[:, 4:].max(axis=1) >= least
    assert np.allclose(found[:, :4].swapaxes(1, 2)[asked], wanted[:, :4].swapaxes(1, 2)[asked], rtol=0, atol=1e-2)
    # Those that lie within the slack under the score are computed, too.
    unasked = wanted[:, 4:].max(axis=1) < least * 0.99
    assert not found[:, :4].swapaxes(1, 2)[unasked].any()


def test_the_comparison_sees_places_that_are_asked_for_and_such_that_are_not(model: registry.Installed) -> None:
    best = run(model.model, photographs(320))[:, 4:].max(axis=1)
    asked = (best >= ASKED).sum(axis=1)
    assert asked[0] >= 5
    assert asked[1] >= 20
    assert asked[2] == 0
    assert (best > EVERYWHERE * 1.01).all()


def test_the_pinned_weights_are_tried_and_run_rewritten(
    model: registry.Installed, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = catalogue.known_model("320n")
    assert known
    assert {known.digests["model.onnx"]} == {model.digest} == boxes.TRIED
    rewritten: list[Path] = []
    rewrite = boxes.where_scored

    def noted(path: Path, least: float) -> bytes:
        rewritten.append(path)
        return rewrite(path, least)

    monkeypatch.setattr(boxes, "where_scored", noted)
    assert open_detector(models_dir=models_dir, provider="cpu").provider == "cpu"
    assert rewritten == [model.model]
    monkeypatch.setattr(boxes, "TRIED", frozenset())
    load_detector(model, Execution(provider="cpu"))
    assert rewritten == [model.model]
