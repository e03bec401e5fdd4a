"""YOLOX's decoupled, anchor-free head: every cell of every map predicts one box, its objectness and its class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from config.schema import HeadConfig
from models.layers.convolution import ConvBlock, spatial_conv

PRIOR_PROBABILITY = 0.01  # what objectness and classes say before training (RetinaNet, arXiv:1708.02002)


@dataclass(frozen=True)
class Anchors:
    """Cells of all maps in one list: strides 8, 16, 32, each row by row."""

    cell_xy: Float[Tensor, "a 2"]  # column and row
    stride: Float[Tensor, " a"]  # pixels

    @property
    def centre_xy(self) -> Float[Tensor, "a 2"]:
        """Middle of each cell, in pixels."""
        return (self.cell_xy + 0.5) * self.stride[:, None]


@dataclass(frozen=True)
class HeadOutput:
    """What the head says about K images at A anchors, before any decoding; float32 under autocast, too."""

    box_offsets: Float[Tensor, "k a 4"]  # dx, dy in cells, log width, log height in strides
    objectness_logits: Float[Tensor, "k a"]
    class_logits: Float[Tensor, "k a classes"]
    anchors: Anchors


class YoloxHead(nn.Module):
    """One branch for boxes and objectness, one for classes, on each of three maps."""

    def __init__(self, config: HeadConfig, num_classes: int, dims: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.strides = strides
        hidden = int(256 * dims[-1] / 1024)  # YOLOX's width: 256 channels where the deepest stage has 1024

        def branch() -> nn.Sequential:
            return nn.Sequential(*(spatial_conv(hidden, hidden, 3, config.act, config.depthwise) for _ in range(2)))

        def predictor(channels: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(hidden, channels, 1) for _ in dims)

        self.stems = nn.ModuleList(ConvBlock(dim, hidden, 1, config.act) for dim in dims)
        self.class_branches = nn.ModuleList(branch() for _ in dims)
        self.box_branches = nn.ModuleList(branch() for _ in dims)
        self.class_predictors = predictor(num_classes)
        self.box_predictors = predictor(4)
        self.objectness_predictors = predictor(1)
        prior_logit = -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)
        for conv in (*self.class_predictors, *self.objectness_predictors):
            nn.init.constant_(conv.bias, prior_logit)

    def forward(self, features: tuple[Float[Tensor, "k c h w"], ...]) -> HeadOutput:
        boxes, objectness, classes = [], [], []
        dtype = self.box_predictors[0].weight.dtype
        for level, feature in enumerate(features):
            x = self.stems[level](feature)
            box_features = self.box_branches[level](x)
            class_features = self.class_branches[level](x)
            # Half precision would round the predictions themselves: a width to 0.4 %, a logit of -5 to 0.03.
            with torch.autocast(x.device.type, enabled=False):
                box_features, class_features = (maps.to(dtype) for maps in (box_features, class_features))
                boxes.append(_flatten(self.box_predictors[level](box_features)))
                objectness.append(_flatten(self.objectness_predictors[level](box_features)))
                classes.append(_flatten(self.class_predictors[level](class_features)))
        return HeadOutput(
            box_offsets=torch.cat(boxes, dim=1),
            objectness_logits=torch.cat(objectness, dim=1).squeeze(2),
            class_logits=torch.cat(classes, dim=1),
            anchors=make_anchors([f.shape[-2:] for f in features], self.strides, features[0].device),
        )


def make_anchors(maps_hw: list[tuple[int, int]], strides: tuple[int, ...], device: torch.device) -> Anchors:
    """Made anew for every call, from shapes alone: any input size, and nothing to wait for."""
    cells, pixels = [], []
    for (height, width), stride in zip(maps_hw, strides, strict=True):
        rows = torch.arange(height, device=device, dtype=torch.float32)
        columns = torch.arange(width, device=device, dtype=torch.float32)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        cells.append(torch.stack((x, y), dim=2).view(-1, 2))
        pixels.append(torch.full((height * width,), float(stride), device=device))
    return Anchors(torch.cat(cells), torch.cat(pixels))


def decode_boxes(box_offsets: Float[Tensor, "k a 4"], anchors: Anchors) -> Float[Tensor, "k a 4"]:
    """Boxes in pixels: centre x, centre y, width, height."""
    stride = anchors.stride[:, None]
    centre = (box_offsets[..., :2] + anchors.cell_xy) * stride
    size = box_offsets[..., 2:].exp() * stride
    return torch.cat((centre, size), dim=-1)


def _flatten(x: Float[Tensor, "k c h w"]) -> Float[Tensor, "k h*w c"]:
    return x.flatten(2).transpose(1, 2).float()
