"""A network that finds boxes in one frame after another: what scripts/detect.py asks of it, whatever runs it."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from data.boxes import score, xyxy_from_cxcywh
from data.boxes.suppression import suppress_many
from modules.deployment.description import Description

Precision = Literal["32", "bf16", "auto"]  # of a checkpoint's network: see `torch_network.dtype_of`
Found = Float32[ndarray, "m 7"]
"""Left, top, right, bottom in pixels of the frame, objectness, class confidence, class id; best score first."""


class Network(Protocol):
    description: Description

    def __call__(self, frame: UInt8[ndarray, "c h w"]) -> tuple[Found, tuple[float, float, float]]:
        """The boxes of the next frame of the stream, and the seconds of copying, network and NMS."""
        ...

    def reset(self) -> None:
        """The next frame is the first of a stream."""
        ...


def warm_up(network: Network) -> None:
    """Compile, load and allocate what the first frame would wait for, seconds perhaps."""
    description = network.description
    network(np.zeros((description.channels, *description.frame_hw), np.uint8))
    postprocess(np.full((1, 5 + len(description.classes)), 0.5, np.float32), 0.0, 0.5)
    network.reset()


def postprocess(
    decoded: Float32[ndarray, "a five_and_classes"], confidence_threshold: float, nms_threshold: float
) -> Found:
    """As `models.postprocess.postprocess`, for one image and without torch."""
    classes = decoded[:, 5:]
    class_id = classes.argmax(axis=1)
    confidence = np.take_along_axis(classes, class_id[:, None], axis=1)[:, 0]
    # NaN fails the comparison
    keep = (score(decoded[:, 4], confidence) >= confidence_threshold) & np.isfinite(decoded).all(axis=1)
    parts = (xyxy_from_cxcywh(decoded[keep, :4]), decoded[keep, 4:5], confidence[keep, None], class_id[keep, None])
    rows = np.concatenate(parts, axis=1).astype(np.float32)
    return rows[suppress_many(rows[:, :4], score(rows[:, 4], rows[:, 5]), rows[:, 6], nms_threshold)]
