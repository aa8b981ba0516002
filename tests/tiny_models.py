"""A model with the shape of a WD14 tagger, small enough to build in a test and simple enough to work out by hand.

It looks at every 64th pixel only, takes the mean colour and gives each tag the score
`sigmoid(red * r + green * g + blue * b + bias)`, with r, g, b from 0 to 1.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RATING, GENERAL, CHARACTER = 9, 0, 4


class Tag(NamedTuple):
    """One output: its row in `selected_tags.csv`, and what of the mean colour it answers to."""

    name: str
    category: int = GENERAL
    red: float = 0.0
    green: float = 0.0
    blue: float = 0.0
    bias: float = 0.0

    def score(self, red: float, green: float, blue: float) -> float:
        """The score of a picture of this mean colour, each part 0 to 255."""
        logit = (self.red * red + self.green * green + self.blue * blue) / 255 + self.bias
        return 1 / (1 + math.exp(-logit))


TAGS = (
    Tag("general", RATING, red=-6, green=3, bias=2),
    Tag("sensitive", RATING, green=2, bias=-3),
    Tag("questionable", RATING, red=2, bias=-3),
    Tag("explicit", RATING, red=8, green=-8, blue=-8, bias=-4),
    Tag("1girl", green=4, bias=-2),
    Tag("nude", red=6, green=-6, blue=-6, bias=-3),
    Tag("blood", red=4, green=-8, bias=-2),
    Tag("long_hair", blue=3, bias=-1),
    Tag(":d", blue=3, bias=-1),
    Tag("hatsune_miku", CHARACTER, green=6, blue=6, red=-12, bias=-4),
)
"""The four ratings, some general tags (two of them always equal), one character."""


def padded(count: int, tags: Sequence[Tag] = TAGS) -> list[Tag]:
    """The tags and further general ones, `count` in all, whose scores are all low and all different."""
    return [*tags, *(Tag(f"filler_{i:05}", bias=-3 - i / 1000) for i in range(count - len(tags)))]


def build(folder: Path, tags: Sequence[Tag] = TAGS, *, size: int = 448) -> Path:
    """Writes `model.onnx` and `selected_tags.csv` for these tags into the folder, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tags(folder / "selected_tags.csv", tags)
    write_model(folder / "model.onnx", tags, size=size)
    return folder


def write_tags(path: Path, tags: Sequence[Tag]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["tag_id", "name", "category", "count"])
        rows.writerows([i, tag.name, tag.category, 1000 - i % 1000] for i, tag in enumerate(tags))


def write_model(path: Path, tags: Sequence[Tag], *, size: int = 448, outputs: int | str | None = None) -> None:
    """BGR float32 [N, size, size, 3], 0 to 255 in; [N, tags] out. `outputs`: what the model says instead of `tags`."""
    constants = {
        "starts": np.zeros(2, np.int64),
        "ends": np.full(2, size, np.int64),
        "axes": np.array([1, 2], np.int64),
        "steps": np.full(2, 64, np.int64),
        "weights": np.array([[tag.blue, tag.green, tag.red] for tag in tags], np.float32).T / np.float32(255),
        "bias": np.array([tag.bias for tag in tags], np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["input", "starts", "ends", "axes", "steps"], ["pixels"]),
            helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
            helper.make_node("Gemm", ["mean", "weights", "bias"], ["logits"]),
            helper.make_node("Sigmoid", ["logits"], ["output"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", size, size, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", outputs or len(tags)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), str(path))
