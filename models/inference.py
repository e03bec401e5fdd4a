"""A trained detector frozen for a stream: one frame of each lane at a time, and nothing that only training needs.

It computes what `Detector` computes with L = 1, from weights that are prepared once instead of in every call: norms and
scales are folded, there is no axis of time, and complex states are two real halves. `torch.export` can follow it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from models.backbone import Stage
from models.cells.cell import State
from models.cells.lstm import Lstm2d
from models.cells.s5 import S5Block
from models.detector import Detector
from models.frozen_cells import FrozenLstm, FrozenS5
from models.frozen_layers import FrozenAttention, FrozenDownsample, frozen_convolutions
from models.layers.attention import AttentionBlock
from models.postprocess import decode


class OneFrame(nn.Module):
    """The network of a `Detector`, which stays as it is, for frames of one size.

    Raises TypeError for a recurrent cell of a user's own: only `Detector` can run it.
    """

    def __init__(self, detector: Detector, frame_hw: tuple[int, int], dtype: torch.dtype = torch.float32) -> None:
        """`dtype`: of matrix products and convolutions; norms, states and the head's predictions stay in float32."""
        super().__init__()
        self.frame_hw, self.dtype = frame_hw, dtype
        below, right = (-size % unit for size, unit in zip(frame_hw, detector.padding_hw, strict=True))
        self._padding, self._padded_hw = (0, right, 0, below), (frame_hw[0] + below, frame_hw[1] + right)
        stages = [stage for stage in detector.backbone.stages if isinstance(stage, Stage)]
        self.stages = nn.ModuleList(FrozenStage(stage, dtype) for stage in stages)
        self._in_stages = detector._in_stages
        self.fpn = frozen_convolutions(detector.fpn, dtype)
        self.head = frozen_convolutions(detector.head, dtype)
        lane = detector.backbone.lane_state(self._padded_hw)
        self._states = [[_state_shape(part) for part in stage] for stage in lane]
        self.eval().requires_grad_(False)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def state_names(self) -> list[str]:
        """One for each tensor of the state, in order."""
        return [f"stage{k}_state{i}" for k, stage in enumerate(self._states, start=1) for i in range(len(stage))]

    def first_state(self, lanes: int = 1) -> tuple[Tensor, ...]:
        """The state at the start of a stream: zeros, [lanes, h, w, c] each."""
        shapes = [shape for stage in self._states for shape in stage]
        return tuple(torch.zeros(lanes, *shape, device=self._device) for shape in shapes)

    def forward(
        self, frames: Num[Tensor, "b c h w"], *state: Float[Tensor, "b _ _ _"]
    ) -> tuple[Float[Tensor, "b a five_and_classes"], tuple[Float[Tensor, "b _ _ _"], ...]]:
        """Decoded predictions (see `models.postprocess.decode`), and the state after the frame.

        `frames` are as loaded, or padded already (`padded_frames`).
        """
        features, after = [], []
        maps = frames.to(self.dtype)
        if tuple(frames.shape[-2:]) == self.frame_hw:
            maps = F.pad(maps, self._padding)
        parts = iter(state)
        for stage, shapes in zip(self.stages, self._states, strict=True):
            maps, own = stage(maps, tuple(next(parts) for _ in shapes))
            features.append(maps)
            after += own
        output = self.head(self.fpn(tuple(features[stage - 1] for stage in self._in_stages)))
        return decode(output), tuple(after)

    def padded_frames(self, channels: int, lanes: int = 1) -> Float[Tensor, "b c h_padded w_padded"]:
        """Memory for frames, in the layout and type that the first convolution takes: copying into it is all."""
        frames = torch.zeros(lanes, channels, *self._padded_hw, dtype=self.dtype, device=self._device)
        return frames.contiguous(memory_format=torch.channels_last)


class FrozenStage(nn.Module):
    def __init__(self, stage: Stage, dtype: torch.dtype) -> None:
        super().__init__()
        self.downsample = FrozenDownsample(stage.downsample, dtype)
        blocks: list[AttentionBlock] = [part for block in stage.blocks for part in (block.window, block.grid)]  # type: ignore[bad-assignment]
        self.blocks = nn.ModuleList(FrozenAttention(block, dtype) for block in blocks)
        cells: dict[type, Callable[[Any, torch.dtype], nn.Module]] = {Lstm2d: FrozenLstm, S5Block: FrozenS5}
        if type(stage.cell) not in cells:
            raise TypeError(f"a recurrent cell of type {type(stage.cell).__name__} cannot be frozen")
        self.cell = cells[type(stage.cell)](stage.cell, dtype)

    def forward(
        self, x: Float[Tensor, "b c_in h_in w_in"], state: State
    ) -> tuple[Float[Tensor, "b c h w"], tuple[Tensor, ...]]:
        maps = self.downsample(x)
        for block in self.blocks:
            maps = block(maps)
        maps, state = self.cell(maps, *state)
        return maps.permute(0, 3, 1, 2), state


def _state_shape(part: Tensor) -> tuple[int, int, int]:
    """Height, width and channels of a cell's own tensor [1, c, h, w]; complex channels are two."""
    _, channels, height, width = part.shape
    return height, width, channels * (2 if part.is_complex() else 1)
