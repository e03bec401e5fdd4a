"""RVT's recurrent backbone: four stages of convolution, MaxViT attention and a recurrent cell, at strides 4 to 32."""

from __future__ import annotations

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from config.schema import BackboneConfig, DownsampleConfig, StageConfig
from models.cells.build import OWN, build_cell
from models.cells.cell import State, join_lanes, split_lanes
from models.layers.attention import NORM_EPS, MaxVitBlock
from models.layers.kernels import compute_dtype, lay_out_frames
from models.parts import is_own


class Downsample(nn.Module):
    """Strided convolution to the stage's resolution and width, then a norm over channels."""

    def __init__(self, in_dim: int, dim: int, stride: int, config: DownsampleConfig) -> None:
        super().__init__()
        kernel = 2 * stride - 1 if config.overlap else stride
        padding = kernel // 2 if config.overlap else 0
        self.conv = nn.Conv2d(in_dim, dim, kernel, stride=stride, padding=padding, bias=False)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS, elementwise_affine=config.norm_affine)

    def forward(self, x: Num[Tensor, "n c_in h_in w_in"]) -> Float[Tensor, "n h w c"]:
        # Frames arrive as uint8. Cast here, they are kept as such by activation checkpointing.
        x = lay_out_frames(x, self.conv.weight).to(compute_dtype(self.conv.weight))
        maps = self.conv(x).permute(0, 2, 3, 1).contiguous()
        # A CPU would sum the gradients of the norm's weights over all cells in bfloat16: off by as much as their size.
        return self.norm(maps.to(self.conv.weight.dtype))


class Stage(nn.Module):
    """One resolution of the backbone. Its output is that of its recurrent cell."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        stride: int,
        num_blocks: int,
        partition_size: tuple[int, int],
        config: StageConfig,
        activation_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.activation_checkpointing = activation_checkpointing
        self.downsample = Downsample(in_dim, dim, stride, config.downsample)
        self.blocks = nn.ModuleList(
            # The down-sampling has just normalised what the first block gets.
            MaxVitBlock(dim, partition_size, config.attention, skip_first_norm=index == 0)
            for index in range(num_blocks)
        )
        self._cell_name = OWN if is_own(config.cell) else config.cell
        self.add_module(self._cell_name, build_cell(dim, config))

    def forward(
        self, x: Num[Tensor, "l b c_in h_in w_in"], state: State | None
    ) -> tuple[Float[Tensor, "l b c h w"], State]:
        """Convolution and attention know no time: they run once, on all L*B frames. Only the cell walks over L."""
        L, B = x.shape[:2]
        maps = self._run(self.downsample, x.flatten(0, 1), B)  # [L*B, h, w, c]
        for block in self.blocks:
            assert isinstance(block, MaxVitBlock)
            maps = self._run(block.window, maps, B)
            maps = self._run(block.grid, maps, B)
        hidden, state = self._run_cell(maps.unflatten(0, (L, B)), state)
        return hidden.permute(0, 1, 4, 2, 3), state

    def _run(self, layer: nn.Module, maps: Num[Tensor, "n c_in h_in w_in"], at_once: int) -> Tensor:
        """Apply a layer to each map.

        Under activation checkpointing only its inputs are kept, and the rest is computed again in the backward pass,
        for a few maps at a time: for all at once it would take most of the memory that was saved.
        """
        if not self._checkpoints:
            return layer(maps)
        return torch.cat([checkpoint(layer, part, use_reentrant=False) for part in maps.split(at_once)])

    def _run_cell(
        self, maps: Float[Tensor, "l b h w c"], state: State | None
    ) -> tuple[Float[Tensor, "l b h w c"], State]:
        """Likewise, lane by lane."""
        if not self._checkpoints:
            return self.cell(maps, state)
        lanes = maps.split(1, dim=1)
        pairs = [
            checkpoint(self.cell, lane, before, use_reentrant=False)
            for lane, before in zip(lanes, split_lanes(state, len(lanes)), strict=True)
        ]
        hidden, after = zip(*pairs, strict=True)
        return torch.cat(hidden, dim=1), join_lanes(after)

    @property
    def cell(self) -> nn.Module:
        """Its weights' names begin with the name of the choice, as in published checkpoints."""
        return self.get_submodule(self._cell_name)

    @property
    def _checkpoints(self) -> bool:
        return self.activation_checkpointing and self.training


class RecurrentBackbone(nn.Module):
    """MaxViT with a recurrent cell at the end of every stage ("MaxViTRNN")."""

    def __init__(
        self, config: BackboneConfig, partition_size: tuple[int, int], activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        in_dims = (config.input_channels, *config.stage_dims[:-1])
        strides = (config.stem.patch_size, 2, 2, 2)
        self.stages = nn.ModuleList(
            Stage(in_dim, dim, stride, num_blocks, partition_size, config.stage, activation_checkpointing)
            for in_dim, dim, stride, num_blocks in zip(
                in_dims, config.stage_dims, strides, config.num_blocks, strict=True
            )
        )

    def forward(
        self, frames: Num[Tensor, "l b c h w"], state: list[State] | None
    ) -> tuple[list[Float[Tensor, "l b _ _ _"]], list[State]]:
        """Feature maps of stages 1 to 4 for every frame, uint8 or float, and the state after the last one."""
        features, new_state = [], []
        maps = frames
        for index, stage in enumerate(self.stages):
            maps, stage_state = stage(maps, None if state is None else state[index])
            features.append(maps)
            new_state.append(stage_state)
        return features, new_state

    @torch.no_grad()
    def lane_state(self, hw: tuple[int, int]) -> list[State]:
        """Shapes and types of one lane's state for frames of `hw` pixels: whatever the cells give, without values."""
        state, (height, width) = [], hw
        with FakeTensorMode(allow_non_fake_inputs=True), torch.compiler.set_stance("force_eager"):
            for stage in self.stages:
                assert isinstance(stage, Stage)
                conv = stage.downsample.conv
                height, width = height // conv.stride[0], width // conv.stride[1]
                maps = torch.empty(1, 1, height, width, conv.out_channels, dtype=conv.weight.dtype)
                state.append(stage.cell(maps, None)[1])
        return state

    def state_bytes(self, hw: tuple[int, int]) -> int:
        """Size of one lane's state for frames of `hw` pixels."""
        return sum(part.nbytes for stage in self.lane_state(hw) for part in stage)
