"""The one object that crosses from data to model."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class SequenceBatch:
    """One step of truncated back-propagation through time: L frames of B lanes, K of the L*B frames labelled.

    Index tensors are made on the host by the loader, so that selecting frames never waits for the device.
    """

    frames: UInt8[Tensor, "l b c h w"]  # stacked histograms, not padded
    boxes: Float32[Tensor, "n 5"]  # class, cx, cy, w, h in pixels of the frame, of all labelled frames, in order
    box_image: Int64[Tensor, " n"]  # position in labelled_frames that a box belongs to
    labelled_frames: Int64[Tensor, " k"]  # l * B + b of the annotated frames, ascending; one without boxes counts too
    is_first: Bool[Tensor, " b"]  # a sequence starts here: drop the lane's hidden state
    lane: Int64[Tensor, " b"]  # hidden-state row of each batch row; in evaluation lanes that ran out are missing
    # Addresses, for evaluation and for reports of damaged batches.
    sequence: Int64[Tensor, " b"]  # index in the data set's list of sequences
    first_frame: Int64[Tensor, " b"]  # frame index of row l = 0
    t_us: Int64[Tensor, "l b"]  # end of each frame's window; -1 where the chunk is padded past the sequence's end

    @property
    def num_lanes(self) -> int:
        return self.frames.shape[1]
