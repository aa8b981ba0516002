"""The detector's boxes, computed only where a score asks for one: the same numbers in a fifth less time on a CPU.

The network (YOLOv8 as Ultralytics exports it) looks at three grids of places, 2,100 for a side of 320. At each place
one branch of convolutions gives the scores and another one a box; at all but a dozen places the scores say that there
is nothing, and the box is thrown away. Here the boxes' branch is rewritten to be asked for single places: it sees the
5 by 5 features around each, which is all that its two 3 by 3 convolutions reach. The output keeps its shape; boxes
that nobody asked for are 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import onnx
from onnx import TensorProto, helper, parser
from onnx.utils import Extractor

TRIED = frozenset({"c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f"})
"""The digests of the weights that tests hold against themselves rewritten (320n); others run as they are."""

_STRIDES = (8, 16, 32)
"""Pixels between the places of each grid."""

_SLACK = 1e-3
"""How far under the least score a box is computed still, as a logit: it must not hang on how a sigmoid is rounded."""


def _window(side: int) -> str:
    """Constant int64 [1, side * side, 3]: picture, row, column of each place in a window, from its first one."""
    places = ", ".join(f"0, {row}, {column}" for row in range(side) for column in range(side))
    return f"Constant<value = int64[1, {side * side}, 3] {{{places}}}>()"


# The features are padded by what the convolutions pad. The second one pads what the first gives, not what it would
# give outside the grid: so `inside` makes that 0 again.
# Constants are tensors throughout: ONNX Runtime 1.24, as onnxruntime-openvino has it, makes nothing of `value_ints`.
_BOXES = f"""
<opset_import: ["" : 17], domain: "modbot">
boxes (features, logits, stride, least, w0, b0, w1, b1, w2, b2) => (boxes)
{{
    best = ReduceMax<axes = [1], keepdims = 0>(logits)
    asked = GreaterOrEqual(best, least)
    grid = Shape(asked)
    coordinates = NonZero(asked)
    places = Transpose<perm = [1, 0]>(coordinates)
    one = Constant<value = int64[1] {{1}}>()
    corners = Unsqueeze(places, one)

    margin = Constant<value = int64[8] {{0, 0, 2, 2, 0, 0, 2, 2}}>()
    padded = Pad(features, margin)
    channels_last = Transpose<perm = [0, 2, 3, 1]>(padded)
    window = {_window(5)}
    reach = Add(corners, window)
    seen = GatherND(channels_last, reach)
    seen_planes = Transpose<perm = [0, 2, 1]>(seen)
    five_by_five = Constant<value = int64[4] {{0, 0, 5, 5}}>()
    patches = Reshape(seen_planes, five_by_five)

    full = Constant<value = float {{1}}>()
    whole = Expand(full, grid)
    rim = Constant<value = int64[6] {{0, 1, 1, 0, 1, 1}}>()
    framed = Pad(whole, rim)
    near_window = {_window(3)}
    near = Add(corners, near_window)
    is_inside = GatherND(framed, near)
    three_by_three = Constant<value = int64[4] {{-1, 1, 3, 3}}>()
    inside = Reshape(is_inside, three_by_three)

    first = Conv(patches, w0, b0)
    first_gate = Sigmoid(first)
    first_open = Mul(first, first_gate)
    first_inside = Mul(first_open, inside)
    second = Conv(first_inside, w1, b1)
    second_gate = Sigmoid(second)
    second_open = Mul(second, second_gate)
    bins = Conv(second_open, w2, b2)

    sides_and_bins = Constant<value = int64[3] {{-1, 4, 16}}>()
    of_sides = Reshape(bins, sides_and_bins)
    shares = Softmax<axis = 2>(of_sides)
    distances = Constant<value = float[16, 1] {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}>()
    sides = MatMul(shares, distances)
    flat = Constant<value = int64[2] {{-1, 4}}>()
    flat_sides = Reshape(sides, flat)
    halves = Constant<value = int64[2] {{2, 2}}>()
    left_top, right_bottom = Split<axis = 1>(flat_sides, halves)

    column_and_row = Constant<value = int64[2] {{2, 1}}>()
    xy = Gather<axis = 1>(places, column_and_row)
    xy_float = Cast<to = 1>(xy)
    half = Constant<value = float {{0.5}}>()
    centres = Add(xy_float, half)
    low = Sub(centres, left_top)
    high = Add(centres, right_bottom)
    span = Add(low, high)
    two = Constant<value = float {{2}}>()
    middles = Div(span, two)
    sizes = Sub(high, low)
    in_strides = Concat<axis = 1>(middles, sizes)
    in_pixels = Mul(in_strides, stride)

    four = Constant<value = int64[1] {{4}}>()
    all = Concat<axis = 0>(grid, four)
    nothing = ConstantOfShape(all)
    scattered = ScatterND(nothing, places, in_pixels)
    in_a_row = Constant<value = int64[3] {{0, -1, 4}}>()
    rows = Reshape(scattered, in_a_row)
    boxes = Transpose<perm = [0, 2, 1]>(rows)
}}
"""


def where_scored(path: Path, least: float) -> bytes:
    """The model at `path`, serialised, with boxes only where the best score is `least` or more, 0 to 1.

    Its weights are one of `TRIED`: the names in it are known, and what lies between them.
    """
    model = onnx.load(path)
    graph = model.graph
    (entry,), (output,) = graph.input, graph.output
    nodes = {node.name: node for node in graph.node}
    graph.node.remove(next(node for node in graph.node if output.name in node.output))
    graph.initializer.extend(
        (
            helper.make_tensor("in_a_row", TensorProto.INT64, [3], [0, 0, -1]),
            helper.make_tensor("least", TensorProto.FLOAT, [], [math.log(least / (1 - least)) - _SLACK]),
            *(helper.make_tensor(f"stride_{stride}", TensorProto.FLOAT, [], [stride]) for stride in _STRIDES),
        )
    )
    graph.node.extend(_head(nodes, output.name))
    model.functions.append(parser.parse_function(_BOXES))
    model.opset_import.append(helper.make_opsetid("modbot", 1))
    # ONNX Runtime would go on computing what nobody reads.
    needed = Extractor(model).extract_model([entry.name], [output.name])
    return cast("bytes", needed.SerializeToString())


def _head(nodes: dict[str, onnx.NodeProto], output: str) -> Iterator[onnx.NodeProto]:
    """The nodes from the features and logits of the three grids to the output [N, 4 + classes, places]."""
    for level, stride in enumerate(_STRIDES):
        names = (f"{level}.0/conv", f"{level}.1/conv", f"{level}.2")
        first, second, third = (nodes[f"/model.22/cv2.{level}/cv2.{name}/Conv"] for name in names)
        (logits,) = nodes[f"/model.22/cv3.{level}/cv3.{level}.2/Conv"].output
        weights = [name for conv in (first, second, third) for name in conv.input[1:]]
        inputs = [first.input[0], logits, f"stride_{stride}", "least", *weights]
        yield helper.make_node("boxes", inputs, [f"boxes_{stride}"], domain="modbot")
        yield helper.make_node("Reshape", [logits, "in_a_row"], [f"logits_{stride}"])
    for name, axis in (("boxes", 2), ("logits", 2)):
        yield helper.make_node("Concat", [f"{name}_{stride}" for stride in _STRIDES], [name], axis=axis)
    yield helper.make_node("Sigmoid", ["logits"], ["scores"])
    yield helper.make_node("Concat", ["boxes", "scores"], [output], axis=1)
