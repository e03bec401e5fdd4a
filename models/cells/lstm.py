"""LSTM over feature maps: the recurrent cell at the end of every backbone stage (RVT, CVPR 2023, section 3.2).

The gates of all cells come from one 1x1 convolution on cat(input, hidden). Its input half does not depend on the
hidden state, so it is one matrix product over all L frames; only the hidden half walks over time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from config.schema import LstmConfig
from models.layers.kernels import map_linear

LstmState = tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]
"""Hidden state and cell state of one stage."""


class Lstm2d(nn.Module):
    """One LSTM per cell of a feature map, weights shared by all cells.

    With `f, i, o` the forget, input and output gate and `g` the cell input, all from the same 1x1 convolution:
    `cell = f * cell + i * tanh(g)` and `hidden = o * tanh(cell)`. `dws_conv` adds a depth-wise convolution in front of
    it, on the hidden state or on both (a ConvLSTM); without it cells only see themselves (RVT's plain LSTM).
    """

    def __init__(self, dim: int, config: LstmConfig) -> None:
        super().__init__()
        self.dim = dim
        self.gates = nn.Conv2d(2 * dim, 4 * dim, kernel_size=1)
        self.depthwise = None
        if config.dws_conv:
            channels = dim if config.dws_conv_only_hidden else 2 * dim
            kernel = config.dws_conv_kernel_size
            self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.cell_input_dropout = nn.Dropout(config.drop_cell_update)

    def forward(
        self, x: Float[Tensor, "l b h w c"], state: LstmState | None
    ) -> tuple[Float[Tensor, "l b h w c"], LstmState]:
        """Walk over L frames from `state` (None: zeros); give the hidden state after every frame and the last state."""
        L, B, H, W, C = x.shape
        tokens = B * H * W
        weight = self.gates.weight.flatten(1)
        frames = self._mix_input(x.flatten(0, 1))
        gates_from_input = map_linear(frames, weight[:, :C], self.gates.bias).reshape(L, tokens, 4 * C)
        dtype = gates_from_input.dtype
        hidden_weight = weight[:, C:].t().to(dtype)  # once: autocast would convert it at every step
        # The cell state adds up over the whole sequence, so it stays in float32 when the gates are in half precision.
        cell_dtype = torch.promote_types(dtype, torch.float32)
        if state is None:
            hidden, cell = x.new_zeros(tokens, C, dtype=dtype), x.new_zeros(tokens, C, dtype=cell_dtype)
        else:
            hidden, cell = (s.permute(0, 2, 3, 1).reshape(tokens, C) for s in state)
            hidden, cell = hidden.to(dtype), cell.to(cell_dtype)

        outputs = []
        for from_input in gates_from_input.unbind(0):
            gates = torch.addmm(from_input, self._mix_hidden(hidden, (B, H, W)), hidden_weight)
            hidden, cell = self._update(gates, cell)
            outputs.append(hidden)
        last_hidden, last_cell = (s.view(B, H, W, C).permute(0, 3, 1, 2) for s in (hidden, cell))
        return torch.stack(outputs).view(L, B, H, W, C), (last_hidden, last_cell)

    def _update(
        self, gates: Float[Tensor, "tokens four_c"], cell: Float[Tensor, "tokens c"]
    ) -> tuple[Float[Tensor, "tokens c"], Float[Tensor, "tokens c"]]:
        three_gates, cell_input = gates.split((3 * self.dim, self.dim), dim=1)
        forget, input_, output = three_gates.sigmoid().chunk(3, dim=1)
        cell_input = self.cell_input_dropout(cell_input.tanh())
        cell = forget * cell + input_ * cell_input
        hidden = output * cell.tanh().to(gates.dtype)
        return hidden, cell

    def _mix_input(self, x: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w c"]:
        if self.depthwise is None or self.depthwise.groups == self.dim:
            return x
        return self._depthwise_conv(x.permute(0, 3, 1, 2), slice(None, self.dim)).permute(0, 2, 3, 1)

    def _mix_hidden(self, hidden: Float[Tensor, "tokens c"], bhw: tuple[int, int, int]) -> Float[Tensor, "tokens c"]:
        if self.depthwise is None:
            return hidden
        maps = hidden.view(*bhw, self.dim).permute(0, 3, 1, 2)
        return self._depthwise_conv(maps, slice(-self.dim, None)).permute(0, 2, 3, 1).reshape(hidden.shape)

    def _depthwise_conv(self, maps: Float[Tensor, "n c h w"], channels: slice) -> Float[Tensor, "n c h w"]:
        """The input comes first in cat(input, hidden), so each has its own slice of the depth-wise kernels."""
        conv = self.depthwise
        assert conv is not None
        assert conv.bias is not None
        return F.conv2d(maps, conv.weight[channels], conv.bias[channels], padding=conv.padding, groups=self.dim)
