"""A detector as an ONNX file: one frame of each lane and the states in, boxes and the states after it out."""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        from modules.deployment.onnx_suppression import append_suppression  # needs onnx

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
