"""A trained detector frozen for a stream: one frame of each lane at a time, and nothing that only training needs.

It computes what `Detector` computes with L = 1, from weights that are prepared once instead of in every call: norms and
scales are folded, there is no axis of time, and complex states are two real halves. `torch.export` can follow it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from models.backbone import Downsample, Stage
from models.cells.cell import State
from models.cells.lstm import Lstm2d
from models.cells.s5 import S5Block
from models.detector import Detector
from models.layers.attention import WINDOW, AttentionBlock
from models.layers.convolution import ConvBlock
from models.layers.kernels import attend, map_linear
from models.postprocess import decode

Maps = Float[Tensor, "b h w c"]


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
        self.fpn = _frozen_convolutions(detector.fpn, dtype)
        self.head = _frozen_convolutions(detector.head, dtype)
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


class FrozenDownsample(nn.Module):
    def __init__(self, layer: Downsample, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.norm = _kept(layer.conv.weight, dtype), deepcopy(layer.norm)
        self.options: dict[str, Any] = {"stride": layer.conv.stride, "padding": layer.conv.padding}

    def forward(self, x: Float[Tensor, "b c_in h_in w_in"]) -> Maps:
        x = x.to(self.weight.dtype, memory_format=torch.channels_last)
        return self.norm(F.conv2d(x, self.weight, **self.options).permute(0, 2, 3, 1).float())


class FrozenLinear(nn.Module):
    """A linear layer on maps, with all that is done to its output channel by channel."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = _kept(weight, dtype)
        self.bias = None if bias is None else _kept(bias, dtype)

    @classmethod
    def of(cls, layer: Any, scale: nn.Module, dtype: torch.dtype) -> FrozenLinear:
        """A MapLinear, with the layer scale behind it."""
        gamma = getattr(scale, "gamma", None)
        weight, bias = (layer.weight, layer.bias) if gamma is None else layer.scaled(gamma)
        return cls(weight, bias, dtype)

    def forward(self, maps: Float[Tensor, "b h w c_in"]) -> Float[Tensor, "b h w c_out"]:
        # A convolution is what a CPU does faster; where the graph is for others, it is the matrix product that it is.
        linear = F.linear if torch.compiler.is_exporting() else map_linear
        return linear(maps.to(self.weight.dtype), self.weight, self.bias)


class FrozenAttention(nn.Module):
    """One attention block, see `models.layers.attention.AttentionBlock`."""

    def __init__(self, block: AttentionBlock, dtype: torch.dtype) -> None:
        super().__init__()
        attention, mlp = block.attention, block.mlp
        self.norm1, self.norm2, self.act = (deepcopy(part) for part in (block.norm1, block.norm2, mlp.act))
        self.gated = mlp.gated
        self.qkv = FrozenLinear.of(attention.qkv, nn.Identity(), dtype)
        self.proj = FrozenLinear.of(attention.proj, block.ls1, dtype)
        self.fc1 = FrozenLinear.of(mlp.fc1, nn.Identity(), dtype)
        self.fc2 = FrozenLinear.of(mlp.fc2, block.ls2, dtype)
        self.heads, self.is_window = attention.heads, attention.cells == WINDOW
        self.size = (attention.sizes["p"], attention.sizes["q"])

    def forward(self, x: Maps) -> Maps:
        x = x + self.proj(self._attend(self.qkv(self.norm1(x))))
        hidden = self.fc1(self.norm2(x))
        if self.gated:
            values, gates = hidden.chunk(2, dim=-1)
            hidden = values * self.act(gates)
        else:
            hidden = self.act(hidden)
        return x + self.fc2(hidden)

    def _attend(self, packed: Float[Tensor, "b h w three_c"]) -> Maps:
        _, height, width, channels = packed.shape
        p, q = self.size
        rows, columns, dim = height // p, width // q, channels // 3 // self.heads
        # axes: lane, rows and columns of windows (y, x), their cells (p, q), head, q/k/v, channel
        if self.is_window:
            split, order = (rows, p, columns, q), (6, 0, 1, 3, 5, 2, 4, 7)
        else:
            split, order = (p, rows, q, columns), (6, 0, 2, 4, 5, 1, 3, 7)
        split_packed = packed.reshape(-1, *split, self.heads, 3, dim).permute(order)
        queries, keys, values = split_packed.reshape(3, -1, self.heads, p * q, dim).unbind(0)
        out = self._softmax_attention(queries, keys, values).reshape(-1, rows, columns, self.heads, p, q, dim)
        order = (0, 1, 4, 2, 5, 3, 6) if self.is_window else (0, 4, 1, 5, 2, 3, 6)
        return out.permute(order).reshape(-1, height, width, channels // 3)

    @staticmethod
    def _softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return attend(q, k, v)


class FrozenLstm(nn.Module):
    """See `models.cells.lstm.Lstm2d`. Its state: hidden and cell, [b h w c]."""

    def __init__(self, cell: Lstm2d, dtype: torch.dtype) -> None:
        super().__init__()
        dim, weight = cell.dim, cell.gates.weight.flatten(1)
        self.dim = dim
        self.from_input = FrozenLinear(weight[:, :dim], cell.gates.bias, dtype)
        self.from_hidden = _kept(weight[:, dim:].t(), dtype)
        self.mix_input = self.mix_hidden = None
        if cell.depthwise is not None:
            self.mix_hidden = _part_of_depthwise(cell.depthwise, slice(-dim, None), dtype)
            if cell.depthwise.groups > dim:
                self.mix_input = _part_of_depthwise(cell.depthwise, slice(None, dim), dtype)

    def forward(self, x: Maps, hidden: Maps, cell: Maps) -> tuple[Maps, tuple[Maps, Maps]]:
        from_input = self.from_input(_mixed(x, self.mix_input)).flatten(0, 2)
        before = _mixed(hidden, self.mix_hidden).flatten(0, 2).to(from_input.dtype)
        gates = torch.addmm(from_input, before, self.from_hidden)
        three, cell_input = gates.split((3 * self.dim, self.dim), dim=1)
        forget, input_, output = three.sigmoid().chunk(3, dim=1)
        cell = forget * cell.flatten(0, 2) + input_ * cell_input.tanh()
        hidden = output * cell.tanh().to(gates.dtype)
        hidden, cell = (part.reshape(x.shape).float() for part in (hidden, cell))
        return hidden, (hidden, cell)


class FrozenS5(nn.Module):
    """See `models.cells.s5.S5Block`. Its state: real, then imaginary parts, [b h w 2p]."""

    def __init__(self, block: S5Block, dtype: torch.dtype) -> None:
        super().__init__()
        ssm = block.ssm
        factor, input_matrix = ssm._discretized()
        self.norm1, self.norm2 = deepcopy(block.norm1), deepcopy(block.norm2)
        # complex numbers and what adds up over hundreds of frames have no half precision
        self.from_input = FrozenLinear(torch.cat((input_matrix.real, input_matrix.imag)), None, torch.float32)
        real, imaginary = ssm.output_matrix.unbind(-1)
        self.to_output = FrozenLinear(torch.cat((real, -imaginary), dim=1), None, torch.float32)
        self.factor_real, self.factor_imaginary = _kept(factor.real), _kept(factor.imag)
        self.skip = _kept(ssm.skip)
        self.fc1 = FrozenLinear.of(block.fc1, nn.Identity(), dtype)
        self.fc2 = FrozenLinear.of(block.fc2, nn.Identity(), dtype)

    def forward(self, x: Maps, state: Float[Tensor, "b h w two_p"]) -> tuple[Maps, tuple[Float[Tensor, "b h w two_p"]]]:
        normed = self.norm1(x.float())
        real, imaginary = state.chunk(2, dim=-1)
        turned = torch.cat(
            (
                self.factor_real * real - self.factor_imaginary * imaginary,
                self.factor_real * imaginary + self.factor_imaginary * real,
            ),
            dim=-1,
        )
        state = self.from_input(normed) + turned
        y = self.to_output(state) + self.skip * normed
        residual = self.norm2(F.gelu(y) + normed)
        values, gates = self.fc1(residual).chunk(2, dim=-1)
        return self.fc2(values * F.gelu(gates)) + residual, (state,)


class FrozenConv(nn.Module):
    """A ConvBlock whose norm is folded into the convolution."""

    def __init__(self, block: ConvBlock, dtype: torch.dtype) -> None:
        super().__init__()
        bn, self.act = block.bn, deepcopy(block.act)
        assert bn.running_var is not None
        assert bn.running_mean is not None
        scale = bn.weight * (bn.running_var + bn.eps).rsqrt()
        self.weight = _kept(block.conv.weight * scale[:, None, None, None], dtype)
        self.bias = _kept(bn.bias - bn.running_mean * scale, dtype)
        self.options = {name: getattr(block.conv, name) for name in ("stride", "padding", "groups")}

    def forward(self, x: Float[Tensor, "b c_in h_in w_in"]) -> Float[Tensor, "b c h w"]:
        return self.act(F.conv2d(x.to(self.weight.dtype), self.weight, self.bias, **self.options))


def _frozen_convolutions(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a module with all its ConvBlocks frozen; the rest of it has no weights of its own."""
    if isinstance(module, ConvBlock):
        return FrozenConv(module, dtype)
    if next(iter(module.children()), None) is None:
        return deepcopy(module)
    frozen = copy(module)  # without a compiled call, which would go on to the original
    frozen._modules = {}
    for name, child in module.named_children():
        frozen.add_module(name, _frozen_convolutions(child, dtype))
    return frozen


def _part_of_depthwise(conv: nn.Conv2d, channels: slice, dtype: torch.dtype) -> nn.Conv2d:
    assert conv.bias is not None
    weight, bias = conv.weight[channels], conv.bias[channels]
    part = nn.Conv2d(len(weight), len(weight), conv.kernel_size, padding=conv.padding, groups=len(weight), dtype=dtype)  # type: ignore[bad-argument-type]
    part.weight, part.bias = _kept(weight, dtype), _kept(bias, dtype)
    return part


def _mixed(maps: Maps, conv: nn.Conv2d | None) -> Maps:
    if conv is None:
        return maps
    return conv(maps.permute(0, 3, 1, 2).to(conv.weight.dtype)).permute(0, 2, 3, 1)


def _kept(tensor: Tensor, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(tensor.detach().to(dtype).contiguous(), requires_grad=False)


def _state_shape(part: Tensor) -> tuple[int, int, int]:
    """Height, width and channels of a cell's own tensor [1, c, h, w]; complex channels are two."""
    _, channels, height, width = part.shape
    return height, width, channels * (2 if part.is_complex() else 1)
