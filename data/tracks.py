"""Labelled objects followed from frame to frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from data.labels import Labels

LONGEST_GAP = 10  # frames without a label that a track is followed across


@dataclass(frozen=True)
class Track:
    """One object, labelled at two frames or more, which have no longer gap than `LONGEST_GAP`."""

    class_id: int
    frames: Int64[ndarray, " n"]  # ascending
    boxes: Float32[ndarray, "n 4"]  # x, y, w, h in pixels of the loaded frame

    @property
    def first(self) -> int:
        return int(self.frames[0])

    @property
    def last(self) -> int:
        return int(self.frames[-1])

    @cached_property  # asked for whenever an object of its class is drawn
    def mean_area(self) -> float:
        return float(self.boxes[:, 2:].prod(axis=1).mean())

    def box_at(self, frame: int) -> Float32[ndarray, "4"] | None:
        """x, y, w, h at a frame, on a straight line between those that are labelled; None before and after."""
        if not self.first <= frame <= self.last:
            return None
        return np.array([np.interp(frame, self.frames, column) for column in self.boxes.T], np.float32)


def tracks_of(labels: Labels) -> Iterator[Track]:
    """The tracks of a whole sequence. One ends where its labels have a long gap, its class changes or its box jumps.

    An id that two boxes of one frame share (as in sets whose boxes all have the same) is none.
    """
    if labels.track_id is None:
        return
    order = np.lexsort((labels.box_image, labels.track_id))
    track_id, frame, boxes = labels.track_id[order], labels.frames[labels.box_image[order]], labels.boxes[order]
    goes_on = (np.diff(track_id) == 0) & (np.diff(boxes[:, 0]) == 0) & _touch(boxes[:-1], boxes[1:])
    goes_on &= np.diff(frame) <= LONGEST_GAP
    shared = np.unique(track_id[1:][(np.diff(track_id) == 0) & (np.diff(frame) == 0)])
    for part in np.split(np.arange(len(order)), np.flatnonzero(~goes_on) + 1):
        if len(part) > 1 and track_id[part[0]] not in shared:
            yield Track(int(boxes[part[0], 0]), frame[part], boxes[part, 1:])


def _touch(one: Float32[ndarray, "n 5"], other: Float32[ndarray, "n 5"]) -> ndarray:
    """Whether boxes (class, x, y, w, h) overlap, pair by pair: what moves on by more is another object."""
    near = np.maximum(one[:, 1:3], other[:, 1:3])
    far = np.minimum(one[:, 1:3] + one[:, 3:], other[:, 1:3] + other[:, 3:])
    return np.logical_and(*(near < far).T)
