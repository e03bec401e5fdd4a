"""What the detection loss is put together from, each a formula by itself: box losses, focal terms, weights.

Constants go through `masked_fill`: `torch.where` would copy them to a GPU, and wait.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from config.schema import ClassWeightConfig, FocalConfig, SizeWeightConfig
from data.boxes.overlap import paired_overlap

EPS = 1e-7
LEAST_SIDE_PX = 1e-3  # of a predicted box whose aspect is compared: the aspect of a point has no gradient


def box_losses(
    kind: str, predicted: Float[Tensor, "*n 4"], target: Float[Tensor, "*n 4"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """The loss of each box (centre x, centre y, width, height) against its target, and their IoU.

    `iou` is 1 - IoU^2 (RVT, YOLOX), `giou` 1 - GIoU (arXiv:1902.09630), `ciou` 1 - CIoU (arXiv:1911.08287).
    """
    intersection, union = paired_overlap(predicted, target)
    iou = intersection / (union + 1e-16)
    if kind == "iou":
        return 1 - iou.square(), iou
    (centre, size), (target_centre, target_size) = (boxes.split(2, dim=-1) for boxes in (predicted, target))
    end = torch.maximum(centre + size / 2, target_centre + target_size / 2)
    start = torch.minimum(centre - size / 2, target_centre - target_size / 2)
    enclosing = end - start  # width and height of the smallest box around both
    if kind == "giou":
        area = enclosing.prod(dim=-1)
        return 1 - iou + (area - union) / (area + EPS), iou
    assert kind == "ciou", kind
    distance = (centre - target_centre).square().sum(dim=-1) / (enclosing.square().sum(dim=-1) + EPS)
    angles = _aspect_angle(target_size) - _aspect_angle(size.clamp(min=LEAST_SIDE_PX))
    aspect = 4 / math.pi**2 * angles.square()
    with torch.no_grad():
        share = aspect / (1 - iou + aspect + EPS)
    return 1 - iou + distance + share * aspect, iou


def _aspect_angle(size: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    width, height = size.unbind(dim=-1)
    return torch.atan2(width, height)


def cross_entropy(
    logits: Float[Tensor, "*n"],
    target: Float[Tensor, "*n"],
    positive: Bool[Tensor, "*n"],
    focal: FocalConfig,
    part: str,
) -> Float[Tensor, "*n"]:
    """Binary cross entropy against targets in 0..1, with the focal terms where `part` is to have them.

    The factor is |target - p|^gamma, which for targets 0 and 1 is the paper's (1 - p_t)^gamma (and for those between
    that of arXiv:2006.04388), times alpha for positives and 1 - alpha for the others.
    """
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if part not in focal.parts:
        return loss
    if focal.gamma:
        loss = loss * (target - logits.sigmoid()).abs().pow(focal.gamma)
    if focal.alpha is not None:
        loss = loss * torch.full_like(loss, 1 - focal.alpha).masked_fill(positive, focal.alpha)
    return loss


def size_weights(area: Float[Tensor, "*n"], config: SizeWeightConfig) -> Float[Tensor, "*n"]:
    """Weight of boxes of `area` pixels, from `config.weight` for the smallest down to 1."""
    most = config.weight
    if config.kind == "exponential":
        return (most * (-area / config.small_area).exp()).clamp(1, most)
    if config.kind == "step":
        small, medium = area <= config.small_area, area <= config.medium_area
        return torch.ones_like(area).masked_fill(medium, (most + 1) / 2).masked_fill(small, most)
    assert config.kind == "linear", config.kind
    return (most * (1 - (area / config.medium_area).clamp(max=1)) + 1).clamp(1, most)


def class_weights(counts: Int[ndarray, " classes"], config: ClassWeightConfig) -> Float[Tensor, " classes"]:
    """Weight of each class from the boxes that the training set has of it; their mean over those boxes is 1.

    `inverse_frequency`: the same total weight for each class, N / (C n) for n of N boxes and C classes that have boxes.
    `effective_number`: proportional to (1 - beta) / (1 - beta^n). A class without a box has the weight 1, which nothing
    ever gets.
    """
    n = counts.astype(np.float64)
    seen = n > 0
    weights = np.ones(len(n))
    if config.kind == "inverse_frequency":
        weights[seen] = 1 / n[seen]
    else:
        weights[seen] = (1 - config.beta) / -np.expm1(n[seen] * math.log(config.beta))
    weights[seen] *= n[seen].sum() / (weights[seen] * n[seen]).sum()
    return torch.from_numpy(weights).float()
