"""What happens to events rather than to places: other polarity, fewer events, hot pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from config.schema import EventAugmentationConfig, RepresentationConfig

_EVENTS = 1  # sets these draws apart from those of the move with the same seed


@dataclass(frozen=True)
class Disturbance:
    """One drawn augmentation of events, constant while a stream lasts."""

    seed: tuple[int, ...]
    representation: RepresentationConfig
    flips_polarity: bool
    dropped_share: float
    hot_pixels: Int64[ndarray, "p 3"]  # row, column, polarity

    def apply(self, frames: UInt8[ndarray, "l c h w"], first_frame: int) -> None:
        """Change consecutive frames, of which the first has that index in its sequence, in place.

        An event is dropped or kept by itself; of counts that were cut off it is as if no more had been there. A hot
        pixel's counts are at the cut-off in every bin.
        """
        bins = self.representation.bins
        for index, frame in enumerate(frames, start=first_frame):
            if self.flips_polarity:
                frame[:] = np.roll(frame, bins, axis=0)
            if self.dropped_share:
                rng = np.random.default_rng((*self.seed, _EVENTS, index + 1))
                counted = np.nonzero(frame)
                frame[counted] = rng.binomial(frame[counted], 1 - self.dropped_share)
            for row, column, polarity in self.hot_pixels:
                frame[polarity * bins : (polarity + 1) * bins, row, column] = self.representation.count_cutoff


def draw_disturbance(
    seed: tuple[int, ...],
    config: EventAugmentationConfig,
    representation: RepresentationConfig,
    frame_hw: tuple[int, int],
) -> Disturbance | None:
    """Equal seeds give equal draws; None where nothing is drawn."""
    rng = np.random.default_rng((*seed, _EVENTS))
    flips = bool(rng.random() < config.prob_polarity_flip)
    share = rng.uniform(0, config.drop.max_share) if rng.random() < config.drop.prob else 0.0
    number = rng.integers(1, config.hot_pixels.max_number + 1) if rng.random() < config.hot_pixels.prob else 0
    hot_pixels = rng.integers((*frame_hw, 2), size=(number, 3))
    if not flips and not share and not number:
        return None
    return Disturbance(seed, representation, flips, share, hot_pixels)
