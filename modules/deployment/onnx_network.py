"""An exported network over a stream, by ONNX Runtime on the CPU and without torch."""

from __future__ import annotations

import os
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

INSTALL = "pip install onnxruntime==1.32.0, or pip install -e '.[onnx]' in the project's folder"


class Session:
    """An exported file, opened: frames and states in, boxes and states out. Raises UserError for any other file."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        self.description = _description_of(self._session, path)
        inputs = self._session.get_inputs()
        self._frames, self._states = inputs[0].name, inputs[1:]
        self.has_nms = self._session.get_outputs()[0].name == "detections"
        lanes = inputs[0].shape[0]
        self.lanes = lanes if isinstance(lanes, int) else None  # None: any number

    def first_state(self, lanes: int = 1) -> list[ndarray]:
        return [np.zeros((lanes, *part.shape[1:]), np.float32) for part in self._states]

    def run(self, frames: UInt8[ndarray, "b c h w"], state: list[ndarray]) -> tuple[ndarray, list[ndarray]]:
        names = [part.name for part in self._states]
        output, *after = self._session.run(None, {self._frames: frames, **dict(zip(names, state, strict=True))})
        return output, after


class OnnxNetwork:
    """Raises UserError for a file that scripts/export.py has not made, or that asks for what it was not made for."""

    def __init__(self, path: Path, confidence_threshold: float | None = None) -> None:
        """`confidence_threshold`: the file's, unless it is given."""
        self._session = Session(path)
        self.description = self._session.description
        own = self.description.confidence_threshold
        if confidence_threshold is not None:
            if self._session.has_nms and confidence_threshold < own:
                raise UserError(
                    f"threshold={confidence_threshold:g}: {path} was exported with its suppression inside, of boxes "
                    f"from {own:g} on. Export it without nms=true, or with a lower threshold"
                )
            changes = {"confidence_threshold": confidence_threshold}
            self.description = self.description.model_copy(update=changes)
        if self._session.lanes not in (None, 1):
            raise UserError(
                f"{path} takes {self._session.lanes} lanes at once, and a recording is one: export it without lanes"
            )
        self.reset()

    def reset(self) -> None:
        self._count = 0
        self._state = self._session.first_state()

    def __call__(self, frame: UInt8[ndarray, "c h w"]) -> tuple[Found, tuple[float, float, float]]:
        every = self.description.reset_every
        if every is not None and self._count == every:
            self.reset()
        self._count += 1
        started = time.perf_counter()
        output, self._state = self._session.run(frame[None], self._state)
        computed = time.perf_counter()
        found = self._boxes(output)
        ended = time.perf_counter()
        return found, (0.0, computed - started, ended - computed)  # what is copied, ONNX Runtime does not tell

    def _boxes(self, output: ndarray) -> Found:
        threshold = self.description.confidence_threshold
        if not self._session.has_nms:
            return postprocess(output[0], threshold, self.description.nms_threshold)
        rows = output[:, 1:]  # the first column is the lane
        return rows[rows[:, 4] * rows[:, 5] >= threshold]


def open_session(path: Path) -> Any:
    """Of ONNX Runtime, with as many threads as OMP_NUM_THREADS says. Raises UserError where it cannot be opened."""
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
