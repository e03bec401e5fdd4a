"""An exported network over a stream, by ONNX Runtime on the CPU and without torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from pydantic import ValidationError

from config.errors import UserError
from modules.deployment.description import METADATA_KEY, Description
from modules.deployment.network import Found, postprocess

INSTALL = "pip install 'streamrvt[onnx]', or pip install onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2"


class OnnxNetwork:
    """Raises UserError for a file that scripts/export.py has not made, or that asks for what it was not made for."""

    def __init__(self, path: Path, confidence_threshold: float | None = None) -> None:
        """`confidence_threshold`: the file's, unless it is given."""
        self._session = open_session(path)
        self.description = _description_of(self._session, path)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._frames, self._states = inputs[0], inputs[1:]
        self._has_nms = outputs[0].name == "detections"
        own = self.description.confidence_threshold
        if confidence_threshold is not None:
            if self._has_nms and confidence_threshold < own:
                raise UserError(
                    f"threshold={confidence_threshold:g}: {path} was exported with its suppression inside, of boxes "
                    f"from {own:g} on. Export it without nms=true, or with a lower threshold"
                )
            changes = {"confidence_threshold": confidence_threshold}
            self.description = self.description.model_copy(update=changes)
        lanes = self._frames.shape[0]
        if isinstance(lanes, int) and lanes != 1:
            raise UserError(f"{path} takes {lanes} lanes at once, and a recording is one: export it with lanes=1")
        self.reset()

    def reset(self) -> None:
        self._count = 0
        self._state = [np.zeros((1, *part.shape[1:]), _dtype(part)) for part in self._states]

    def __call__(self, frame: UInt8[ndarray, "c h w"]) -> tuple[Found, tuple[float, float, float]]:
        every = self.description.reset_every
        if every is not None and self._count and self._count % every == 0:
            self.reset()
        self._count += 1
        started = time.perf_counter()
        names = [part.name for part in self._states]
        inputs = {self._frames.name: frame[None], **dict(zip(names, self._state, strict=True))}
        copied = time.perf_counter()
        output, *self._state = self._session.run(None, inputs)
        computed = time.perf_counter()
        found = self._boxes(output)
        ended = time.perf_counter()
        return found, (copied - started, computed - copied, ended - computed)

    def _boxes(self, output: ndarray) -> Found:
        threshold = self.description.confidence_threshold
        if not self._has_nms:
            return postprocess(output[0].astype(np.float32), threshold, self.description.nms_threshold)
        rows = output[:, 1:].astype(np.float32)  # the first column is the lane
        return rows[rows[:, 4] * rows[:, 5] >= threshold]


def open_session(path: Path) -> Any:
    """Of ONNX Runtime, with as many threads as OMP_NUM_THREADS says. Raises UserError where it cannot be opened."""
    import os

    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path} needs ONNX Runtime, which is not installed: {INSTALL}") from error
    if not path.is_file():
        raise UserError(f"{path} not found")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdigit() else len(os.sched_getaffinity(0))
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a damaged file can raise nearly anything
        told = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as ONNX: damaged, cut short, or none at all ({told})") from error


def _description_of(session: Any, path: Path) -> Description:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise UserError(f"{path} was not made by scripts/export.py: it does not say what frames it takes")
    try:
        return Description.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} was made by another version ({place}: {first['msg']}): export it anew") from error


def _dtype(part: Any) -> type:
    return {"tensor(float)": np.float32, "tensor(float16)": np.float16}[part.type]
