"""Convolution blocks that the feature pyramid and the head are made of (YOLOX, arXiv:2107.08430)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from models.layers.kernels import chosen, convolve

ACTIVATIONS = {
    "silu": lambda: nn.SiLU(inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "lrelu": lambda: nn.LeakyReLU(0.1, inplace=True),
}


class ConvBlock(nn.Module):
    """Convolution, batch norm, activation; odd kernels keep the map's size up to the stride."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, act: str, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Float[Tensor, "n c_in h_in w_in"]) -> Float[Tensor, "n c h w"]:
        conv, bn = self.conv, self.bn
        if self.training or chosen(conv.weight).batch_norm == "apart":
            return self.act(bn(convolve(x, conv.weight, None, conv.stride[0], conv.groups)))
        # The norm's statistics are fixed: folded into the weights it costs nothing per cell. On a GPU, where a step of
        # evaluation waits for launches, computing these small products would cost more than the norm.
        assert bn.running_var is not None
        assert bn.running_mean is not None
        scale = bn.weight * (bn.running_var + bn.eps).rsqrt()
        weight, bias = conv.weight * scale[:, None, None, None], bn.bias - bn.running_mean * scale
        return self.act(convolve(x, weight, bias, conv.stride[0], conv.groups))


class DepthwiseConvBlock(nn.Module):
    """A ConvBlock per channel, then a 1x1 ConvBlock: a cheap stand-in for one ConvBlock."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, act: str, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = ConvBlock(in_channels, in_channels, kernel, act, stride=stride, groups=in_channels)
        self.pointwise = ConvBlock(in_channels, out_channels, 1, act)

    def forward(self, x: Float[Tensor, "n c_in h_in w_in"]) -> Float[Tensor, "n c h w"]:
        return self.pointwise(self.depthwise(x))


def spatial_conv(
    in_channels: int, out_channels: int, kernel: int, act: str, depthwise: bool, stride: int = 1
) -> nn.Module:
    """A ConvBlock that looks at neighbours, depth-wise or full."""
    block = DepthwiseConvBlock if depthwise else ConvBlock
    return block(in_channels, out_channels, kernel, act, stride=stride)
