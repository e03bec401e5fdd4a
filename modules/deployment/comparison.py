"""An exported file beside the network that it was made from, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor

from config.errors import UserError
from models.cells.cell import State
from models.detector import Detector
from models.inference import OneFrame
from models.postprocess import decode, postprocess
from modules.deployment.description import Description
from modules.deployment.onnx_network import Session
from modules.deployment.windows import FrameCounter, open_recording, reading_for, windows

MOST_SCORE, MOST_PX = 1e-4, 0.01  # that the two may differ by
_NUM_FRAMES = 20
_DENSITY = 0.02  # of non-zero cells

Frames = list[UInt8[ndarray, "c h w"]]


@dataclass
class Difference:
    """Largest over all frames and anchors; where suppression is inside, over all boxes that both find."""

    score: float = 0.0
    px: float = 0.0
    num_boxes: int = 0
    others: int = 0  # boxes that only one of the two finds

    def __str__(self) -> str:
        others = f", {self.others:,} boxes found by one of them only" if self.others else ""
        return f"scores within {self.score:.1e}, boxes within {self.px:.1e} px ({self.num_boxes:,} compared){others}"

    def add_anchors(
        self, ours: Float32[ndarray, "b a n"], theirs: Float32[ndarray, "b a n"], frame_hw: tuple[int, int]
    ) -> None:
        """Decoded predictions of all anchors. Of a box larger than the frame, which only anchors that see nothing give,
        pixels are those that it has when shrunk to the frame: an exponential of any size is rounded in proportion.
        """
        gap = np.abs(ours - theirs)
        larger = np.maximum(ours[..., 2:4].max(axis=-1, keepdims=True) / max(frame_hw), 1)
        self.px = _largest(self.px, gap[..., :4] / larger)
        self.score = _largest(self.score, gap[..., 4:])
        self.num_boxes += gap[..., 0].size

    def check(self, origin: Path) -> None:
        """Raises UserError where they differ by more than rounding."""
        if not (self.score <= MOST_SCORE and self.px <= MOST_PX) or self.others:
            raise UserError(
                f"{origin}: ONNX Runtime gives other boxes than PyTorch: {self}. At most {MOST_SCORE:g} and "
                f"{MOST_PX:g} px may be rounding, so no file was written"
            )


def random_frames(description: Description) -> Frames:
    rng = np.random.default_rng(0)
    shape = (description.channels, *description.frame_hw)
    events = rng.integers(1, 4, (_NUM_FRAMES, *shape), np.uint8)
    return list(events * (rng.random((_NUM_FRAMES, *shape), np.float32) < _DENSITY))


def frames_of(path: Path, description: Description) -> Frames:
    """The first windows of a recording. Raises UserError as `open_recording`."""
    count = FrameCounter(description)
    recording = open_recording(path, description, reading_for(path, description, None, None))
    found = windows(recording, description, 1000 / description.window_ms)
    return [count(window.events).copy() for window in islice(found, _NUM_FRAMES)]


@torch.inference_mode()
def compare(path: Path, detector: Detector, description: Description, frames: Frames) -> Difference:
    """Run both over the same frames; each lane of the file starts one frame later than the one before."""
    session = Session(path)
    lanes = session.lanes or 2
    network = _Plain(detector) if description.reset_every is None else _Frozen(detector, description, lanes)
    theirs = session.first_state(lanes)
    difference = Difference()
    for number in range(len(frames)):
        batch = np.stack([frames[max(number - lane, 0)] for lane in range(lanes)])
        predictions = network(torch.from_numpy(batch))
        output, theirs = session.run(batch, theirs)
        if not session.has_nms:
            difference.add_anchors(predictions.numpy(), output, description.frame_hw)
            continue
        own = postprocess(predictions, description.confidence_threshold, description.nms_threshold)
        for lane, found in enumerate(own):
            _compare_boxes(difference, found.numpy(), output[output[:, 0] == lane, 1:])
    return difference


class _Plain:
    """The detector as validation runs it."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._state: list[State] | None = None

    def __call__(self, frames: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b a n"]:
        features, self._state = self._detector.encode(frames[None], self._state)
        return decode(self._detector.predict(self._detector.select(features, torch.arange(len(frames)))))


class _Frozen:
    """For cells that the detector resets in every call."""

    def __init__(self, detector: Detector, description: Description, lanes: int) -> None:
        self._network = OneFrame(detector, description.frame_hw)
        self._state = self._network.first_state(lanes)

    def __call__(self, frames: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b a n"]:
        predictions, self._state = self._network(frames, *self._state)
        return predictions


def _largest(before: float, gaps: ndarray) -> float:
    """NaN where one is."""
    return float(np.maximum(before, gaps.max()))


def _compare_boxes(difference: Difference, ours: Float32[ndarray, "n 7"], theirs: Float32[ndarray, "m 7"]) -> None:
    """Each of our boxes with the nearest of theirs of its class: equal scores may stand in any order."""
    pairs = min(len(ours), len(theirs))
    difference.others += max(len(ours), len(theirs)) - pairs
    difference.num_boxes += pairs
    for row in ours if pairs else []:
        gaps = np.abs(theirs - row)
        nearest = gaps[np.where(gaps[:, 6] == 0, gaps[:, :4].max(axis=1), np.inf).argmin()]
        difference.px = _largest(difference.px, nearest[:4])
        difference.score = _largest(difference.score, nearest[4:])  # 1 or more for another class
