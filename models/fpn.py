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
    """Mixes the maps of stages 2, 3 and 4; each keeps its resolution and width."""

    def __init__(self, config: FpnConfig, dims: tuple[int, int, int]) -> None:
        super().__init__()
        c2, c3, c4 = dims
        act, depthwise = config.act, config.depthwise
        num_bottlenecks = round(3 * config.depth)

        def csp(in_channels: int, out_channels: int) -> CspLayer:
            return CspLayer(in_channels, out_channels, num_bottlenecks, act, depthwise)

        self.reduce4 = ConvBlock(c4, c3, 1, act)
        self.top_down3 = csp(2 * c3, c3)
        self.reduce3 = ConvBlock(c3, c2, 1, act)
        self.top_down2 = csp(2 * c2, c2)
        self.downsample2 = spatial_conv(c2, c2, 3, act, depthwise, stride=2)
        self.bottom_up3 = csp(2 * c2, c3)
        self.downsample3 = spatial_conv(c3, c3, 3, act, depthwise, stride=2)
        self.bottom_up4 = csp(2 * c3, c4)

    def forward(
        self, features: tuple[Float[Tensor, "n c2 h2 w2"], Float[Tensor, "n c3 h3 w3"], Float[Tensor, "n c4 h4 w4"]]
    ) -> tuple[Float[Tensor, "n c2 h2 w2"], Float[Tensor, "n c3 h3 w3"], Float[Tensor, "n c4 h4 w4"]]:
        stage2, stage3, stage4 = features
        narrow4 = self.reduce4(stage4)
        down3 = self.top_down3(torch.cat((_upsample(narrow4), stage3), dim=1))
        narrow3 = self.reduce3(down3)
        out2 = self.top_down2(torch.cat((_upsample(narrow3), stage2), dim=1))
        out3 = self.bottom_up3(torch.cat((self.downsample2(out2), narrow3), dim=1))
        out4 = self.bottom_up4(torch.cat((self.downsample3(out3), narrow4), dim=1))
        return out2, out3, out4


def _upsample(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    return F.interpolate(x, scale_factor=2, mode="nearest")
