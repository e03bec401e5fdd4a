"""Where a detector is good and where it is not: by box size, time, event rate, and along the precision-recall curve.

Everything is made from stored predictions, `modules.evaluation.results`; the network is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from modules.evaluation.coco import NO_GROUND_TRUTH, RECALL_POINTS, Curves, accumulate
from modules.evaluation.evaluator import matches_of
from modules.evaluation.labelled_frames import LabelledFrames
from modules.evaluation.matching import Matches
from modules.evaluation.protocol import apply_box_filter, box_filter_of
from modules.evaluation.results import StoredProtocol
from modules.reports.measurement import weighted_by_sequence
from modules.reports.significance import interval_table
from modules.reports.tables import Table

SIZE_EDGES_PX = (0, 16, 24, 32, 48, 64, 96, 128, 192, np.inf)  # side of a square of the box's area
TIME_EDGES_S = (0, 1, 2, 5, 10, 20, 30, 60, 120, np.inf)
NUM_RATE_GROUPS = 5  # of equally many frames


@dataclass(frozen=True)
class Analysis:
    """Tables, and the numbers that the figures draw."""

    classes: tuple[str, ...]
    curves: Curves
    by_size: Table
    by_time: Table
    by_event_rate: Table
    intervals: Table | str  # or why there are none

    @property
    def precision_recall(self) -> Table:
        """Precision at 101 recalls at IoU 0.5, per class with ground truth."""
        shown = {name: self.precision_of(index) for index, name in enumerate(self.classes)}
        shown = {name: values for name, values in shown.items() if values[0] != NO_GROUND_TRUTH}
        rows = np.column_stack([RECALL_POINTS, *shown.values()]).tolist()
        return Table("Precision at recall, IoU 0.5", ["recall", *shown], rows)

    def precision_of(self, class_id: int) -> Float64[ndarray, " recall"]:
        return self.curves.precision[0, 0, :, class_id]


def analyse(frames: LabelledFrames, protocol: StoredProtocol) -> Analysis:
    """Analyse stored frames under the protocol that is stated in their results.json."""
    kept = apply_box_filter(frames, box_filter_of(protocol))
    classes = tuple(protocol["classes"])
    matches = matches_of(kept, len(classes), protocol["score"])
    sure = kept.predictions.score(protocol["score"]) >= protocol["confusion_threshold"]
    sure_matches = matches_of(kept.with_predictions(sure), len(classes), protocol["score"])
    return Analysis(
        classes,
        accumulate(matches),
        recall_by_size(matches, sure_matches, protocol["confusion_threshold"]),
        ap_by_time(matches, kept),
        ap_by_event_rate(matches, kept, protocol["window_ms"]),
        interval_table(weighted_by_sequence(matches, kept)[0], classes),
    )


def recall_by_size(matches: Matches, sure_matches: Matches, threshold: float) -> Table:
    """Share of boxes that are found, of all sizes: the side of a square of the same area, in the frames as loaded."""
    side_px = np.sqrt(matches.truth_xywh[:, 2] * matches.truth_xywh[:, 3])
    rows = []
    for low, high in pairwise(SIZE_EDGES_PX):
        inside = (side_px >= low) & (side_px < high)
        if inside.any():
            rows.append(
                [
                    _interval(low, high),
                    int(inside.sum()),
                    float(matches.truth_hit[0, inside].mean()),
                    float(sure_matches.truth_hit[0, inside].mean()),
                    float(matches.truth_hit[:, inside].mean()),
                ]
            )
    header = ["side in px of the frame", "boxes", "IoU .5, all", f"IoU .5, score ≥ {threshold:g}", "IoU .5 to .95, all"]
    return Table("Recall by box size", header, rows)


def ap_by_time(matches: Matches, frames: LabelledFrames) -> Table:
    """AP by the time since the sequence's start: a recurrent network needs a while to remember."""
    seconds = frames.t_us / 1e6
    intervals = pairwise(TIME_EDGES_S)
    groups = [(_interval(low, high), (seconds >= low) & (seconds < high)) for low, high in intervals]
    return Table("AP by time since the sequence's start", ["seconds", *_AP_HEADER], _ap_rows(matches, groups))


def ap_by_event_rate(matches: Matches, frames: LabelledFrames, window_ms: int) -> Table:
    """AP by counts per second in the frame, in groups of about equally many frames.

    Counts are what the network sees of the events: cut off in each cell, at half resolution a quarter of the pixels.
    """
    rate = frames.event_count / window_ms * 1000 / 1e6
    starts = np.unique(np.quantile(rate, np.arange(NUM_RATE_GROUPS) / NUM_RATE_GROUPS)) if len(rate) else []
    groups = []
    for low, high in pairwise([*starts, np.inf]):
        chosen = (rate >= low) & (rate < high)
        groups.append((f"{rate[chosen].min():.2f} - {rate[chosen].max():.2f}", chosen))
    return Table("AP by event rate", ["million counts / s, as loaded", *_AP_HEADER], _ap_rows(matches, groups))


_AP_HEADER = ("frames", "boxes", "AP", "AP_50")


def _ap_rows(matches: Matches, groups: Sequence[tuple[str, Bool[ndarray, " frames"]]]) -> list[list[Any]]:
    rows = []
    for name, chosen in groups:
        if chosen.any():
            own = matches.of_frames(chosen)
            figures = accumulate(own).summary()
            values = [None if figures[key] == NO_GROUND_TRUTH else figures[key] for key in ("AP", "AP_50")]
            rows.append([name, int(chosen.sum()), len(own.truth_frame), *values])
    return rows


def _interval(low: float, high: float) -> str:
    return f"{low:g} - {high:g}" if np.isfinite(high) else f"{low:g} and more"
