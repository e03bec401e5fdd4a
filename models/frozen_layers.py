"""Layers of a trained network with prepared weights, for `models.inference`: nothing that only training needs."""

from __future__ import annotations

from copy import copy, deepcopy
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.backbone import Downsample
from models.layers.attention import WINDOW, AttentionBlock
from models.layers.convolution import ConvBlock
from models.layers.kernels import attend, map_linear

Maps = Float[Tensor, "b h w c"]


class FrozenDownsample(nn.Module):
    def __init__(self, layer: Downsample, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.norm = kept(layer.conv.weight, dtype), deepcopy(layer.norm)
        self.options: dict[str, Any] = {"stride": layer.conv.stride, "padding": layer.conv.padding}

    def forward(self, x: Float[Tensor, "b c_in h_in w_in"]) -> Maps:
        x = x.to(self.weight.dtype, memory_format=torch.channels_last)
        return self.norm(F.conv2d(x, self.weight, **self.options).permute(0, 2, 3, 1).float())


class FrozenLinear(nn.Module):
    """A linear layer on maps, with all that is done to its output channel by channel."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = kept(weight, dtype)
        self.bias = None if bias is None else kept(bias, dtype)
        self._packed: Tensor | None = None  # in oneDNN's own order, which it else brings the weight into at every call

    @classmethod
    def of(cls, layer: Any, scale: nn.Module, dtype: torch.dtype) -> FrozenLinear:
        """A MapLinear, with the layer scale behind it."""
        gamma = getattr(scale, "gamma", None)
        weight, bias = (layer.weight, layer.bias) if gamma is None else layer.scaled(gamma)
        return cls(weight, bias, dtype)

    def forward(self, maps: Float[Tensor, "b h w c_in"]) -> Float[Tensor, "b h w c_out"]:
        maps = maps.to(self.weight.dtype)
        if torch.compiler.is_exporting():
            return F.linear(maps, self.weight, self.bias)
        if maps.device.type != "cpu" or not _packs(maps.dtype):
            return map_linear(maps, self.weight, self.bias)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, None)
        return torch.ops.mkldnn._linear_pointwise(maps.contiguous(), self._packed, self.bias, "none", [], "")


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
        if q.device.type != "cpu":
            return attend(q, k, v)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if torch.compiler.is_exporting():
            return scores.softmax(dim=-1) @ v
        # PyTorch's softmax takes longer: rows of a window's tokens do not fill its vectors
        powers = (scores.float() - scores.amax(dim=-1, keepdim=True)).exp_()
        total = powers.sum(dim=-1, keepdim=True)
        return ((powers.to(v.dtype) @ v) / total).to(v.dtype)


class FrozenConv(nn.Module):
    """A ConvBlock whose norm is folded into the convolution."""

    def __init__(self, block: ConvBlock, dtype: torch.dtype) -> None:
        super().__init__()
        bn, self.act = block.bn, deepcopy(block.act)
        assert bn.running_var is not None
        assert bn.running_mean is not None
        scale = bn.weight * (bn.running_var + bn.eps).rsqrt()
        self.weight = kept(block.conv.weight * scale[:, None, None, None], dtype)
        self.bias = kept(bn.bias - bn.running_mean * scale, dtype)
        self.options = {name: getattr(block.conv, name) for name in ("stride", "padding", "groups")}

    def forward(self, x: Float[Tensor, "b c_in h_in w_in"]) -> Float[Tensor, "b c h w"]:
        return self.act(F.conv2d(x.to(self.weight.dtype), self.weight, self.bias, **self.options))


def frozen_convolutions(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a module with all its ConvBlocks frozen; the rest of it has no weights of its own."""
    if isinstance(module, ConvBlock):
        return FrozenConv(module, dtype)
    if next(iter(module.children()), None) is None:
        return deepcopy(module)
    frozen = copy(module)  # without a compiled call, which would go on to the original
    frozen._modules = {}
    for name, child in module.named_children():
        frozen.add_module(name, frozen_convolutions(child, dtype))
    return frozen


@cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN takes weights of this type in its own order: not at all in some builds, nor bfloat16 on AVX2."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def kept(tensor: Tensor, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(tensor.detach().to(dtype).contiguous(), requires_grad=False)
