"""The `nudenet` package as its users call it: `detect`, with the path of one file after the other.

It opens its session itself, from a path and nothing else: the `providers` that its constructor takes are not used, and
there are no options. So the session has ONNX Runtime's defaults: a thread for each core, spinning while it waits.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nudenet  # type: ignore[import-untyped]  # it ships no types
import onnxruntime as ort  # type: ignore[import-untyped]  # as above


class Found(NamedTuple):
    """One detection: class, score 0 to 1, and x, y, width, height in pixels of the picture."""

    class_: str
    score: float
    box: tuple[int, ...]


class Package:
    """Its detector; `runtime`: a session that takes the place of its own, which its API has no way to ask for."""

    def __init__(self, *, runtime: ort.InferenceSession | None = None) -> None:
        self._detector = nudenet.NudeDetector()
        if runtime is not None:
            self._detector.onnx_session = runtime

    def detect(self, file: Path) -> list[Found]:
        """What it finds in the file."""
        return [Found(one["class"], one["score"], tuple(one["box"])) for one in self._detector.detect(str(file))]
