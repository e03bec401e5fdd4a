"""The one object that crosses from data to model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

_ON_DEVICE = ("frames", "boxes", "box_image", "labelled_frames", "is_first", "lane")


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
    # Addresses, for evaluation and for reports of damaged batches; they stay on the host.
    sequence_names: tuple[str, ...]  # folder name of each row's sequence
    first_frame: Int64[Tensor, " b"]  # frame index of row l = 0
    t_us: Int64[Tensor, "l b"]  # end of each frame's window; -1 where the chunk is padded past the sequence's end
    faults: tuple[str, ...] = ()  # damage met while reading: file, place and what was done

    @property
    def num_lanes(self) -> int:
        return self.frames.shape[1]

    def to(self, device: torch.device, **_: Any) -> SequenceBatch:
        """Move what the network reads; Lightning calls this. From pinned memory the copy does not block."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in _ON_DEVICE}
        return replace(self, **moved)

    def pin_memory(self) -> SequenceBatch:
        """Called by the DataLoader when pin_memory is on."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in _ON_DEVICE})

    def addresses(self) -> list[str]:
        """Name each row as sequence[first:stop], for a person who looks for what went wrong."""
        length = self.frames.shape[0]
        return [
            f"{name}[{first}:{first + length}]"
            for name, first in zip(self.sequence_names, self.first_frame.tolist(), strict=True)
        ]
