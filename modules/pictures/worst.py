"""The frames that a validation did worst on, as pictures: most boxes missed and most false predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from PIL import Image

from config.errors import UserError
from config.schema import DatasetConfig
from data.sequence import Sequence
from modules.evaluation.evaluator import matches_of
from modules.evaluation.labelled_frames import LabelledFrames
from modules.evaluation.protocol import apply_box_filter, box_filter_of
from modules.evaluation.results import read_predictions, read_results
from modules.pictures.frames import PictureBoxes, draw_frame

WIDTH_PX = 1280


@dataclass(frozen=True)
class WorstFrame:
    """A frame as the evaluation saw it; counts at IoU 0.5, of the predictions that reach the threshold."""

    sequence: str
    t_us: int
    missed: int
    false: int
    truth: PictureBoxes
    predictions: PictureBoxes


def worst_frames(folder: Path, count: int, threshold: float) -> list[WorstFrame]:
    """The frames of a stored validation with the most missed and false together, the worst first; none without any."""
    protocol = read_results(folder)["protocol"]
    kept = apply_box_filter(read_predictions(folder), box_filter_of(protocol))
    sure = kept.with_predictions(kept.predictions.score(protocol["score"]) >= threshold)
    missed, false = mistakes_of(sure, len(protocol["classes"]), protocol["score"])
    order = np.argsort(-(missed + false), kind="stable")[:count]
    scores = sure.predictions.score(protocol["score"])
    worst = []
    for index in order[(missed + false)[order] > 0].tolist():
        truth, rows = kept.truth.frame == index, sure.predictions.frame == index
        worst.append(
            WorstFrame(
                kept.sequence_names[kept.sequence[index]],
                int(kept.t_us[index]),
                int(missed[index]),
                int(false[index]),
                PictureBoxes(kept.truth.xywh[truth], kept.truth.class_id[truth]),
                PictureBoxes(sure.predictions.xywh[rows], sure.predictions.class_id[rows], scores[rows]),
            )
        )
    return worst


def mistakes_of(
    frames: LabelledFrames, num_classes: int, score: str
) -> tuple[Int64[ndarray, " frames"], Int64[ndarray, " frames"]]:
    """Boxes that no prediction of their class hits, and predictions that hit none, of each frame."""
    matches = matches_of(frames, num_classes, score)
    missed = np.bincount(matches.truth_frame[~matches.truth_hit[0]], minlength=len(frames))
    false = np.bincount(matches.frame[matches.outcome[0, 0] == 0], minlength=len(frames))
    return missed, false


def draw_worst(worst: list[WorstFrame], dataset: DatasetConfig, split: str) -> Iterator[tuple[str, Image.Image]]:
    """Name of the file and picture of each. Raises UserError where the data set does not have its frame."""
    sequences: dict[str, Sequence] = {}
    for rank, each in enumerate(worst, start=1):
        path = dataset.path / split / each.sequence
        if each.sequence not in sequences:
            if not path.is_dir():
                raise UserError(f"{path} not found: the frames of this validation. dataset.path=FOLDER says where")
            sequences[each.sequence] = Sequence(path, dataset)
        sequence = sequences[each.sequence]
        (found,) = np.nonzero(sequence.t_us(0, len(sequence)) == each.t_us)
        if len(found) != 1:
            raise UserError(f"{path} has no frame at {each.t_us} us: it is not what was validated")
        frame = sequence.frames(int(found[0]), int(found[0]) + 1)[0]
        seconds = f"{each.t_us / 1e6:.2f} s"
        caption = f"{each.sequence} · {seconds} · {each.missed} missed, {each.false} false"
        name = f"{rank:03d}_missed={each.missed}_false={each.false}_{each.sequence}_{each.t_us}us.png"
        yield name, draw_frame(frame, dataset.classes, each.predictions, each.truth, caption, WIDTH_PX)
