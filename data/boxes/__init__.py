"""Boxes: their formats, what ranks them, what counts as small or large, and the records that files hold.

A format names the last axis of an array:

    xywh     left, top, width, height      files, labels of a sequence, evaluation
    cxcywh   centre x, centre y, width, height      the network's input and output, the loss
    xyxy     left, top, right, bottom      non-maximum suppression, detections

in pixels of the sensor or of the loaded frame. Conversions take numpy arrays and torch tensors alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy import ndarray

if TYPE_CHECKING:
    from torch import Tensor

    Array = TypeVar("Array", ndarray, Tensor)
else:
    Array = TypeVar("Array")

# The structured array of Prophesee's *_bbox.npy; t in us, x and y of the top-left corner, all in sensor pixels.
_FIELDS = [
    ("t", np.int64),
    ("x", np.float32),
    ("y", np.float32),
    ("w", np.float32),
    ("h", np.float32),
    ("class_id", np.uint32),
    ("track_id", np.uint32),
    ("class_confidence", np.float32),
]
BOX_DTYPE = np.dtype(_FIELDS, align=True)
PREDICTION_DTYPE = np.dtype([*_FIELDS, ("objectness", np.float32), ("class_probability", np.float32)], align=True)

SMALL_BELOW_PX2, LARGE_FROM_PX2 = 32**2, 96**2  # COCO's bounds of small, medium and large


def xywh_from_cxcywh(boxes: Array) -> Array:
    size: Any = boxes[..., 2:]
    return _joined(boxes[..., :2] - size / 2, size)


def xyxy_from_cxcywh(boxes: Array) -> Array:
    centre: Any = boxes[..., :2]
    half: Any = boxes[..., 2:] / 2
    return _joined(centre - half, centre + half)


def xywh_from_xyxy(boxes: Array) -> Array:
    corner: Any = boxes[..., :2]
    return _joined(corner, boxes[..., 2:] - corner)


def xyxy_from_xywh(boxes: Array) -> Array:
    corner: Any = boxes[..., :2]
    return _joined(corner, corner + boxes[..., 2:])


def cxcywh_from_xywh(boxes: Array) -> Array:
    size: Any = boxes[..., 2:]
    return _joined(boxes[..., :2] + size / 2, size)


def score(objectness: Array, class_confidence: Array, kind: str = "product") -> Array:
    """What ranks predictions: `product`, objectness * class confidence, or `class`, class confidence alone."""
    product: Any = objectness * class_confidence
    return product if kind == "product" else class_confidence


def _joined(first: Any, second: Any) -> Any:
    if isinstance(first, ndarray):
        return np.concatenate((first, second), axis=-1)
    import torch  # only here: reading recordings does without

    return torch.cat((first, second), dim=-1)
