"""Multi-axis attention (MaxViT, ECCV 2022): window attention for what is near, grid attention for what is far.

Feature maps are [N, H, W, C] here, so that norms and linear layers need no reshape; only q, k and v are regrouped.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from config.schema import AttentionConfig
from models.layers.linear import MapLinear

NORM_EPS = 1e-5
ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}

# Cells of a map that attend to each other: (p q) are the partition's cells, adjacent in a window and spread in a grid.
WINDOW = "n (y p) (x q)"
GRID = "n (p y) (q x)"


class PartitionedSelfAttention(nn.Module):
    """Multi-head self-attention among the cells of each window, or of each grid."""

    def __init__(self, dim: int, cells: str, partition_size: tuple[int, int], config: AttentionConfig) -> None:
        super().__init__()
        assert dim % config.dim_head == 0, f"heads of {config.dim_head} channels do not divide {dim}"
        self.heads = dim // config.dim_head
        self.cells = cells
        self.sizes = {"p": partition_size[0], "q": partition_size[1]}
        self.qkv = MapLinear(dim, 3 * dim, bias=config.attention_bias)
        self.proj = MapLinear(dim, dim, bias=config.attention_bias)

    def forward(
        self, x: Float[Tensor, "n h w c"], scale: Float[Tensor, " c"] | None = None
    ) -> Float[Tensor, "n h w c"]:
        height, width = x.shape[1:3]
        # q, k and v are packed per head: [heads, 3, dim_head], not [3, heads, dim_head].
        pattern = f"{self.cells} (heads three d) -> three (n y x) heads (p q) d"
        q, k, v = rearrange(self.qkv(x), pattern, heads=self.heads, three=3, **self.sizes)
        pattern = f"(n y x) heads (p q) d -> {self.cells} (heads d)"
        rows, columns = height // self.sizes["p"], width // self.sizes["q"]
        return self.proj(rearrange(attend(q, k, v), pattern, y=rows, x=columns, **self.sizes), scale)


def attend(
    q: Float[Tensor, "g heads t d"], k: Float[Tensor, "g heads t d"], v: Float[Tensor, "g heads t d"]
) -> Float[Tensor, "g heads t d"]:
    """softmax(q k^T / sqrt(d)) v within each of g groups of t tokens."""
    if q.device.type == "cpu":
        # The fused kernel is slower here, for 60 tokens in heads of 24 or 32 (AMD EPYC, Intel Xeon): 1.05 to 1.25 times
        # forwards; forwards and backwards 1.5 times in float32, 4 to 7 times in bfloat16.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return Softmax.apply(scores) @ v
    return attend_fused(q, k, v)


class Softmax(torch.autograd.Function):
    """Softmax over the last dimension, forwards in float32, kept and differentiated in the type of its input.

    PyTorch's own takes 1.6 times as long forwards in bfloat16, as rows of 60 do not fill its vectors, and goes
    backwards in float32 if it is asked for a float32 result. This saves a fifth of `attend`'s time in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, scores: Float[Tensor, "*rows t"]) -> Float[Tensor, "*rows t"]:
        result = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "*rows t"]) -> Float[Tensor, "*rows t"]:
        (gradient,), (result,) = gradients, ctx.saved_tensors
        return torch.ops.aten._softmax_backward_data(gradient, result, -1, result.dtype)


def attend_fused(
    q: Float[Tensor, "g heads t d"],
    k: Float[Tensor, "g heads t d"],
    v: Float[Tensor, "g heads t d"],
    grid_limit: int = 65_535,
) -> Float[Tensor, "g heads t d"]:
    """The same by PyTorch's kernels, which end with "invalid configuration argument" beyond CUDA's grid limit."""
    most = grid_limit // q.shape[1]
    parts = zip(q.split(most), k.split(most), v.split(most), strict=True)
    attended = [F.scaled_dot_product_attention(*part) for part in parts]
    return attended[0] if len(attended) == 1 else torch.cat(attended)


class Mlp(nn.Module):
    """Two linear layers. A gated one multiplies values by activated gates between them (GLU, arXiv:2002.05202)."""

    def __init__(self, dim: int, config: AttentionConfig) -> None:
        super().__init__()
        hidden = int(dim * config.mlp_ratio)
        self.gated = config.mlp_gated
        if self.gated:
            # Two thirds of the width keep the number of parameters; RVT takes whole multiples of 32 of that.
            hidden = max(32, 32 * int(hidden * 2 / 3 / 32))
        self.fc1 = MapLinear(dim, 2 * hidden if self.gated else hidden, bias=config.mlp_bias)
        self.act = ACTIVATIONS[config.mlp_activation]()
        self.drop = nn.Dropout(config.drop_mlp)
        self.fc2 = MapLinear(hidden, dim, bias=config.mlp_bias)

    def forward(
        self, x: Float[Tensor, "*cells c"], scale: Float[Tensor, " c"] | None = None
    ) -> Float[Tensor, "*cells c"]:
        hidden = self.fc1(x)
        if self.gated:
            values, gates = hidden.chunk(2, dim=-1)
            hidden = values * self.act(gates)
        else:
            hidden = self.act(hidden)
        return self.fc2(self.drop(hidden), scale)


class AttentionBlock(nn.Module):
    """Norm, attention, norm, MLP, each branch scaled per channel and added to its input."""

    def __init__(
        self, dim: int, cells: str, partition_size: tuple[int, int], config: AttentionConfig, skip_first_norm: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.Identity() if skip_first_norm else nn.LayerNorm(dim, eps=NORM_EPS)
        self.attention = PartitionedSelfAttention(dim, cells, partition_size, config)
        self.ls1 = _layer_scale(dim, config)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, config)
        self.ls2 = _layer_scale(dim, config)
        self.drop_path = StochasticDepth(config.drop_path, mode="row") if config.drop_path > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w c"]:
        x = x + self.drop_path(self.attention(self.norm1(x), _gamma(self.ls1)))
        return x + self.drop_path(self.mlp(self.norm2(x), _gamma(self.ls2)))


class LayerScale(nn.Module):
    """A factor for each channel of a branch, small at first (CaiT, arXiv:2103.17239), for the branch's last layer."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))


class MaxVitBlock(nn.Module):
    """Window attention, then grid attention."""

    def __init__(
        self, dim: int, partition_size: tuple[int, int], config: AttentionConfig, skip_first_norm: bool
    ) -> None:
        super().__init__()
        self.window = AttentionBlock(dim, WINDOW, partition_size, config, skip_first_norm)
        self.grid = AttentionBlock(dim, GRID, partition_size, config, skip_first_norm=False)

    def forward(self, x: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w c"]:
        return self.grid(self.window(x))


def _layer_scale(dim: int, config: AttentionConfig) -> nn.Module:
    return LayerScale(dim, config.ls_init_value) if config.ls_init_value > 0 else nn.Identity()


def _gamma(layer: nn.Module) -> Float[Tensor, " c"] | None:
    return layer.gamma if isinstance(layer, LayerScale) else None
