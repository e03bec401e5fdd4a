"""A checkpoint's network over a stream, by torch."""

from __future__ import annotations

import time

import torch
from jaxtyping import UInt8
from numpy import ndarray

from config.errors import UserError
from config.processor import BFLOAT16, has_bfloat16
from config.schema import Config
from models.cells.cell import State
from models.detector import Detector
from models.inference import OneFrame
from models.postprocess import decode, postprocess
from modules.deployment.description import Description
from modules.deployment.network import Found, Precision


class TorchNetwork:
    """Raises whatever torch raises; a recurrent cell of a user's own runs by `Detector` itself, others frozen."""

    def __init__(
        self,
        detector: Detector,
        config: Config,
        dtype: torch.dtype = torch.float32,
        confidence_threshold: float | None = None,
    ) -> None:
        """`confidence_threshold`: the config's, unless it is given."""
        changes = {} if confidence_threshold is None else {"confidence_threshold": confidence_threshold}
        self.description = Description.of(config).model_copy(update=changes)
        self._device = next(detector.parameters()).device
        self._frames = 0
        try:
            self._one = OneFrame(detector, config.dataset.loaded_hw, dtype).to(self._device)
        except TypeError:
            self._step = _OwnCell(detector, self._device, dtype)
        else:
            self._step = _Frozen(self._one, config.dataset.channels)

    def reset(self) -> None:
        self._frames = 0
        self._step.reset()

    @torch.inference_mode()
    def __call__(self, frame: UInt8[ndarray, "c h w"]) -> tuple[Found, tuple[float, float, float]]:
        every = self.description.reset_every
        if every is not None and self._frames % every == 0:
            self._step.reset()
        self._frames += 1
        started = time.perf_counter()
        self._step.copy(torch.from_numpy(frame))
        copied = self._now()
        decoded = self._step.decoded()
        computed = self._now()
        thresholds = (self.description.confidence_threshold, self.description.nms_threshold)
        found = postprocess(decoded, *thresholds)[0].cpu().numpy()
        ended = time.perf_counter()
        return found, (copied - started, computed - copied, ended - computed)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class _Frozen:
    def __init__(self, network: OneFrame, channels: int) -> None:
        self._network = network
        self._frames = network.padded_frames(channels)
        height, width = network.frame_hw
        self._inner = self._frames[0, :, :height, :width]
        self.reset()

    def reset(self) -> None:
        self._state = self._network.first_state()

    def copy(self, frame: torch.Tensor) -> None:
        self._inner.copy_(frame)

    def decoded(self) -> torch.Tensor:
        decoded, self._state = self._network(self._frames, *self._state)
        return decoded


class _OwnCell:
    def __init__(self, detector: Detector, device: torch.device, dtype: torch.dtype) -> None:
        self._detector, self._device = detector, device
        self._autocast = torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
        self._first = torch.zeros(1, dtype=torch.int64, device=device)
        self._state: list[State] | None = None
        self._frames = torch.empty(0)

    def reset(self) -> None:
        self._state = None

    def copy(self, frame: torch.Tensor) -> None:
        self._frames = frame.to(self._device)[None, None]

    def decoded(self) -> torch.Tensor:
        with self._autocast:
            features, self._state = self._detector.encode(self._frames, self._state)
            return decode(self._detector.predict(self._detector.select(features, self._first)))


def dtype_of(precision: Precision, detector: Detector) -> torch.dtype:
    """Of matrix products: `32`, `bf16`, or `auto`, bf16 where there is hardware for it.

    Raises UserError for bf16 on a processor that would emulate it, ten times as slow as float32.
    """
    has_hardware = has_bfloat16(next(detector.parameters()).device.type)
    if precision == "bf16" and not has_hardware:
        raise UserError(
            f"precision=bf16: this processor has no hardware for it ({', '.join(BFLOAT16)}). Take 32 or auto"
        )
    return torch.bfloat16 if precision != "32" and has_hardware else torch.float32
