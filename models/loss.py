"""Detection losses of YOLOX on the anchors that SimOTA assigned."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from config.errors import UserError
from config.schema import LossConfig, LossWeightsConfig
from data.boxes.overlap import paired_iou
from models.anchors import HeadOutput, decode_boxes, make_anchors
from models.assignment import assign_anchors, usable_boxes
from models.parts import build_own, explained, is_own


@runtime_checkable
class Loss(Protocol):
    """From a head's output to losses. `names` lists the keys of what it returns, `loss` among them."""

    @property
    def names(self) -> tuple[str, ...]: ...

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


KEY = "model.loss.name"
LOSSES = {"yolox": YoloxLoss}


def build_loss(config: LossConfig, num_classes: int) -> Loss:
    """The loss of `model.loss.name`; or a user's own, `Name(num_classes, options)`.

    Raises:
        UserError: a user's own loss cannot be imported, or does not keep the contract of `Loss`.
    """
    if is_own(config.name):
        loss = build_own(config.name, KEY, config.options, num_classes)
        _check_contract(loss, num_classes, config.name)
        return loss
    return LOSSES[config.name](config)


def _check_contract(loss: Loss, num_classes: int, name: str) -> None:
    """Show a new loss two small images, with boxes and without, and look at what comes out."""
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            for boxes in (torch.tensor([[0.0, 12, 10, 14, 12], [num_classes - 1, 20, 12, 8, 8]]), torch.empty(0, 5)):
                _try_out(loss, boxes, num_classes)
    except Exception as error:
        raise UserError(
            f"{KEY}={name}: does not do what a loss does: {explained(error)}. It takes a HeadOutput, boxes [n, 5] and "
            "the image of each [n], and gives a number by each of its names, loss among them"
        ) from error


def _try_out(loss: Loss, boxes: Float[Tensor, "n 5"], num_classes: int) -> None:
    anchors = make_anchors([(3, 4), (2, 2)], (8, 16), boxes.device)
    values = [torch.randn(2, 16, size, requires_grad=True) for size in (4, 1, num_classes)]
    output = HeadOutput(values[0], values[1].squeeze(2), values[2], anchors)
    names = getattr(loss, "names", None)
    if not isinstance(names, tuple) or "loss" not in names:
        raise TypeError(f"its names are {names!r}, not a tuple with 'loss' in it")
    losses = loss(output, boxes, torch.zeros(len(boxes), dtype=torch.int64))
    if not isinstance(losses, dict) or set(losses) != set(names):
        raise ValueError(f"it gives {list(losses) if isinstance(losses, dict) else losses!r}, but names {names}")
    wrong = [key for key, value in losses.items() if not isinstance(value, Tensor) or value.shape != ()]
    if wrong:
        raise TypeError(f"{wrong[0]} is no tensor of one number")
    case = f"for {len(boxes)} boxes in two images"
    if not losses["loss"].isfinite():
        raise ValueError(f"loss is {losses['loss'].item()} {case}")
    if not losses["loss"].requires_grad:
        raise ValueError(f"loss has no gradient {case}")
    losses["loss"].backward()
    if not all(value.grad is None or value.grad.isfinite().all() for value in values):
        raise ValueError(f"its gradient is not finite {case}")


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
        "loss": losses["iou_loss"] + losses["conf_loss"] + losses["cls_loss"],
        **losses,
        "l1_loss": torch.zeros_like(conf_loss),
        "num_fg": foreground.sum() / num_usable,
    }
