"""Linear layers on feature maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def map_linear(
    maps: Float[Tensor, "*cells c_in"], weight: Float[Tensor, "c_out c_in"], bias: Float[Tensor, " c_out"] | None
) -> Float[Tensor, "*cells c_out"]:
    """F.linear on the channels of every cell.

    For maps [N, H, W, C] on a CPU a 1x1 convolution computes it: forward and backward, oneDNN's takes 0.65 to 0.85 of
    the time of MKL's matrix products in float32, and 0.55 to 1.0 in bfloat16 (AMD EPYC with AVX512, 48 to 384
    channels, times 3 or 4); on an Intel Xeon with AMX all layers together take 1.0 and 0.88.
    """
    if maps.device.type != "cpu" or maps.ndim != 4:
        return F.linear(maps, weight, bias)
    return F.conv2d(maps.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)


class MapLinear(nn.Linear):
    """nn.Linear for feature maps, and what it gives times a scale for each channel."""

    def forward(  # type: ignore[bad-override]  # an nn.Linear in its weights, with another call
        self, maps: Float[Tensor, "*cells c_in"], scale: Float[Tensor, " c_out"] | None = None
    ) -> Float[Tensor, "*cells c_out"]:
        if scale is None:
            return map_linear(maps, self.weight, self.bias)
        # Weights times a scale of 1e-5 are too small for float16. On a GPU it has not been measured whether this pays.
        if maps.device.type != "cpu" or compute_dtype(self.weight) == torch.float16:
            return map_linear(maps, self.weight, self.bias) * scale
        return map_linear(maps, *self.scaled(scale))

    def scaled(
        self, scale: Float[Tensor, " c_out"]
    ) -> tuple[Float[Tensor, "c_out c_in"], Float[Tensor, " c_out"] | None]:
        """Weight and bias times `scale`: few numbers, where the layer's output is a map that does not fit the cache."""
        return self.weight * scale[:, None], None if self.bias is None else self.bias * scale


def compute_dtype(weight: Tensor) -> torch.dtype:
    """What matrix products with `weight` compute in: its own type, or autocast's."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
