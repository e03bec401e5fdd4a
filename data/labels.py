"""The labels of a sequence folder: labelled frames and their boxes, whose files must fit each other and the frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, Integer
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig
from data.arrays import read_npy, read_npz, reading, whole_numbers
from data.boxes import xywh_from_xyxy
from data.layout import BOXES_KEY, FIRST_BOX_KEY, PREPROCESS_AGAIN, SequenceLayout

REMEDY = f"{PREPROCESS_AGAIN}; scripts/check_dataset.py lists all damaged files"


@dataclass
class Labels:
    """The labelled frames of a stretch of frames, and their boxes. A labelled frame without boxes counts, too."""

    frames: Int64[ndarray, " k"]  # ascending, counted from the stretch's first frame
    boxes: Float32[ndarray, "n 5"]  # class, x, y, w, h in pixels of the loaded frame; x, y is the top-left corner
    box_image: Int64[ndarray, " n"]  # position in `frames`, ascending
    track_id: Int64[ndarray, " n"] | None = None  # of each box; None where the file has none, or nobody asked
    left_out: tuple[int, int] = (0, 0)  # boxes of the file that are not finite; that are flat or outside the frame
    largest_id: int = 0  # of the file, before the class map

    @staticmethod
    def none() -> Labels:
        return Labels(np.zeros(0, np.int64), np.zeros((0, 5), np.float32), np.zeros(0, np.int64))


def read_frame_times(layout: SequenceLayout) -> Int64[ndarray, " n"]:
    """End of each frame's window in us. Raises UserError where the file is missing or damaged, or they do not rise."""
    path = layout.frame_times
    with reading(path, REMEDY):
        t_us = whole_numbers(read_npy(path, REMEDY), "times")
    unsorted = np.flatnonzero(np.diff(t_us) <= 0)
    if len(unsorted):
        raise UserError(f"{path}: times do not rise at frame {unsorted[0] + 1} of {len(t_us)}. {REMEDY}")
    return t_us


def read_labels(path: Path, dataset: DatasetConfig) -> Labels:
    """All labels of a sequence folder as `Sequence.labels` gives them.

    Boxes that are not finite, of no or negative size or outside the frame are left out and counted. Raises UserError
    where the files are missing or damaged, or do not fit each other.
    """
    layout = SequenceLayout.of(path, dataset)
    t_us = read_frame_times(layout)
    with reading(layout.label_frames, REMEDY):
        frames = whole_numbers(read_npy(layout.label_frames, REMEDY), "indices")
    with reading(layout.boxes, REMEDY):
        raw, first_box = read_npz(layout.boxes, (BOXES_KEY, FIRST_BOX_KEY), REMEDY)
        first_box = whole_numbers(first_box, FIRST_BOX_KEY)
        require_boxes(raw)
    _require_fit(layout, t_us, frames, first_box, len(raw))
    box_image = np.repeat(np.arange(len(first_box)), np.diff(np.append(first_box, len(raw))))
    if layout.label_times.is_file():  # RVT's script writes it; sets without were always read
        with reading(layout.label_times, REMEDY):
            label_t_us = whole_numbers(read_npy(layout.label_times, REMEDY), "times")
        if len(label_t_us) != len(frames):
            raise UserError(f"{layout.label_times}: {len(label_t_us)} times of {len(frames)} labelled frames. {REMEDY}")
        _require_times_of_frames(layout.label_times, label_t_us, t_us, frames)
    if "t" in (raw.dtype.names or ()):
        with reading(layout.boxes, REMEDY):
            box_t_us = whole_numbers(raw["t"], "times")
        _require_times_of_frames(layout.boxes, box_t_us, t_us, frames[box_image])
    track_id = raw["track_id"].astype(np.int64) if "track_id" in (raw.dtype.names or ()) else None
    boxes = loaded_boxes(raw, dataset)
    is_finite = np.isfinite(raw["x"] + raw["y"] + raw["w"] + raw["h"])
    keep = is_finite & (boxes[:, 3] > 0) & (boxes[:, 4] > 0)
    left_out = int((~is_finite).sum()), int((is_finite & ~keep).sum())
    track_id = None if track_id is None else track_id[keep]
    return Labels(frames, boxes[keep], box_image[keep], track_id, left_out, int(raw["class_id"].max(initial=0)))


def require_boxes(raw: ndarray) -> None:
    """A list of records with the fields that boxes have, all of them numbers. Raises ValueError where it is not."""
    if raw.ndim != 1 or raw.dtype.names is None:
        raise ValueError(f"{BOXES_KEY} are {raw.dtype} {raw.shape}, not a list of boxes")
    for name in ("x", "y", "w", "h"):
        if raw[name].ndim != 1 or raw.dtype[name].kind not in "iuf":
            raise ValueError(f"{name} of the boxes is {raw.dtype[name]}")
    whole_numbers(raw["class_id"], "class ids")


def _require_fit(
    layout: SequenceLayout,
    t_us: Int64[ndarray, " n"],
    frames: Int64[ndarray, " k"],
    first_box: Int64[ndarray, " j"],
    num_boxes: int,
) -> None:
    if len(frames) != len(first_box) or (len(first_box) and not first_box[-1] <= num_boxes):
        raise UserError(
            f"{layout.boxes} has {len(first_box)} labelled frames, {layout.label_frames.name} {len(frames)}. {REMEDY}"
        )
    for source, numbers, least in ((layout.label_frames, frames, 1), (layout.boxes, first_box, 0)):
        wrong = np.flatnonzero(np.diff(numbers, prepend=-1) < least)
        if len(wrong):
            raise UserError(f"{source}: the indices do not rise at row {wrong[0]}. {REMEDY}")
    if (first_box[0] if len(first_box) else num_boxes) > 0:
        early = first_box[0] if len(first_box) else num_boxes
        raise UserError(f"{layout.boxes}: {early} boxes stand before those of the first labelled frame. {REMEDY}")
    if len(frames) and frames[-1] >= len(t_us):
        raise UserError(
            f"{layout.folder}: frame {frames[-1]} has labels, but {layout.frame_times.name} has {len(t_us)} frames. "
            f"{PREPROCESS_AGAIN}"
        )


def _require_times_of_frames(
    path: Path, of_labels: Int64[ndarray, " m"], t_us: Int64[ndarray, " n"], frames: Int64[ndarray, " m"]
) -> None:
    """Each label's time is its frame's, or, in sets where most are not that to the microsecond, nearest to it."""
    is_equal = of_labels == t_us[frames]
    middle = t_us[:-1] + np.diff(t_us) // 2
    is_near = (np.searchsorted(middle, of_labels - 1) <= frames) & (frames <= np.searchsorted(middle, of_labels + 1))
    wrong = np.flatnonzero(~(is_equal if is_equal.mean() > 0.5 else is_near)) if len(frames) else frames
    if len(wrong):
        row = wrong[0]
        raise UserError(
            f"{path}: the label at {of_labels[row]} us (row {row}) is not of frame {frames[row]}, which ends at "
            f"{t_us[frames[row]]} us: the index maps do not fit. {REMEDY}"
        )


def loaded_boxes(raw: ndarray, dataset: DatasetConfig) -> Float32[ndarray, "n 5"]:
    """Class, x, y, w, h in pixels of the loaded frame, clamped to it; a box outside of it comes out flat.

    `raw` is a structured array in sensor pixels with the fields class_id, x, y, w, h.
    """
    x, y, w, h = (raw[name] if raw.dtype[name].kind == "f" else raw[name].astype(np.float64) for name in "xywh")
    corners = np.stack([x, y, x + w, y + h], axis=1).astype(np.float32)
    steps = ((dataset.resolution_hw, (1.0, 1.0)), (dataset.loaded_hw, dataset.scale_hw))
    for (height, width), (scale_y, scale_x) in steps:
        corners *= np.array([scale_x, scale_y] * 2, dtype=np.float32)
        largest = np.tile(np.array([width - 1, height - 1], dtype=np.float32), 2)
        corners = np.clip(corners, 0, largest)
    class_id = loaded_class_ids(raw["class_id"], dataset).astype(np.float32)[:, None]
    return np.concatenate([class_id, xywh_from_xyxy(corners)], axis=1)


def loaded_class_ids(stored: Integer[ndarray, " n"], dataset: DatasetConfig) -> Integer[ndarray, " n"]:
    """The data set's class of ids in label files, by its class map; -1 where the map does not know an id."""
    if dataset.stored_classes is None:
        return stored
    class_of = np.array([*dataset.class_of_label, -1], np.int64)
    known = (stored >= 0) & (stored < len(class_of) - 1)
    return class_of[np.where(known, stored, len(class_of) - 1)]
