"""Boxes of raw recordings: read by field name, cleaned and filtered with the reasons counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from config.errors import UserError
from config.schema import PreprocessingConfig
from data.boxes import BOX_DTYPE

_OTHER_NAMES = {"t": "ts", "class_confidence": "confidence"}
_DEFAULTS = {"track_id": 0, "class_confidence": 1}  # fields that nothing here depends on


def read_boxes(path: Path) -> ndarray:
    """All boxes of a *_bbox.npy as `BOX_DTYPE` in order of time, whatever the file's field order, widths and spelling.

    Raises UserError where the file is missing, damaged or lacks a field.
    """
    try:
        raw = np.load(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} not found: every recording needs its boxes beside it") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged or no .npy file ({error}). Get it anew") from error
    present = raw.dtype.names or ()
    boxes = np.zeros(raw.size, BOX_DTYPE)
    for name in BOX_DTYPE.names:
        source = name if name in present else _OTHER_NAMES.get(name, name)
        if source not in present and name not in _DEFAULTS:
            raise UserError(f"{path} has no field {name!r} among {present}; needed are t, x, y, w, h and class_id")
        boxes[name] = raw[source].reshape(-1) if source in present else _DEFAULTS[name]
    return boxes[np.argsort(boxes["t"], kind="stable")]


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
    step.keep(np.isin(step.boxes["class_id"], list(class_ids)), "other class")
    step.keep(_is_finite(step.boxes), "not finite")
    step.boxes = crop_boxes(step.boxes, frame_hw)
    width, height = step.boxes["w"], step.boxes["h"]
    step.keep((width > 0) & (height > 0), "outside the sensor")
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
