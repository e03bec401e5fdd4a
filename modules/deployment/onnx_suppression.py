"""Confidence threshold and non-maximum suppression as nodes of an ONNX graph; see `models.postprocess.postprocess`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy import ndarray

from modules.deployment.description import Description

_MOST = 2**31 - 1
_NUMBERS = {
    "zero": np.zeros(1, np.float32), "half": np.full(1, 0.5, np.float32), "two": np.full(1, 2, np.float32),
    "none": np.full(1, -1, np.float32), "above_none": np.full(1, -0.5, np.float32),
    "most": np.full(1, _MOST, np.int64), "end": np.array([_MOST]), "flat": np.array([-1]),
    "i0": np.array([0]), "i1": np.array([1]), "i2": np.array([2]), "i4": np.array([4]), "i5": np.array([5]),
}  # fmt: skip


class _Graph:
    """Adds nodes to a model, whose names and results begin with `nms_`."""

    def __init__(self, model: Any, numbers: dict[str, ndarray]) -> None:
        self._graph, self._numbers = model.graph, numbers
        initializers = (onnx.numpy_helper.from_array(value, f"nms_{name}") for name, value in numbers.items())
        self._graph.initializer.extend(initializers)

    def node(self, kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        """Inputs are results of other nodes, or names of numbers; returns the first output's name."""
        named = [f"nms_{name}" if name in self._numbers else name for name in inputs]
        self._graph.node.append(onnx.helper.make_node(kind, named, outputs, name=f"nms_{outputs[0]}", **attributes))
        return outputs[0]

    def part(self, start: str, stop: str, output: str) -> str:
        """Columns of the predictions."""
        return self.node("Slice", ["predictions", start, stop, "i2"], output)


def append_suppression(model: Any, description: Description) -> None:
    """`predictions` becomes `detections` [n, 8]: lane, x1, y1, x2, y2, objectness, class confidence, class id; by lane,
    and the best score first.
    """
    own = {
        "least": np.full(1, description.confidence_threshold, np.float32),
        "overlap": np.full(1, description.nms_threshold, np.float32),
        "class_ids": np.arange(len(description.classes), dtype=np.int64)[None, :, None],
    }
    graph = _Graph(model, _NUMBERS | own)
    boxes = _corners(graph)
    objectness, classes = graph.part("i4", "i5", "nms_objectness"), graph.part("i5", "end", "nms_classes")
    confidence = graph.node("ReduceMax", [classes, "i2"], "nms_confidence", keepdims=1)
    best = graph.node("ArgMax", [classes], "nms_best", axis=2, keepdims=1)
    score = graph.node("Mul", [objectness, confidence], "nms_score")
    by_class = _scores_by_class(graph, boxes, score, best)
    selected = graph.node("NonMaxSuppression", [boxes, by_class, "most", "overlap", "above_none"], "nms_selected")
    class_id = graph.node("Cast", [best], "nms_class_id", to=onnx.TensorProto.FLOAT)
    rows = graph.node("Concat", [boxes, objectness, confidence, class_id], "nms_rows", axis=2)
    _gather(graph, selected, rows, score)
    told = onnx.helper.make_tensor_value_info("detections", onnx.TensorProto.FLOAT, ["num_detections", 8])
    model.graph.output[0].CopyFrom(told)


def _corners(graph: _Graph) -> str:
    centre, size = graph.part("i0", "i2", "nms_centre"), graph.part("i2", "i4", "nms_size")
    middle = graph.node("Mul", [size, "half"], "nms_middle")
    low, high = graph.node("Sub", [centre, middle], "nms_low"), graph.node("Add", [centre, middle], "nms_high")
    return graph.node("Concat", [low, high], "nms_boxes", axis=2)


def _scores_by_class(graph: _Graph, boxes: str, score: str, best: str) -> str:
    """Of each box in the row of its best class; -1 for all that is no candidate."""
    nothing = graph.node("Mul", [boxes, "zero"], "nms_nothing")  # NaN where a box is not finite
    rests = graph.node("ReduceSum", [nothing, "i2"], "nms_rests", keepdims=1)
    is_finite = graph.node("Equal", [rests, "zero"], "nms_is_finite")
    enough = graph.node("GreaterOrEqual", [score, "least"], "nms_enough")
    candidate = graph.node("And", [is_finite, enough], "nms_candidate")
    ranked = graph.node("Where", [candidate, score, "none"], "nms_ranked")
    by_row = graph.node("Transpose", [ranked], "nms_by_row", perm=[0, 2, 1])
    best_by_row = graph.node("Transpose", [best], "nms_best_by_row", perm=[0, 2, 1])
    own = graph.node("Equal", [best_by_row, "class_ids"], "nms_own")
    return graph.node("Where", [own, by_row, "none"], "nms_by_class")


def _gather(graph: _Graph, selected: str, rows: str, score: str) -> None:
    """The selected rows as `detections`, by lane and score: a score is 1 at most, so 2 a lane keep lanes apart."""
    lane = graph.node("Gather", [selected, "i0"], "nms_lane", axis=1)
    place = graph.node("Gather", [selected, "i2"], "nms_place", axis=1)
    where = graph.node("Concat", [lane, place], "nms_where", axis=1)
    kept = graph.node("GatherND", [rows, where], "nms_kept")
    kept_score = graph.node("GatherND", [score, where], "nms_kept_score")
    lane_number = graph.node("Cast", [lane], "nms_lane_number", to=onnx.TensorProto.FLOAT)
    later = graph.node("Mul", [lane_number, "two"], "nms_later")
    column = graph.node("Sub", [kept_score, later], "nms_key_column")
    key = graph.node("Reshape", [column, "flat"], "nms_key")
    count = graph.node("Shape", [key], "nms_count")
    graph.node("TopK", [key, count], "nms_sorted", "nms_order", axis=0, largest=1, sorted=1)
    together = graph.node("Concat", [lane_number, kept], "nms_together", axis=1)
    graph.node("Gather", [together, "nms_order"], "detections", axis=0)
