"""Boxes of raw recordings: read by field name, cleaned and filtered with the reasons counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from config.errors import UserError
from config.schema import PreprocessingConfig
from data.arrays import read_npy
from data.boxes import BOX_DTYPE
from data.recordings.formats.common import NO_TIME, TICKS_PER_S, TimeUnit

OUTSIDE_SENSOR = "outside the sensor"
OTHER_CLASS = "of class id"  # the id follows
_OTHER_NAMES = {"t": "ts", "class_confidence": "confidence"}
_IDS = ("class_id", "track_id")
NO_ID = 2**32 - 1
_DEFAULTS = {"track_id": 0, "class_confidence": 1}  # fields that nothing here depends on


def read_boxes(path: Path, time_unit: TimeUnit = "us") -> ndarray:
    """All boxes of a *_bbox.npy as `BOX_DTYPE` in order of time, whatever the file's field order, widths and spelling.

    Times of any numeric type become us; one that is no number lies before all others. Raises UserError where the file
    is missing, damaged or lacks a field, or where a field is of a type that is none.
    """
    if not path.exists():
        raise UserError(f"{path} not found: every recording needs its boxes beside it")
    raw = read_npy(path, "Get it anew")
    present = raw.dtype.names or ()
    boxes = np.zeros(raw.size, BOX_DTYPE)
    for name in BOX_DTYPE.fields or ():
        source = name if name in present else _OTHER_NAMES.get(name, name)
        if source not in present and name not in _DEFAULTS:
            raise UserError(f"{path} has no field {name!r} among {present}; needed are t, x, y, w, h and class_id")
        values = raw[source].reshape(-1) if source in present else np.full(raw.size, _DEFAULTS[name])
        if values.dtype.kind not in "iufb":
            raise UserError(f"{path}: its field {source!r} is of type {values.dtype}, not of numbers")
        boxes[name] = _in_us(values, time_unit) if name == "t" else _whole(values, path) if name in _IDS else values
    return boxes[np.argsort(boxes["t"], kind="stable")]


def _in_us(t: ndarray, unit: TimeUnit) -> Int64[ndarray, " n"]:
    ticks_per_s = TICKS_PER_S[unit]
    if t.dtype.kind == "f":
        t_us = t.astype(np.float64) * (10**6 / ticks_per_s)
        is_time = np.abs(t_us) < -float(NO_TIME)  # false for NaN, too
        return np.where(is_time, np.rint(np.where(is_time, t_us, 0)), NO_TIME).astype(np.int64)
    ticks = (np.minimum(t, np.uint64(-NO_TIME)) if t.dtype == np.uint64 else t).astype(np.int64)
    if ticks_per_s > 10**6:
        return ticks // (ticks_per_s // 10**6)
    factor = 10**6 // ticks_per_s
    return np.where(np.abs(ticks) < -NO_TIME // factor, ticks, NO_TIME // factor) * factor


def _whole(ids: ndarray, path: Path) -> Int64[ndarray, " n"]:
    """Ids of any numeric type; those that do not fit become `NO_ID`, which is no class of a data set."""
    fits = (ids >= 0) & (ids < NO_ID)
    whole = np.where(fits, ids, NO_ID).astype(np.int64)
    if (fits & (whole != ids)).any():
        raise UserError(f"{path}: an id is no whole number: {ids[fits & (whole != ids)][0]}")
    return whole


class BoxFilter:
    """Takes boxes away step by step; `dropped` counts them by reason."""

    def __init__(self, boxes: ndarray) -> None:
        self.boxes = boxes
        self.dropped: Counter[str] = Counter()

    def keep(self, mask: Bool[ndarray, " n"], reason: str) -> None:
        if not mask.all():
            self.dropped[reason] += int((~mask).sum())
            self.boxes = self.boxes[mask]


def clean_boxes(
    boxes: ndarray,
    frame_hw: tuple[int, int],
    settings: PreprocessingConfig,
    class_ids: Mapping[int, int],
    *,
    is_train: bool,
) -> tuple[ndarray, Counter[str]]:
    """Boxes that training and evaluation may see, cropped to the sensor and with the data set's class ids.

    `class_ids` maps the file's ids to ours; other ids are dropped. Returns the boxes and the dropped ones by reason.
    """
    step = BoxFilter(boxes)
    for class_id in np.setdiff1d(boxes["class_id"], list(class_ids)).tolist():
        told = "out of range" if class_id == NO_ID else class_id
        step.keep(step.boxes["class_id"] != class_id, f"{OTHER_CLASS} {told}, not in class_ids")
    step.keep(_is_finite(step.boxes), "not finite")
    step.boxes = crop_boxes(step.boxes, frame_hw)
    width, height = step.boxes["w"], step.boxes["h"]
    step.keep((width > 0) & (height > 0), OUTSIDE_SENSOR)
    width, height = step.boxes["w"], step.boxes["h"]
    is_large = np.hypot(width, height) >= settings.min_box_diagonal
    step.keep(is_large & (np.minimum(width, height) >= settings.min_box_side), "too small")
    if is_train and settings.max_box_width_fraction_train is not None:
        step.keep(step.boxes["w"] <= settings.max_box_width_fraction_train * frame_hw[1], "too wide")
    kept = step.boxes.copy()
    for raw_id, class_id in class_ids.items():
        kept["class_id"][step.boxes["class_id"] == raw_id] = class_id
    return kept, step.dropped


def crop_boxes(boxes: ndarray, frame_hw: tuple[int, int]) -> ndarray:
    """A copy with every corner moved into [0, W - 1] x [0, H - 1]; boxes that lie outside come out flat."""
    cropped = boxes.copy()
    for corner, side, size in (("x", "w", frame_hw[1]), ("y", "h", frame_hw[0])):
        begin = np.clip(boxes[corner], 0, size - 1)
        cropped[corner] = begin
        cropped[side] = np.clip(boxes[corner] + boxes[side], 0, size - 1) - begin
    return cropped


def _is_finite(boxes: ndarray) -> Bool[ndarray, " n"]:
    return np.logical_and.reduce([np.isfinite(boxes[name]) for name in ("x", "y", "w", "h")])
