"""Vision transformers of the WD taggers' shape with random weights: real arithmetic to time, nothing to download.

They take BGR float32 [N, size, size, 3], 0 to 255, and give one sigmoid for each of `outputs` tags. What they say of a
picture means nothing.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from modbot.records.p1 import Rating

OPSET, IR_VERSION = 17, 10
_SPREAD = 0.02


@dataclass(frozen=True)
class Vit:
    """A transformer over patches of `patch` pixels: `depth` blocks of `heads` heads, `width` numbers a patch."""

    width: int
    depth: int
    heads: int
    patch: int
    size: int = 448
    outputs: int = 10_861

    @property
    def tokens(self) -> int:
        return (self.size // self.patch) ** 2

    @property
    def parameters(self) -> int:
        block = 12 * self.width**2 + 13 * self.width
        ends = self.patch**2 * 3 * self.width + self.width + self.tokens * self.width + 2 * self.width
        return self.depth * block + ends + self.width * self.outputs + self.outputs


BASE = Vit(width=768, depth=12, heads=12, patch=16)
"""ViT-B/16, as wd-vit-tagger-v3."""

LARGE = Vit(width=1024, depth=24, heads=16, patch=14)
"""ViT-L/14, of the size of wd-eva02-large-tagger-v3."""


def build(folder: Path, vit: Vit, *, seed: int = 0) -> Path:
    """Writes `model.onnx` and `selected_tags.csv` into the folder, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_tags(folder / "selected_tags.csv", vit.outputs)
    onnx.save(_Graph(vit, seed).model(), str(folder / "model.onnx"))
    return folder


def _write_tags(path: Path, outputs: int) -> None:
    names = [*Rating.__struct_fields__, *(f"tag_{i:05}" for i in range(outputs - 4))]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["tag_id", "name", "category", "count"])
        rows.writerows([i, name, 9 if i < len(Rating.__struct_fields__) else 0, 1000] for i, name in enumerate(names))


class _Graph:
    """The graph while it is put together: nodes and weights, in order."""

    def __init__(self, vit: Vit, seed: int) -> None:
        self._vit = vit
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._count = 0

    def model(self) -> onnx.ModelProto:
        vit = self._vit
        tokens = self._patches("input")
        for _ in range(vit.depth):
            tokens = self._op("Add", tokens, self._attention(self._norm(tokens)))
            tokens = self._op("Add", tokens, self._perceptron(self._norm(tokens)))
        pooled = self._op("ReduceMean", self._norm(tokens), axes=[1], keepdims=0)
        logits = self._linear(pooled, vit.width, vit.outputs)
        self._nodes.append(helper.make_node("Sigmoid", [logits], ["output"]))
        entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", vit.size, vit.size, 3])
        leaving = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", vit.outputs])
        graph = helper.make_graph(self._nodes, "vit", [entry], [leaving], self._weights)
        return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])

    def _patches(self, pixels: str) -> str:
        """[N, size, size, 3] -> [N, tokens, width], with what tells where a patch was."""
        vit = self._vit
        scaled = self._op("Div", self._op("Sub", pixels, self._constant(127.5)), self._constant(127.5))
        planes = self._op("Transpose", scaled, perm=[0, 3, 1, 2])
        kernel = self._random_weight(vit.width, 3, vit.patch, vit.patch)
        sides = [vit.patch, vit.patch]
        embedded = self._op("Conv", planes, kernel, self._zeros(vit.width), kernel_shape=sides, strides=sides)
        flat = self._op("Reshape", embedded, self._shape(0, vit.width, vit.tokens))
        tokens = self._op("Transpose", flat, perm=[0, 2, 1])
        return self._op("Add", tokens, self._random_weight(1, vit.tokens, vit.width))

    def _attention(self, tokens: str) -> str:
        vit = self._vit
        head = vit.width // vit.heads

        def of_heads(perm: list[int]) -> str:
            apart = self._op("Reshape", self._linear(tokens, vit.width, vit.width), self._shape(0, 0, vit.heads, head))
            return self._op("Transpose", apart, perm=perm)

        queries, keys, values = of_heads([0, 2, 1, 3]), of_heads([0, 2, 3, 1]), of_heads([0, 2, 1, 3])
        likeness = self._op("Mul", self._op("MatMul", queries, keys), self._constant(head**-0.5))
        mixed = self._op("MatMul", self._op("Softmax", likeness, axis=-1), values)
        together = self._op("Transpose", mixed, perm=[0, 2, 1, 3])
        return self._linear(self._op("Reshape", together, self._shape(0, 0, vit.width)), vit.width, vit.width)

    def _perceptron(self, tokens: str) -> str:
        width = self._vit.width
        hidden = self._linear(tokens, width, 4 * width)
        bent = self._op("Erf", self._op("Div", hidden, self._constant(2**0.5)))
        half = self._op("Mul", hidden, self._constant(0.5))
        gelu = self._op("Mul", half, self._op("Add", bent, self._constant(1.0)))
        return self._linear(gelu, 4 * width, width)

    def _linear(self, entry: str, inputs: int, outputs: int) -> str:
        return self._op("Add", self._op("MatMul", entry, self._random_weight(inputs, outputs)), self._zeros(outputs))

    def _norm(self, tokens: str) -> str:
        width = self._vit.width
        return self._op("LayerNormalization", tokens, self._weight(np.ones(width)), self._zeros(width), axis=-1)

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 - as make_node
        name = self._name()
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _random_weight(self, *shape: int) -> str:
        return self._weight(self._random.standard_normal(shape, dtype=np.float32) * np.float32(_SPREAD))

    def _zeros(self, size: int) -> str:
        return self._weight(np.zeros(size))

    def _constant(self, value: float) -> str:
        return self._weight(np.array(value))

    def _shape(self, *sizes: int) -> str:
        return self._weight(np.array(sizes), kind=np.int64)

    def _weight(self, value: NDArray[np.generic], kind: type = np.float32) -> str:
        name = self._name()
        self._weights.append(numpy_helper.from_array(value.astype(kind), name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"
