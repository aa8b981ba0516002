"""What the detector makes of a model's numbers; that they are the package's own is the contract's to test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from modbot.errors import ModelError
from modbot.models.nudenet import Detector
from modbot.models.preparation import BlackCorner, PreparedFrame
from modbot.models.providers import Array, Session
from modbot.models.registry import Installed

MODEL = Installed("320n", Path("320n"), "3.4.2", digest="0" * 64, verified=True, stamp=())
PREPARED = PreparedFrame(0, 640, 320, np.zeros((320, 320, 3), np.uint8))


def detector(output: Array, *, model: Installed = MODEL, side: int | None = 320) -> Detector:
    """A detector whose model gives this output, [22, rows], for whatever it is shown."""
    runtime = SimpleNamespace(run=lambda *_: [output[np.newaxis]], get_inputs=lambda: [SimpleNamespace(name="images")])
    return Detector(model, Session(runtime, "cpu", (), (None, 3, side, side), (None, *output.shape)))


def one_face() -> Array:
    """One row: a box of 40 x 20 around (160, 80) in the model's 320 x 320, class 12 with 0.75."""
    output = np.zeros((22, 1), dtype=np.float32)
    output[:4, 0] = (160, 80, 40, 20)
    output[4 + 12, 0] = 0.75
    return output


def test_a_row_is_a_detection_in_the_pixels_of_the_original() -> None:
    found = detector(one_face())
    ((face,),) = found.detect([PREPARED])
    assert (face.class_, face.score, face.box) == ("FACE_MALE", 0.75, (280, 140, 80, 40))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 3, 4, 21])
def test_numbers_that_are_none_are_not_told_as_nothing_found(number: float, row: int) -> None:
    output = one_face()
    output[row, 0] = number
    broken = detector(output)
    with pytest.raises(FloatingPointError, match="not finite"):
        broken.detect([PREPARED])


def test_a_model_that_takes_any_size_gets_the_catalogues() -> None:
    larger = detector(one_face(), model=replace(MODEL, input_size=640), side=None)
    assert larger.preparation == BlackCorner(size=640)
    ((face,),) = larger.detect([PREPARED])
    assert face.box == (140, 70, 40, 20)
    with pytest.raises(ModelError, match="of what size is not said"):
        detector(one_face(), side=None)
