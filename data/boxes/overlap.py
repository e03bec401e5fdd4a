"""Intersection over union: box by box and box against anchor for training, ragged pairs for the evaluation."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from numpy import ndarray
from torch import Tensor

from data.compiled import compiled


def paired_iou(a_cxcywh: Float[Tensor, "*n 4"], b_cxcywh: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """IoU of each box with the one in its place; 0 for two boxes without an area."""
    intersection, union = paired_overlap(a_cxcywh, b_cxcywh)
    return intersection / (union + 1e-16)


def paired_overlap(
    a_cxcywh: Float[Tensor, "*n 4"], b_cxcywh: Float[Tensor, "*n 4"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Areas of intersection and union of each box with the one in its place."""
    a_centre, a_size = a_cxcywh.split(2, dim=-1)
    b_centre, b_size = b_cxcywh.split(2, dim=-1)
    end = torch.minimum(a_centre + a_size / 2, b_centre + b_size / 2)
    start = torch.maximum(a_centre - a_size / 2, b_centre - b_size / 2)
    intersection = (end - start).clamp(min=0).prod(dim=-1)
    return intersection, a_size.prod(dim=-1) + b_size.prod(dim=-1) - intersection


def iou_with_own_image(
    cxcywh: Float[Tensor, "n 4"], image: Int64[Tensor, " n"], anchors_cxcywh: Float[Tensor, "k a 4"]
) -> Float[Tensor, "n a"]:
    """IoU of each box with all anchors of its image; 0 where it is not a number.

    Coordinate by coordinate: no array of n * a * 4 numbers is ever made.
    """
    x, y, width, height = anchors_cxcywh.unbind(dim=2)  # each [k, a]
    box_x, box_y, box_width, box_height = cxcywh[:, None].unbind(dim=2)  # each [n, 1]

    def overlap(centre: Tensor, size: Tensor, box_centre: Tensor, box_size: Tensor) -> Float[Tensor, "n a"]:
        end = torch.minimum((centre + size / 2)[image], box_centre + box_size / 2)
        start = torch.maximum((centre - size / 2)[image], box_centre - box_size / 2)
        return (end - start).clamp(min=0)

    intersection = overlap(x, width, box_x, box_width) * overlap(y, height, box_y, box_height)
    union = (width * height)[image] + box_width * box_height - intersection
    return (intersection / union).nan_to_num(0.0)


def ragged_ious(
    truth_xywh: Float64[ndarray, "n 4"],
    truth_start: Int[ndarray, " d"],
    truth_stop: Int[ndarray, " d"],
    xywh: Float64[ndarray, "d 4"],
) -> tuple[Float64[ndarray, " pairs"], Int[ndarray, " d_and_one"]]:
    """IoU of each prediction with the boxes truth_start..truth_stop-1 that it may match.

    Returns the IoUs one prediction after the other, and where each prediction's begin.
    """
    offsets = np.concatenate([[0], np.cumsum(truth_stop - truth_start)])
    return _ragged_ious(truth_xywh, truth_start, truth_stop, xywh, offsets), offsets


@compiled
def _ragged_ious(truth_xywh, truth_start, truth_stop, xywh, offsets):  # pragma: no cover (compiled)
    ious = np.zeros(offsets[-1])
    for row in range(len(xywh)):
        a = xywh[row]
        for column in range(truth_start[row], truth_stop[row]):
            b = truth_xywh[column]
            width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
            height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
            if width > 0 and height > 0:
                intersection = width * height
                union = a[2] * a[3] + b[2] * b[3] - intersection
                ious[offsets[row] + column - truth_start[row]] = intersection / union
    return ious
