"""Path aggregation feature pyramid (PAFPN, as in YOLOX): top down for meaning, then bottom up for position."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from config.schema import FpnConfig
from models.layers.convolution import ConvBlock, spatial_conv


class Bottleneck(nn.Module):
    """1x1, then 3x3 convolution."""

    def __init__(self, channels: int, act: str, depthwise: bool) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels, 1, act)
        self.conv2 = spatial_conv(channels, channels, 3, act, depthwise)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return self.conv2(self.conv1(x))


class CspLayer(nn.Module):
    """Cross-stage partial layer: half of the channels pass the bottlenecks, half go around them."""

    def __init__(self, in_channels: int, out_channels: int, num_bottlenecks: int, act: str, depthwise: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.main = ConvBlock(in_channels, half, 1, act)
        self.bypass = ConvBlock(in_channels, half, 1, act)
        self.bottlenecks = nn.Sequential(*(Bottleneck(half, act, depthwise) for _ in range(num_bottlenecks)))
        self.fuse = ConvBlock(2 * half, out_channels, 1, act)

    def forward(self, x: Float[Tensor, "n c_in h w"]) -> Float[Tensor, "n c h w"]:
        return self.fuse(torch.cat((self.bottlenecks(self.main(x)), self.bypass(x)), dim=1))


class Pafpn(nn.Module):
    """Mixes the maps of consecutive stages, the deepest one included; each keeps its resolution and width.

    Layers are named after the stage whose width they take (`reduce`, `downsample`) or give (`top_down`, `bottom_up`).
    """

    def __init__(self, config: FpnConfig, stage_dims: tuple[int, ...]) -> None:
        """`stage_dims`: channels of stages 1 to 4, whether they take part or not."""
        super().__init__()
        act, depthwise = config.act, config.depthwise
        num_bottlenecks = round(3 * config.depth)
        self.stages = config.in_stages
        dims = dict(enumerate(stage_dims, start=1))

        def csp(in_channels: int, out_channels: int) -> CspLayer:
            return CspLayer(in_channels, out_channels, num_bottlenecks, act, depthwise)

        for stage in reversed(self.stages[1:]):
            above = stage - 1
            self.add_module(f"reduce{stage}", ConvBlock(dims[stage], dims[above], 1, act))
            self.add_module(f"top_down{above}", csp(2 * dims[above], dims[above]))
        for stage in self.stages[:-1]:
            down = spatial_conv(dims[stage], dims[stage], 3, act, depthwise, stride=2)
            self.add_module(f"downsample{stage}", down)
            self.add_module(f"bottom_up{stage + 1}", csp(2 * dims[stage], dims[stage + 1]))

    def forward(self, features: tuple[Float[Tensor, "n _ _ _"], ...]) -> tuple[Float[Tensor, "n _ _ _"], ...]:
        by_stage = dict(zip(self.stages, features, strict=True))
        narrow = {}
        maps = features[-1]
        for stage in reversed(self.stages[1:]):
            narrow[stage] = getattr(self, f"reduce{stage}")(maps)
            joined = torch.cat((_upsample(narrow[stage]), by_stage[stage - 1]), dim=1)
            maps = getattr(self, f"top_down{stage - 1}")(joined)
        outputs = [maps]
        for stage in self.stages[:-1]:
            down = getattr(self, f"downsample{stage}")(outputs[-1])
            outputs.append(getattr(self, f"bottom_up{stage + 1}")(torch.cat((down, narrow[stage + 1]), dim=1)))
        return tuple(outputs)


def _upsample(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _ _"]:
    return F.interpolate(x, scale_factor=2, mode="nearest")
