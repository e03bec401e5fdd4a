"""Which label times become labelled frames, and where the frames between them end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from config.schema import PreprocessingConfig


@dataclass(frozen=True)
class FrameGrid:
    """Frames of a sequence: from the start of the recording to the last labelled frame."""

    end_us: Int64[ndarray, " frames"]  # end of each frame's window, ascending
    label_us: Int64[ndarray, " k"]  # times of the labelled frames
    labelled: Int64[ndarray, " k"]  # their positions in end_us

    def first(self, num_frames: int) -> FrameGrid:
        """The grid of a recording that ends early."""
        kept = int(np.searchsorted(self.labelled, num_frames))
        return FrameGrid(self.end_us[:num_frames], self.label_us[:kept], self.labelled[:kept])


def frame_grid(label_us: Int64[ndarray, " n"], settings: PreprocessingConfig, window_us: int) -> FrameGrid:
    """Lay frames over the ascending times of all usable labels.

    Labelled frames are the first label at or after `first_label_ms` and every label a multiple of the interval after
    the labelled frame before it, give or take `label_jitter_ms`. The interval is `label_interval_ms`. With
    `label_interval_follows_rate` it is the multiple of the label period that comes closest to that (every 3rd label at
    30 Hz for 100 ms), or that itself where the period is a multiple of it.
    Between labelled frames lie equally spaced frames, about `window_us` apart; before the first one, as many as fit,
    `window_us` apart.
    """
    usable_us = label_us[label_us >= settings.first_label_ms * 1000]
    if len(usable_us) == 0:
        return FrameGrid(*(np.zeros(0, np.int64) for _ in range(3)))
    jitter_us = settings.label_jitter_ms * 1000
    interval_us = round(settings.label_interval_ms * 1000)
    if settings.label_interval_follows_rate:
        interval_us = _interval(label_us, interval_us, jitter_us)
    chosen_us = _on_rhythm(usable_us, interval_us, jitter_us)
    frames_per_interval = max(round(interval_us / window_us), 1)
    if settings.reference_gen1_spacing:
        frames_per_interval = max(100_000 // window_us, 1)
    num_before = max(int(chosen_us[0]) // window_us, 1)
    ends = [chosen_us[0] - window_us * np.arange(num_before - 1, -1, -1)]
    steps = np.maximum(np.rint(np.diff(chosen_us) / interval_us).astype(np.int64), 1) * frames_per_interval
    for begin, end, step in zip(chosen_us[:-1], chosen_us[1:], steps, strict=True):
        ends.append(begin + (end - begin) * np.arange(1, step + 1) // step)
    labelled = num_before - 1 + np.concatenate([[0], np.cumsum(steps)]).astype(np.int64)
    return FrameGrid(np.concatenate(ends), chosen_us, labelled)


def _interval(label_us: Int64[ndarray, " n"], wanted_us: float, jitter_us: float) -> int:
    """Interval of labelled frames, in us."""
    gaps_us = np.diff(label_us) if len(label_us) > 1 else np.array([wanted_us])
    period_us = float(np.median(gaps_us))
    if period_us > 1.5 * wanted_us:  # rare labels, or long gaps between them: their clock shows in the short gaps
        period_us = float(np.percentile(gaps_us, 10, method="lower"))
    num_wanted = round(period_us / wanted_us)
    if num_wanted and abs(period_us - num_wanted * wanted_us) <= jitter_us:
        return int(wanted_us)
    return int(max(round(wanted_us / period_us), 1) * period_us)


def _on_rhythm(label_us: Int64[ndarray, " n"], interval_us: int, jitter_us: float) -> Int64[ndarray, " k"]:
    """The first label, and each that is a multiple of the interval after the one chosen before it, as in RVT."""
    times = label_us.tolist()
    chosen = [times[0]]
    for t_us in times[1:]:
        distance_us = t_us - chosen[-1]
        intervals = max(round(distance_us / interval_us), 1)
        if abs(distance_us - intervals * interval_us) <= jitter_us:
            chosen.append(t_us)
    return np.array(chosen, np.int64)
