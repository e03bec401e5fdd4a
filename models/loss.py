"""Detection losses of YOLOX on the anchors that SimOTA assigned."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from config.schema import LossConfig, LossWeightsConfig
from data.boxes.overlap import paired_iou
from models.anchors import HeadOutput, decode_boxes
from models.assignment import assign_anchors, usable_boxes


class Loss(Protocol):
    """From a head's output to losses. `names` lists the keys of what it returns, `loss` among them."""

    names: tuple[str, ...]

    def __call__(
        self, output: HeadOutput, boxes: Float[Tensor, "n 5"], box_image: Int64[Tensor, " n"]
    ) -> dict[str, Float[Tensor, ""]]: ...


class YoloxLoss:
    """Losses over K images, each divided by the number of foreground anchors that SimOTA finds.

    `iou_loss` is 1 - IoU^2, `conf_loss` the cross entropy of objectness, `cls_loss` that of the class against its
    one-hot vector times the IoU, each times its weight; `l1_loss` is always 0, and `num_fg` tells foreground anchors
    per box. All in float32. Shapes do not depend on how many anchors are foreground: nothing here waits for the device.
    """

    names = ("loss", "iou_loss", "conf_loss", "cls_loss", "l1_loss", "num_fg")

    def __init__(self, config: LossConfig) -> None:
        self._weights = config.weights

    def __call__(
        self, output: HeadOutput, boxes: Float[Tensor, "n 5"], box_image: Int64[Tensor, " n"]
    ) -> dict[str, Float[Tensor, ""]]:
        return assigned_losses(output, boxes, assign_anchors(output, boxes, box_image), self._weights)


LOSSES = {"yolox": YoloxLoss}


def build_loss(config: LossConfig) -> Loss:
    """The loss of `model.loss.name`."""
    return LOSSES[config.name](config)


def assigned_losses(
    predictions: HeadOutput, boxes: Float[Tensor, "n 5"], assigned: Int64[Tensor, "k a"], weights: LossWeightsConfig
) -> dict[str, Float[Tensor, ""]]:
    """As `YoloxLoss`, with the box of every anchor given: its index, n for background."""
    num_boxes, num_classes = boxes.shape[0], predictions.class_logits.shape[2]
    foreground = assigned < num_boxes
    matched = torch.cat((boxes, boxes.new_zeros(1, 5)))[assigned]  # [k, a, 5]
    num_foreground = foreground.sum().clamp(min=1)

    # Background is cut off before exp(): an overflow there would turn its zero gradient into NaN.
    offsets = predictions.box_offsets.masked_fill(~foreground[..., None], 0.0)
    iou = paired_iou(decode_boxes(offsets, predictions.anchors), matched[..., 1:])
    iou_loss = (1 - iou.square()) * foreground

    conf_loss = F.binary_cross_entropy_with_logits(
        predictions.objectness_logits, foreground.to(predictions.objectness_logits.dtype), reduction="sum"
    )
    class_ids = torch.arange(num_classes, device=boxes.device)
    one_hot = matched[..., :1] == class_ids
    class_target = one_hot * iou.detach()[..., None]
    cls_loss = F.binary_cross_entropy_with_logits(predictions.class_logits, class_target, reduction="none")
    cls_loss = cls_loss * foreground[..., None]

    losses = {
        "iou_loss": weights.iou * iou_loss.sum() / num_foreground,
        "conf_loss": weights.objectness * conf_loss / num_foreground,
        "cls_loss": weights.classification * cls_loss.sum() / num_foreground,
    }
    num_usable = usable_boxes(boxes, num_classes).sum().clamp(min=1)
    return {
        "loss": sum(losses.values()),
        **losses,
        "l1_loss": torch.zeros_like(conf_loss),
        "num_fg": foreground.sum() / num_usable,
    }
