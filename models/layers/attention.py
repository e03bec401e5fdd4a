"""Multi-axis attention (MaxViT, ECCV 2022): window attention for what is near, grid attention for what is far.

Feature maps are [N, H, W, C] here, so that norms and linear layers need no reshape.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from config.schema import AttentionConfig
from models.layers.kernels import attend
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
        rows, columns = x.shape[1] // self.sizes["p"], x.shape[2] // self.sizes["q"]
        groups = rearrange(x, f"{self.cells} c -> (n y x) (p q) c", **self.sizes)
        # q, k and v are packed per head: [heads, 3, dim_head], not [3, heads, dim_head].
        pattern = "g t (heads three d) -> three g heads t d"
        attended = attend(*rearrange(self.qkv(groups), pattern, heads=self.heads, three=3))
        result = self.proj(rearrange(attended, "g heads t d -> g t (heads d)"), scale)
        return rearrange(result, f"(n y x) (p q) c -> {self.cells} c", y=rows, x=columns, **self.sizes)


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
