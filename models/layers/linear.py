"""Linear layers on feature maps."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.layers.kernels import chosen, compute_dtype, map_linear


class MapLinear(nn.Linear):
    """nn.Linear for feature maps, and what it gives times a scale for each channel."""

    def forward(  # type: ignore[bad-override]  # an nn.Linear in its weights, with another call
        self, maps: Float[Tensor, "*cells c_in"], scale: Float[Tensor, " c_out"] | None = None
    ) -> Float[Tensor, "*cells c_out"]:
        if scale is None:
            return map_linear(maps, self.weight, self.bias)
        # Weights times a scale of 1e-5 are too small for float16.
        if chosen(self.weight).layer_scale == "maps" or compute_dtype(self.weight) == torch.float16:
            return map_linear(maps, self.weight, self.bias) * scale
        return map_linear(maps, *self.scaled(scale))

    def scaled(
        self, scale: Float[Tensor, " c_out"]
    ) -> tuple[Float[Tensor, "c_out c_in"], Float[Tensor, " c_out"] | None]:
        """Weight and bias times `scale`: few numbers, where the layer's output is a map that does not fit the cache."""
        return self.weight * scale[:, None], None if self.bias is None else self.bias * scale
