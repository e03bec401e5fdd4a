"""From the head's predictions to detections: decoding, confidence threshold, non-maximum suppression."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import batched_nms

from data.boxes import score, xyxy_from_cxcywh
from data.boxes.suppression import suppress_many
from models.anchors import HeadOutput, decode_boxes

MANY_CANDIDATES = 4_000  # of an image; from here on torchvision's quadratic time shows on a CPU


def decode(predictions: HeadOutput) -> Float[Tensor, "k a five_and_classes"]:
    """Centre x, centre y, width, height in pixels, objectness, class probabilities."""
    return torch.cat(
        (
            decode_boxes(predictions.box_offsets, predictions.anchors),
            predictions.objectness_logits.sigmoid()[..., None],
            predictions.class_logits.sigmoid(),
        ),
        dim=2,
    )


def postprocess(
    decoded: Float[Tensor, "k a five_and_classes"], confidence_threshold: float, nms_threshold: float
) -> list[Float[Tensor, "_ 7"]]:
    """Detections of each image, best score first: x1, y1, x2, y2, objectness, class confidence, class id.

    The score is objectness * confidence of the best class. It must reach `confidence_threshold`; of boxes of one class
    that overlap by more than `nms_threshold` only the best stays. Boxes that are not finite are dropped.
    """
    # Thresholds and NMS need float32: half precision rounds pixels, and NMS refuses it on a CPU.
    cxcywh, objectness, classes = decoded.float().split((4, 1, decoded.shape[2] - 5), dim=2)
    confidence, class_id = classes.max(dim=2, keepdim=True)
    rows = torch.cat((xyxy_from_cxcywh(cxcywh), objectness, confidence, class_id.float()), dim=2)
    # NaN fails every comparison. Left in, it would win each NMS.
    keep = (score(objectness, confidence) >= confidence_threshold).squeeze(2) & rows.isfinite().all(dim=2)
    candidates = rows[keep].split(keep.sum(dim=1).tolist())
    return [_suppress(image, nms_threshold) for image in candidates]


def _suppress(rows: Float[Tensor, "m 7"], nms_threshold: float) -> Float[Tensor, "m_kept 7"]:
    boxes, ranking, class_id = rows[:, :4], score(rows[:, 4], rows[:, 5]), rows[:, 6]
    if len(rows) > MANY_CANDIDATES and rows.device.type == "cpu":
        kept = suppress_many(boxes.numpy(), ranking.numpy(), class_id.numpy(), nms_threshold)
        return rows[torch.from_numpy(kept)]
    return rows[batched_nms(boxes, ranking, class_id, nms_threshold)]
