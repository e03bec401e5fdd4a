"""Memory that a training step needs, from shapes alone: before it is taken, and for a GPU that is not here."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import psutil
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from config.errors import UserError
from config.hardware import Device
from config.schema import TrainConfig
from models.backbone import Stage
from modules.detection import DetectionModule

_BYTES_PER_PARAMETER = 16  # the weight, its gradient and AdamW's two moments, float32


@dataclass(frozen=True)
class StepMemory:
    """What a training step keeps for its backward pass, as bytes a lane; the rest of a step comes on top.

    Attributes:
        config: of the run, or of a stage of it.
        above: what stands before a key where it is typed: `+training.stages.1.` for the second stage.
    """

    config: TrainConfig
    module: DetectionModule
    device: Device
    above: str = ""

    @cached_property
    def per_lane(self) -> int:
        """As the config says, in the precision of the device."""
        return self.of_lane(self.config.training.activation_checkpointing, half=self._half)

    @cached_property
    def per_lane_checkpointed(self) -> int:
        return self.of_lane(checkpointing=True, half=self._half)

    @property
    def fixed(self) -> int:
        """Weights, gradients and moments."""
        return sum(parameter.numel() for parameter in self.module.parameters()) * _BYTES_PER_PARAMETER

    def of_lane(self, checkpointing: bool, half: bool) -> int:
        """Of one lane, by going through the network without computing anything."""
        dataset, detector = self.config.dataset, copy.deepcopy(self.module.detector)  # batch norms count what they see
        for stage in detector.modules():
            if isinstance(stage, Stage):
                stage.activation_checkpointing = checkpointing
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with (
            FakeTensorMode(allow_non_fake_inputs=True) as fake,
            torch.compiler.set_stance("force_eager"),
            saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=half),
        ):
            detector._apply(fake.from_tensor)
            own = {each.untyped_storage()._cdata for each in detector.parameters()}
            shape = (dataset.sequence_length, 1, dataset.channels, *dataset.loaded_hw)
            features, _ = detector.encode(torch.empty(shape, dtype=torch.uint8), None)
            detector.predict(detector.select(features, torch.arange(self._labelled_frames)))
        return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)

    def rows(self) -> dict[str, str]:
        """Lines for `check=true`."""
        lanes, here = self.config.batch_size.train, f"{_mib(self._total(self.per_lane))} here"
        if not self.config.training.activation_checkpointing:
            here += f", {_mib(self._total(self.per_lane_checkpointed))} with {self._checkpointing}"
        told = f"{here}; beside {_mib(self.fixed)} for weights, gradients and moments, and what a step needs in passing"
        rows = {"Backward": f"keeps about {told}"}
        if self.device.accelerator == "cpu":
            plain, saving = (self.of_lane(checkpointing, half=True) * lanes for checkpointing in (False, True))
            rows["On a GPU"] = (
                f"about {_mib(plain)}, {_mib(saving)} with {self._checkpointing}, in 16 bits: from shapes, not "
                "measured; its time is open"
            )
        return rows

    def require_room(self) -> None:
        """Raises UserError where a step cannot fit, with the settings that would make it fit."""
        free, lanes = self._free(), self.config.batch_size.train
        if self.fixed + self._total(self.per_lane) > free:
            raise UserError(self._refusal(f"and {_mib(free)} are free", free, lanes))

    @contextmanager
    def out_of_memory_told(self) -> Generator[None]:
        """A GPU that has no room after all: a UserError with the settings that need less."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            told = str(error).partition(". GPU")[0]
            raise UserError(
                self._refusal(f"and more in passing: {told}", None, self.config.batch_size.train)
            ) from error

    def _refusal(self, why: str, free: int | None, lanes: int) -> str:
        height, width = self.config.dataset.loaded_hw
        remedies = ", or ".join(self._remedies(free)) or "a smaller batch, shorter chunks or smaller frames"
        return (
            f"batch_size.train={lanes} at {width} x {height} keeps about {_mib(self._total(self.per_lane))} for the "
            f"backward pass, {why}. It needs less with {remedies}"
        )

    def _remedies(self, free: int | None) -> Iterator[str]:
        """Settings that fit into `free` bytes, with the same optimizer steps; None: all that help."""
        lanes, accumulated = self.config.batch_size.train, self.config.training.accumulate_grad_batches
        least = 2 if self.config.dataset.train.sampling == "mixed" else 1
        own = self.config.training.activation_checkpointing
        ways = [
            ("", self.per_lane),
            *([] if own else [(f"{self._checkpointing} ", self.per_lane_checkpointed)]),
        ]
        for words, per_lane in ways:
            for fewer in (each for each in range(lanes, least - 1, -1) if lanes % each == 0):
                if (words or fewer < lanes) and (free is None or self.fixed + fewer * per_lane <= free):
                    batch = f"{self.above}batch_size.train={fewer}"
                    batch += f" {self.above}training.accumulate_grad_batches={accumulated * lanes // fewer}"
                    needs = f"(about {_mib(fewer * per_lane)})"
                    yield f"{words}{batch if fewer < lanes else ''}".strip() + f" {needs}"
                    break

    @property
    def _checkpointing(self) -> str:
        return f"{self.above}training.activation_checkpointing=true"

    def _total(self, per_lane: int) -> int:
        return per_lane * self.config.batch_size.train

    def _free(self) -> int:
        if self.device.accelerator == "gpu":
            return torch.cuda.mem_get_info(self.device.indices[0])[0]
        return psutil.virtual_memory().available

    @property
    def _half(self) -> bool:
        return "16" in self.device.precision

    @property
    def _labelled_frames(self) -> int:
        dataset = self.config.dataset
        if dataset.only_load_end_labels:
            return 1
        interval = max(dataset.preprocessing.label_interval_ms, dataset.representation.window_ms)
        return max(1, round(dataset.sequence_length * dataset.representation.window_ms / interval))


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
