"""Anchors, one for each cell of the head's maps, and what the head says of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Anchors:
    """Cells of all maps in one list: level by level, each row by row."""

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
