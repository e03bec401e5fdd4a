"""A detector as an ONNX file: one frame of each lane and the states in, boxes and the states after it out."""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from config.errors import UserError
from models.detector import Detector
from models.inference import OneFrame
from modules.deployment.description import METADATA_KEY, Description, ExportPrecision

OPSET = 18
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.float32}


@dataclass(frozen=True)
class Wish:
    """How a file is to be.

    Attributes:
        lanes: streams at once; None leaves it to each call.
        nms: confidence threshold and suppression are part of the graph.
        precision: of weights and products; `int8` rounds the weights of matrix products, and their inputs as they come.
    """

    lanes: int | None = None
    nms: bool = False
    precision: ExportPrecision = "float32"


def export(detector: Detector, description: Description, wish: Wish, origin: str) -> Any:
    """The ONNX model, with all that its user must know in its metadata.

    Raises:
        UserError: a recurrent cell of the user's own, or a package is missing.
    """
    onnx = _packages()
    try:
        network = OneFrame(detector, description.frame_hw, _DTYPES[wish.precision])
    except TypeError as error:
        raise UserError(f"{origin}: {error} to an ONNX file; scripts/detect.py runs its checkpoint") from error
    model = _traced(network, description, wish)
    if wish.precision == "int8":
        model = quantized(model)
    if wish.nms:
        append_suppression(model, description)
    texts = {
        METADATA_KEY: description.model_dump_json(),
        "classes": "\n".join(description.classes),
        "origin": origin,
        "precision": wish.precision,
    }
    onnx.helper.set_model_props(model, texts)
    model.producer_name = "streamrvt"
    onnx.checker.check_model(model)
    return model


def _packages() -> Any:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        install = "pip install -e '.[onnx]' in the project's folder"
        raise UserError(f"export needs {error.name}, which is not installed: {install}") from error
    del onnxruntime
    return onnx


class _Flat(nn.Module):
    """Outputs one after the other."""

    def __init__(self, network: OneFrame) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        predictions, after = self.network(frames, *state)
        return (predictions, *after)


def _traced(network: OneFrame, description: Description, wish: Wish) -> Any:
    lanes = wish.lanes or 2  # an example of one lane would be taken for a constant
    frames = torch.zeros(lanes, description.channels, *description.frame_hw, dtype=torch.uint8)
    axis = None if wish.lanes else {0: torch.export.Dim("lanes")}
    names = network.state_names
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's, about its own deprecations and the names of axes
        program = torch.onnx.export(
            _Flat(network).eval(),
            (frames, *network.first_state(lanes)),
            input_names=["frames", *names],
            output_names=["predictions", *(f"{name}_after" for name in names)],
            dynamic_shapes=None if axis is None else {"frames": axis, "state": tuple(axis for _ in names)},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter gives a program"
    return program.model_proto


def quantized(model: Any) -> Any:
    """Weights of its matrix products in 8 bits."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options: dict[str, Any] = {"weight_type": QuantType.QInt8, "op_types_to_quantize": ["MatMul"], "per_channel": True}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        logging.disable(logging.WARNING)  # advice on the root's logger that no one here can take
        try:
            quantize_dynamic(model, str(target), **options)
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(target)


def append_suppression(model: Any, description: Description) -> None:
    """`predictions` becomes `detections` [n, 8]: lane, x1, y1, x2, y2, objectness, class confidence, class id; by lane,
    and the best score first. See `models.postprocess.postprocess`.
    """
    import onnx

    graph = model.graph
    make, add = onnx.helper.make_node, graph.node.append
    numbers = {
        "zero": np.zeros(1, np.float32), "half": np.full(1, 0.5, np.float32), "two": np.full(1, 2, np.float32),
        "none": np.full(1, -1, np.float32), "above_none": np.full(1, -0.5, np.float32),
        "least": np.full(1, description.confidence_threshold, np.float32),
        "overlap": np.full(1, description.nms_threshold, np.float32),
        "most": np.full(1, 2**31 - 1, np.int64),
        "class_ids": np.arange(len(description.classes), dtype=np.int64)[None, :, None],
        "i0": np.array([0]), "i1": np.array([1]), "i2": np.array([2]), "i4": np.array([4]), "i5": np.array([5]),
        "end": np.array([2**31 - 1]), "flat": np.array([-1]),
    }  # fmt: skip
    graph.initializer.extend(onnx.numpy_helper.from_array(value, f"nms_{name}") for name, value in numbers.items())

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        named = [f"nms_{name}" if name in numbers else name for name in inputs]
        add(make(kind, named, [output], name=f"nms_{output}", **attributes))
        return output

    def part(start: str, stop: str, output: str) -> str:
        return node("Slice", ["predictions", start, stop, "i2"], output)

    centre, size = part("i0", "i2", "nms_centre"), part("i2", "i4", "nms_size")
    objectness, classes = part("i4", "i5", "nms_objectness"), part("i5", "end", "nms_classes")
    middle = node("Mul", [size, "half"], "nms_middle")
    low, high = node("Sub", [centre, middle], "nms_low"), node("Add", [centre, middle], "nms_high")
    boxes = node("Concat", [low, high], "nms_boxes", axis=2)
    confidence = node("ReduceMax", [classes, "i2"], "nms_confidence", keepdims=1)
    best = node("ArgMax", [classes], "nms_best", axis=2, keepdims=1)
    score = node("Mul", [objectness, confidence], "nms_score")
    # what is not finite is no candidate
    rests = node("ReduceSum", [node("Mul", [boxes, "zero"], "nms_nothing"), "i2"], "nms_rests", keepdims=1)
    is_finite = node("Equal", [rests, "zero"], "nms_is_finite")
    enough = node("GreaterOrEqual", [score, "least"], "nms_enough")
    candidate = node("And", [is_finite, enough], "nms_candidate")
    ranked = node("Where", [candidate, score, "none"], "nms_ranked")
    by_row = node("Transpose", [ranked], "nms_by_row", perm=[0, 2, 1])
    best_by_row = node("Transpose", [best], "nms_best_by_row", perm=[0, 2, 1])
    own = node("Equal", [best_by_row, "class_ids"], "nms_own")
    by_class = node("Where", [own, by_row, "none"], "nms_by_class")
    limits = [boxes, by_class, "most", "overlap", "above_none"]
    selected = node("NonMaxSuppression", limits, "nms_selected")
    lane = node("Gather", [selected, "i0"], "nms_lane", axis=1)
    place = node("Gather", [selected, "i2"], "nms_place", axis=1)
    where = node("Concat", [lane, place], "nms_where", axis=1)
    class_id = node("Cast", [best], "nms_class_id", to=onnx.TensorProto.FLOAT)
    rows = node("Concat", [boxes, objectness, confidence, class_id], "nms_rows", axis=2)
    kept = node("GatherND", [rows, where], "nms_kept")
    kept_score = node("GatherND", [score, where], "nms_kept_score")
    lane_number = node("Cast", [lane], "nms_lane_number", to=onnx.TensorProto.FLOAT)
    later = node("Mul", [lane_number, "two"], "nms_later")
    key = node("Reshape", [node("Sub", [kept_score, later], "nms_key_column"), "flat"], "nms_key")
    count = node("Shape", [key], "nms_count")
    add(make("TopK", [key, count], ["nms_sorted", "nms_order"], axis=0, largest=1, sorted=1))
    together = node("Concat", [lane_number, kept], "nms_together", axis=1)
    node("Gather", [together, "nms_order"], "detections", axis=0)
    told = onnx.helper.make_tensor_value_info("detections", onnx.TensorProto.FLOAT, ["num_detections", 8])
    graph.output[0].CopyFrom(told)
