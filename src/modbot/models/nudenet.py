"""NudeNet's detector: the numbers of the `nudenet` package's own `detect`, batched and without its Python loops."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from modbot.errors import ModelError
from modbot.models import boxes, registry
from modbot.models.execution import Execution
from modbot.models.preparation import BlackCorner, Pixels, Preparation, PreparedFrame
from modbot.models.providers import Array, Session, open_session
from modbot.records import jsonl
from modbot.records.p2 import DETECTION_CLASSES, Detection

_CANDIDATE_SCORE = 0.2
_NMS_SCORE = 0.25
_NMS_IOU = 0.45


class Detector:
    """NudeNet. `version` names the package, the weights and, where it is not the default, the order of the planes."""

    def __init__(self, model: registry.Installed, session: Session, *, rgb: bool = False) -> None:
        rows = session.outputs[1] if len(session.outputs) == 3 else None  # noqa: PLR2004 - batch, row, column
        if rows != 4 + len(DETECTION_CLASSES):
            raise ModelError("is no NudeNet 3 detector", where=str(model.model))
        self._session = session
        self._rgb = rgb
        self.name = model.name
        self.input_size = _input_size(model, session)
        self.version = f"nudenet {model.revision} {model.name}" + (" rgb" if rgb else "")
        self.provider = session.provider
        self.precision = session.precision
        self.warnings = session.warnings

    @property
    def batch(self) -> int:
        """Images that are best detected at once; a device whose memory does not hold them halves it."""
        return self._session.batch

    @property
    def halved(self) -> int:
        """How often it was."""
        return self._session.halved

    @property
    def busy_seconds(self) -> float:
        """How long the device was at work, copies not counted."""
        return self._session.busy_seconds

    @property
    def preparation(self) -> Preparation:
        """What becomes of a picture before it is shown to the model."""
        return BlackCorner(size=self.input_size)

    def detect(self, batch: Sequence[PreparedFrame]) -> list[list[Detection]]:
        """The detections in each picture, highest score first, boxes in pixels of the original picture.

        Raises:
            FloatingPointError: the model or its provider is broken, and gives numbers that are not finite.
        """
        outputs = self._session.run([self._planes(one.pixels) for one in batch])
        return [_detections(output, one, self.input_size) for output, one in zip(outputs, batch, strict=True)]

    def _planes(self, pixels: Pixels) -> Array:
        """The model's input, float32 [3, side, side], 0 to 1. BGR by default: the thresholds in use were set on it."""
        channels = pixels[:, :, ::-1] if self._rgb else pixels
        return np.ascontiguousarray(channels.transpose(2, 0, 1), dtype=np.float32) * np.float32(1 / 255.0)


def open_detector(
    name: str = "320n",
    *,
    models_dir: Path,
    provider: str = "auto",
    rgb: bool = False,
    tell: registry.Tell = registry.to_stderr,
) -> Detector:
    """The detector of that name, ready to run; its weights are fetched if they are not there yet.

    Raises:
        ModelError: it cannot be had, or is not the model that was pinned, or no detector.
        SettingError: no such provider.
    """
    return load_detector(
        registry.locate(name, models_dir, kind="detector", tell=tell), Execution(provider=provider), rgb=rgb
    )


def load_detector(model: registry.Installed, execution: Execution, *, rgb: bool = False) -> Detector:
    """A detector that was checked already, perhaps by another process, ready to run; its weights are not read twice.

    Raises:
        ModelError: it is no longer the one that was checked, or no detector.
        SettingError: no such provider.
    """
    registry.recheck(model, kind="detector")
    on_cpu = partial(boxes.where_scored, least=_CANDIDATE_SCORE) if model.digest in boxes.TRIED else None
    return Detector(model, open_session(model.model, execution, digest=model.digest, on_cpu=on_cpu), rgb=rgb)


def _input_size(model: registry.Installed, session: Session) -> int:
    """The side of the square input [N, 3, side, side]; where the model takes any, the one that the catalogue names."""
    shape = session.inputs
    side = (shape[2] if len(shape) == 4 else None) or model.input_size  # noqa: PLR2004 - batch, channels, height, width
    if side is None:
        remedy = f"Give {model.name} an entry with its input_size in configs/models.yaml: see docs/models.md."
        raise ModelError(f"takes {shape}: of what size is not said", where=str(model.model), remedy=remedy)
    return side


def _detections(output: Array, of: PreparedFrame, size: int) -> list[Detection]:
    """Rows of cx, cy, w, h and 18 scores as detections; float32 throughout, in the package's order of operations."""
    if not np.isfinite(output).all():
        raise FloatingPointError("the model gave a number that is not finite")
    rows = output.T
    scores = rows[:, 4:].max(axis=1)
    rows, scores = rows[scores >= _CANDIDATE_SCORE], scores[scores >= _CANDIDATE_SCORE]
    if not len(rows):
        return []
    classes = rows[:, 4:].argmax(axis=1)
    side = max(of.width, of.height)
    centre_x, centre_y, w, h = rows[:, :4].T
    x = np.clip((centre_x - w / 2) * side / size, 0, of.width)
    y = np.clip((centre_y - h / 2) * side / size, 0, of.height)
    w = np.minimum(w * side / size, of.width - x)
    h = np.minimum(h * side / size, of.height - y)
    found = np.stack((x, y, w, h), axis=1)
    kept = cv2.dnn.NMSBoxes(found.tolist(), scores.tolist(), _NMS_SCORE, _NMS_IOU)
    return [
        Detection(
            class_=DETECTION_CLASSES[classes[i]],
            score=jsonl.score(scores[i]),
            box=(int(x[i]), int(y[i]), int(w[i]), int(h[i])),
        )
        for i in kept
    ]
