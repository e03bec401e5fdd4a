"""Recurrent cells of a trained network for one frame at a time, for `models.inference`."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.cells.lstm import Lstm2d
from models.cells.s5 import S5Block
from models.frozen_layers import FrozenLinear, Maps, kept


class FrozenLstm(nn.Module):
    """See `models.cells.lstm.Lstm2d`. Its state: hidden and cell, [b h w c]."""

    def __init__(self, cell: Lstm2d, dtype: torch.dtype) -> None:
        super().__init__()
        dim, weight = cell.dim, cell.gates.weight.flatten(1)
        self.dim = dim
        self.from_input = FrozenLinear(weight[:, :dim], cell.gates.bias, dtype)
        self.from_hidden = kept(weight[:, dim:].t(), dtype)
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
        self.factor_real, self.factor_imaginary = kept(factor.real), kept(factor.imag)
        self.skip = kept(ssm.skip)
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


def _part_of_depthwise(conv: nn.Conv2d, channels: slice, dtype: torch.dtype) -> nn.Conv2d:
    assert conv.bias is not None
    weight, bias = conv.weight[channels], conv.bias[channels]
    part = nn.Conv2d(len(weight), len(weight), conv.kernel_size, padding=conv.padding, groups=len(weight), dtype=dtype)  # type: ignore[bad-argument-type]
    part.weight, part.bias = kept(weight, dtype), kept(bias, dtype)
    return part


def _mixed(maps: Maps, conv: nn.Conv2d | None) -> Maps:
    if conv is None:
        return maps
    return conv(maps.permute(0, 3, 1, 2).to(conv.weight.dtype)).permute(0, 2, 3, 1)
