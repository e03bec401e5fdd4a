"""SimOTA (YOLOX, section 2.1): which anchors answer for which box, for a whole batch at once.

Everything works on the flat list of the batch's n boxes against the anchors of each box's image. On a GPU shapes depend
on n and the number of anchors A only, so that nothing waits for the device; memory grows with n * A, about 25 bytes for
each: 0.13 MB a box for the 5,040 anchors of 384 x 640. On a CPU, and on a GPU where that would take gigabytes, only the
candidates' columns are looked at: at most 9 anchors of each level and box.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from data.boxes.overlap import iou_with_own_image
from models.anchors import HeadOutput, decode_boxes

CENTRE_RADIUS = 1.5  # strides
IOU_WEIGHT = 3.0
OUTSIDE_COST = 1e6
MAX_ANCHORS_PER_BOX = 10
MANY_PAIRS = 2**26  # of a box and an anchor: 1.7 GB
LOG_FLOOR = -100.0  # torch's own floor in binary cross entropy


@torch.no_grad()
def assign_anchors(
    predictions: HeadOutput, boxes: Float[Tensor, "n 5"], box_image: Int64[Tensor, " n"]
) -> Int64[Tensor, "k a"]:
    """For every anchor the index of its box, n for background.

    Args:
        boxes: class, centre x, centre y, width, height in pixels.
        box_image: image that each box belongs to, 0 <= box_image < k.

    A box takes its k cheapest anchors among its image's candidates, k being the sum of its ten best IoUs, at least 1.
    An anchor that two boxes take goes to the cheapest box of the image. Candidates are anchors whose centre lies within
    1.5 strides of some box's centre; anchors that are so for another box only cost 1e6 more.

    Boxes that cannot be learned take nothing (see `usable_boxes`), and neither does a box outside the frame in an
    image without any candidate.
    """
    num_images = predictions.box_offsets.shape[0]
    usable = usable_boxes(boxes, predictions.class_logits.shape[2])
    near = _is_near_centre(predictions, boxes) & usable[:, None]
    in_image = _any_in_image(near, box_image, num_images)
    columns = _Columns.of_all(in_image) if _fits_whole(near) else _Columns.of(in_image)
    pairs = _Pairs(
        decoded=columns.take(decode_boxes(predictions.box_offsets, predictions.anchors)),
        class_logits=columns.take(predictions.class_logits),
        objectness_logits=columns.take(predictions.objectness_logits),
        near=near if columns.index is None else near.gather(1, columns.index[box_image]) & columns.filled[box_image],
        candidate=columns.filled[box_image] & usable[:, None],
    )
    return columns.spread(_assign(pairs, boxes, box_image, usable), background=len(boxes))


@dataclass(frozen=True)
class _Columns:
    """The anchors of each image that are looked at. `index` is None for all of them."""

    index: Int64[Tensor, "k m"] | None  # ascending; filled up with anchor 0
    filled: Bool[Tensor, "k m"]  # candidates
    num_anchors: int

    @classmethod
    def of_all(cls, in_image: Bool[Tensor, "k a"]) -> _Columns:
        return cls(None, in_image, in_image.shape[1])

    @classmethod
    def of(cls, in_image: Bool[Tensor, "k a"]) -> _Columns:
        """Those of the candidates; asking how many there are waits for the device."""
        count = in_image.sum(dim=1)
        most = min(max([MAX_ANCHORS_PER_BOX, *count.tolist()]), in_image.shape[1])
        filled = torch.arange(most, device=in_image.device) < count[:, None]
        index = torch.zeros_like(filled, dtype=torch.int64)
        index[filled] = in_image.nonzero()[:, 1]  # image by image, ascending
        return cls(index, filled, in_image.shape[1])

    def take(self, values: Float[Tensor, "k a *rest"]) -> Float[Tensor, "k m *rest"]:
        if self.index is None:
            return values
        rows = torch.arange(len(values), device=values.device)[:, None]
        return values[rows, self.index]

    def spread(self, assigned: Int64[Tensor, "k m"], background: int) -> Int64[Tensor, "k a"]:
        if self.index is None:
            return assigned
        result = assigned.new_full((len(assigned), self.num_anchors), background)
        image = torch.arange(len(assigned), device=assigned.device)[:, None].expand_as(self.index)
        result[image[self.filled], self.index[self.filled]] = assigned[self.filled]
        return result


@dataclass(frozen=True)
class _Pairs:
    """What the head says of the anchors that are looked at, and how each box lies to those of its image."""

    decoded: Float[Tensor, "k m 4"]  # centre x, centre y, width, height
    class_logits: Float[Tensor, "k m classes"]
    objectness_logits: Float[Tensor, "k m"]
    near: Bool[Tensor, "n m"]  # within 1.5 strides of the box's own centre
    candidate: Bool[Tensor, "n m"]  # of that of some box of the image


def _fits_whole(near: Shaped[Tensor, "n a"]) -> bool:
    return near.device.type != "cpu" and near.numel() <= MANY_PAIRS


def _assign(
    pairs: _Pairs, boxes: Float[Tensor, "n 5"], box_image: Int64[Tensor, " n"], usable: Bool[Tensor, " n"]
) -> Int64[Tensor, "k m"]:
    num_images = len(pairs.decoded)
    iou = iou_with_own_image(boxes[:, 1:], box_image, pairs.decoded)
    cost = _class_cost(pairs, boxes, box_image) - IOU_WEIGHT * (iou + 1e-8).log() + OUTSIDE_COST * ~pairs.near
    takes = _cheapest(cost, iou, pairs.candidate)

    num_takers = takes.new_zeros((num_images, takes.shape[1]), dtype=torch.int32)
    num_takers.index_add_(0, box_image, takes.int())
    in_question = torch.where((num_takers > 1)[box_image], usable[:, None], takes)
    return _cheapest_box(cost.masked_fill(~in_question, torch.inf), box_image, num_images)


def usable_boxes(boxes: Float[Tensor, "n 5"], num_classes: int) -> Bool[Tensor, " n"]:
    """Boxes with finite numbers, an area, and a class that the model knows; others are left out of the loss."""
    class_id = boxes[:, 0]
    known = (class_id >= 0) & (class_id < num_classes)
    return known & boxes.isfinite().all(dim=1) & (boxes[:, 3:] > 0).all(dim=1)


def _is_near_centre(predictions: HeadOutput, boxes: Float[Tensor, "n 5"]) -> Bool[Tensor, "n a"]:
    x, y = predictions.anchors.centre_xy.unbind(dim=1)
    radius = CENTRE_RADIUS * predictions.anchors.stride
    return ((x - boxes[:, 1:2]).abs() < radius) & ((y - boxes[:, 2:3]).abs() < radius)


def _any_in_image(mask: Bool[Tensor, "n a"], box_image: Int64[Tensor, " n"], num_images: int) -> Bool[Tensor, "k a"]:
    count = mask.new_zeros((num_images, mask.shape[1]), dtype=torch.int32)
    return count.index_add_(0, box_image, mask.int()) > 0


def _class_cost(pairs: _Pairs, boxes: Float[Tensor, "n 5"], box_image: Int64[Tensor, " n"]) -> Float[Tensor, "n m"]:
    """Binary cross entropy of sqrt(class * objectness) against the box's class, summed over classes.

    All classes but one have target 0: their sum is one number per anchor, so no [n, a, classes] is ever made.
    """
    probability = (pairs.class_logits.sigmoid() * pairs.objectness_logits.sigmoid()[..., None]).sqrt()
    as_target = -probability.log().clamp(min=LOG_FLOOR)  # [k, a, classes]
    as_other = -(1 - probability).log().clamp(min=LOG_FLOOR)
    class_id = boxes[:, 0].nan_to_num(0.0).clamp(0, probability.shape[2] - 1).long()
    difference = (as_target - as_other).transpose(1, 2)[box_image, class_id]
    return as_other.sum(dim=2)[box_image] + difference


def _cheapest(
    cost: Float[Tensor, "n a"], iou: Float[Tensor, "n a"], candidate: Bool[Tensor, "n a"]
) -> Bool[Tensor, "n a"]:
    """The anchors that each box takes: its k cheapest candidates, k = sum of its ten best IoUs, at least 1."""
    most = min(MAX_ANCHORS_PER_BOX, cost.shape[1])
    best_ious = iou.masked_fill(~candidate, 0.0).topk(most, dim=1).values
    num_anchors = best_ious.sum(dim=1).int().clamp(min=1)
    anchor = cost.masked_fill(~candidate, torch.inf).topk(most, dim=1, largest=False).indices
    within = torch.arange(most, device=cost.device) < num_anchors[:, None]
    return torch.zeros_like(candidate).scatter_(1, anchor, within) & candidate


def _cheapest_box(cost: Float[Tensor, "n a"], box_image: Int64[Tensor, " n"], num_images: int) -> Int64[Tensor, "k a"]:
    """Per image and anchor the box of least finite cost, the first one of equals; n where there is none."""
    num_boxes, num_anchors = cost.shape
    image = box_image[:, None].expand_as(cost)
    least = cost.new_full((num_images, num_anchors), torch.inf).scatter_reduce_(0, image, cost, "amin")
    is_least = (cost == least[box_image]) & cost.isfinite()
    number = torch.arange(num_boxes, device=cost.device)[:, None]
    winner = number.new_full((num_images, num_anchors), num_boxes)
    return winner.scatter_reduce_(0, image, torch.where(is_least, number, num_boxes), "amin")
