"""Recordings with boxes beside them, as an evaluation may see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig
from data.boxes import cxcywh_from_xywh
from data.labels import loaded_boxes
from data.recordings.event_files import SUFFIXES
from data.recordings.names import BOXES_SUFFIX, boxes_beside, recording_name
from data.recordings.recording import Recording
from data.recordings.usable import RecordingFiles, Report, reading_of, usable_boxes


@dataclass(frozen=True)
class Labelled:
    """A recording and its boxes."""

    files: RecordingFiles
    boxes: ndarray  # BOX_DTYPE, in pixels of the sensor
    start_us: int  # what their times count from, after the recording's own start of times
    dropped: dict[str, int]  # boxes by reason
    notes: list[str]

    @classmethod
    def of(cls, files: RecordingFiles, dataset: DatasetConfig) -> Labelled:
        """As preprocessing reads it. Raises UserError for what it would refuse."""
        report = Report(files.split, files.name)
        boxes, start_us = usable_boxes(files, dataset, open_for(files, dataset), report)
        return cls(files, boxes, start_us, report.dropped_boxes, report.notes)

    @property
    def label_us(self) -> Int64[ndarray, " n"]:
        return np.unique(self.boxes["t"])

    def truth(
        self, label_us: Int64[ndarray, " k"], dataset: DatasetConfig
    ) -> tuple[Float32[ndarray, "n 5"], Int64[ndarray, " n"]]:
        """Boxes of the frames at these times (class, cx, cy, w, h in pixels of the frame), and the frame of each."""
        raw = self.boxes[np.isin(self.boxes["t"], label_us)]
        found = loaded_boxes(raw, dataset)
        keep = (found[:, 3] > 0) & (found[:, 4] > 0)
        found[:, 1:] = cxcywh_from_xywh(found[:, 1:])
        return found[keep], np.searchsorted(label_us, raw["t"])[keep]


def open_for(files: RecordingFiles, dataset: DatasetConfig) -> Recording:
    return Recording(files.events, dataset.resolution_hw, reading_of(dataset))


def find_labelled(sources: Sequence[Path]) -> list[RecordingFiles]:
    """Recordings, and those in folders that have boxes beside them.

    Raises UserError for a recording without boxes, a folder without any recording with boxes, and for two recordings
    of one name, whose frames could not be told apart.
    """
    paths = [path for source in sources for path in (_with_boxes(source) if source.is_dir() else [source])]
    found: dict[str, RecordingFiles] = {}
    for path in paths:
        files = RecordingFiles("val", recording_name(path), path, boxes_beside(path))
        if not path.is_file() or not files.boxes.is_file():
            raise UserError(
                f"{path if not path.is_file() else files.boxes} not found: give recordings with their boxes"
            )
        if other := found.get(files.name):
            raise UserError(f"{path} and {other.events} have one name: give one of them")
        found[files.name] = files
    return list(found.values())


def _with_boxes(folder: Path) -> list[Path]:
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    found = [path for path in paths if not path.name.startswith(".") and boxes_beside(path).is_file()]
    if not found:
        raise UserError(f"{folder} holds no recording with boxes beside it (NAME{BOXES_SUFFIX})")
    return found
