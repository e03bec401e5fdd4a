"""Detection losses of YOLOX on the anchors that SimOTA assigned."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Int64
from numpy import ndarray
from torch import Tensor, nn

from config.errors import UserError
from config.schema import LossConfig
from models.anchors import HeadOutput, decode_boxes, make_anchors
from models.assignment import assign_anchors, usable_boxes
from models.loss_terms import box_losses, class_weights, cross_entropy, size_weights
from models.parts import build_own, explained, is_own


@runtime_checkable
class Loss(Protocol):
    """From a head's output to losses. `names` lists the keys of what it returns, `loss` among them."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(
        self, output: HeadOutput, boxes: Float[Tensor, "n 5"], box_image: Int64[Tensor, " n"]
    ) -> dict[str, Float[Tensor, ""]]: ...


class YoloxLoss(nn.Module):
    """Losses over K images, each divided by the number of foreground anchors that SimOTA finds.

    `iou_loss` measures the boxes (1 - IoU^2 by default), `conf_loss` is the cross entropy of objectness, `cls_loss`
    that of the class against its one-hot vector times the IoU, each times its weight; `l1_loss` is always 0, and
    `num_fg` tells foreground anchors per box. All in float32. `model.loss` may weigh foreground anchors by the size and
    the class of their box: docs/losses.md.

    Shapes do not depend on how many anchors are foreground: nothing here waits for the device.
    """

    names = ("loss", "iou_loss", "conf_loss", "cls_loss", "l1_loss", "num_fg")

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self._config = config
        self.class_weight: Float[Tensor, " classes"] | None
        self.register_buffer("class_weight", None, persistent=False)  # of the training data, no part of a checkpoint

    def weigh_classes(self, counts: Int[ndarray, " classes"]) -> Float[Tensor, " classes"]:
        """Set and return the weights of classes of which the training set has so many boxes."""
        self.class_weight = class_weights(counts, self._config.class_weight)
        return self.class_weight

    def forward(
        self, output: HeadOutput, boxes: Float[Tensor, "n 5"], box_image: Int64[Tensor, " n"]
    ) -> dict[str, Float[Tensor, ""]]:
        assigned = assign_anchors(output, boxes, box_image)
        return assigned_losses(output, boxes, assigned, self._config, self.class_weight)


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
    predictions: HeadOutput,
    boxes: Float[Tensor, "n 5"],
    assigned: Int64[Tensor, "k a"],
    config: LossConfig,
    class_weight: Float[Tensor, " classes"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """As `YoloxLoss`, with the box of every anchor given: its index, n for background."""
    num_boxes, num_classes = boxes.shape[0], predictions.class_logits.shape[2]
    foreground = assigned < num_boxes
    matched = torch.cat((boxes, boxes.new_zeros(1, 5)))[assigned]  # [k, a, 5]
    num_foreground = foreground.sum().clamp(min=1)
    weights = _AnchorWeights(config, matched, foreground, class_weight)

    # Background is cut off before exp(): an overflow there would turn its zero gradient into NaN.
    offsets = predictions.box_offsets.masked_fill(~foreground[..., None], 0.0)
    box_loss, iou = box_losses(config.iou_kind, decode_boxes(offsets, predictions.anchors), matched[..., 1:])
    iou_loss = weights.applied("iou", box_loss * foreground)

    is_object = foreground.to(predictions.objectness_logits.dtype)
    conf_loss = cross_entropy(predictions.objectness_logits, is_object, foreground, config.focal, "objectness")
    conf_loss = weights.applied("objectness", conf_loss).sum()
    class_ids = torch.arange(num_classes, device=boxes.device)
    one_hot = matched[..., :1] == class_ids
    class_target = one_hot * iou.detach()[..., None]
    cls_loss = cross_entropy(predictions.class_logits, class_target, one_hot, config.focal, "class")
    cls_loss = weights.applied("class", cls_loss * foreground[..., None])

    losses = {
        "iou_loss": config.weights.iou * iou_loss.sum() / num_foreground,
        "conf_loss": config.weights.objectness * conf_loss / num_foreground,
        "cls_loss": config.weights.classification * cls_loss.sum() / num_foreground,
    }
    num_usable = usable_boxes(boxes, num_classes).sum().clamp(min=1)
    return {
        "loss": losses["iou_loss"] + losses["conf_loss"] + losses["cls_loss"],
        **losses,
        "l1_loss": torch.zeros_like(conf_loss),
        "num_fg": foreground.sum() / num_usable,
    }


class _AnchorWeights:
    """Weights of foreground anchors in the parts of the loss that are to have them; background has 1."""

    def __init__(
        self,
        config: LossConfig,
        matched: Float[Tensor, "k a 5"],
        foreground: Bool[Tensor, "k a"],
        class_weight: Float[Tensor, " classes"] | None,
    ) -> None:
        self._by_parts: list[tuple[tuple[str, ...], Float[Tensor, "k a"]]] = []
        if config.size_weight.kind is not None:
            weight = size_weights(matched[..., 3] * matched[..., 4], config.size_weight)
            if config.size_weight.normalise:
                weight = weight * foreground.sum() / (weight * foreground).sum().clamp(min=1)
            self._by_parts.append((config.size_weight.parts, weight.masked_fill(~foreground, 1.0)))
        if config.class_weight.kind is not None:
            assert class_weight is not None, "the training labels have not been counted"
            weight = class_weight[matched[..., 0].long()]
            self._by_parts.append((config.class_weight.parts, weight.masked_fill(~foreground, 1.0)))

    def applied(self, part: str, loss: Float[Tensor, "k a *classes"]) -> Float[Tensor, "k a *classes"]:
        for parts, weight in self._by_parts:
            if part in parts:
                loss = loss * (weight if loss.ndim == weight.ndim else weight[..., None])
        return loss
