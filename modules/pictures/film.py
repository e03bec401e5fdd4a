"""Frames and boxes of a sequence folder or a raw recording, in the order of time, for scripts/render.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig, RepresentationConfig
from data.labels import loaded_class_ids
from data.layout import SequenceLayout
from data.recordings.boxes import clean_boxes
from data.recordings.event_files import open_event_file
from data.recordings.formats.common import Reading
from data.recordings.label_clock import boxes_of, join_stamps, start_of
from data.recordings.names import boxes_beside, recording_name
from data.recordings.recording import LONGEST_SILENCE_US, Recording
from data.recordings.representation import count_window
from data.recordings.usable import reading_of
from data.sequence import Sequence as SequenceFolder
from models.detector import Detector
from modules.evaluation.results import read_predictions, read_results
from modules.pictures.frames import PictureBoxes

Frame = UInt8[ndarray, "c h w"]
BoxesAt = Callable[[int, Frame], PictureBoxes | None]  # boxes to draw over the frame of a time in us
QUICK_LOOK = RepresentationConfig(window_ms=50, bins=10, count_cutoff=10)  # of a recording without a data set


class TimedBoxes:
    """Boxes known at some times only. They stay on the picture until the next ones, `hold_us` at most."""

    def __init__(self, t_us: Int64[ndarray, " k"], boxes: Sequence[PictureBoxes], hold_us: int) -> None:
        """`t_us` ascends."""
        self._t_us, self._boxes, self._hold_us = t_us, boxes, hold_us

    def __call__(self, t_us: int, frame: Frame) -> PictureBoxes | None:
        index = int(np.searchsorted(self._t_us, t_us, side="right")) - 1
        is_fresh = index >= 0 and t_us - self._t_us[index] <= self._hold_us
        return self._boxes[index] if is_fresh else None


# --- frames ----------------------------------------------------------------------------------------------------------


class TimedFrame(NamedTuple):
    """A frame, the end of its window in us, and in words how many events it is of."""

    t_us: int
    frame: Frame
    told: str


def name_of(source: Path) -> str:
    """A sequence's or a recording's name."""
    return source.name if source.is_dir() else recording_name(source)


def sequence_frames(path: Path, dataset: DatasetConfig) -> Iterator[TimedFrame]:
    """All frames of a sequence folder, which keeps no events, only counts up to `count_cutoff`."""
    sequence = SequenceFolder(path, dataset)
    for index in range(len(sequence)):
        frame = sequence.frames(index, index + 1)[0]
        yield TimedFrame(int(sequence.t_us(index, index + 1)[0]), frame, f"{frame.sum(dtype=np.int64):,} counts")


def recording_frames(path: Path, dataset: DatasetConfig | None) -> Iterator[TimedFrame]:
    """Windows of a raw recording from its first event to its last; without a data set at the sensor's resolution.

    Times count from where those of its boxes do.
    """
    reading = reading_of(dataset) if dataset else Reading()
    sensor_hw = dataset.resolution_hw if dataset else open_event_file(path, reading).sensor_hw
    if sensor_hw is None:
        raise UserError(f"{path} does not tell the sensor's size: add dataset=NAME, which does")
    settings = dataset.representation if dataset else QUICK_LOOK
    frame_hw = dataset.loaded_hw if dataset else sensor_hw
    recording = Recording(path, sensor_hw, reading)
    if recording.first_t_us is None:
        raise UserError(f"{path} holds no events on the sensor")
    origin_us = start_of(recording, dataset.preprocessing.label_clock) if dataset else 0
    window_us = settings.window_us
    first_us = recording.first_t_us - recording.clock_start_us - origin_us
    starts = range(first_us // window_us * window_us, 2**62, window_us)
    bounds = ((t + origin_us, t + origin_us + window_us) for t in starts)
    for start_us, events in zip(starts, recording.windows(bounds, LONGEST_SILENCE_US), strict=False):
        if len(events) == 0 and recording.end_us < start_us + origin_us:
            return  # windows may go on a little after the last event
        frame = np.zeros((2 * settings.bins, *frame_hw), np.uint8)
        count_window(events, settings.count_cutoff, sensor_hw, frame)
        yield TimedFrame(start_us + window_us, frame, f"{len(events):,} events")


# --- ground truth ----------------------------------------------------------------------------------------------------


def sequence_truth(path: Path, dataset: DatasetConfig) -> BoxesAt | None:
    """Labels of a sequence folder, None where there are none."""
    if not SequenceLayout.of(path, dataset).boxes.is_file():
        return None
    sequence = SequenceFolder(path, dataset)
    labels = sequence.labels(0, len(sequence))
    t_us = sequence.t_us(0, len(sequence))[labels.frames]
    boxes = []
    for index in range(len(t_us)):
        own = labels.boxes[labels.box_image == index]
        boxes.append(PictureBoxes(own[:, 1:], own[:, 0].astype(int)))
    return TimedBoxes(t_us, boxes, _hold_us(dataset))


def recording_truth(path: Path, dataset: DatasetConfig | None) -> BoxesAt | None:
    """Boxes of `<name>_bbox.npy` beside the recording; None without that file, or a data set to read it by.

    They are on the clock that scripts/preprocess.py puts them on, or refused as it refuses them.
    """
    boxes_path = boxes_beside(path)
    if dataset is None or not boxes_path.is_file():
        return None
    settings = dataset.preprocessing
    recording = Recording(path, dataset.resolution_hw, reading_of(dataset))
    read = boxes_of(boxes_path, recording, settings).boxes
    join_stamps(read, settings.label_jitter_ms * 1000)
    class_ids = {raw: dataset.label_classes.index(name) for raw, name in settings.class_ids.items()}
    boxes, _ = clean_boxes(read, dataset.resolution_hw, settings, class_ids, is_train=False)
    scale = dataset.scale_hw[0]
    xywh = np.column_stack([boxes[name] for name in "xywh"]).astype(np.float32) * scale
    t_us = np.unique(boxes["t"])
    at = [boxes["t"] == t for t in t_us]
    class_id = loaded_class_ids(boxes["class_id"].astype(int), dataset)
    pictures = [PictureBoxes(xywh[rows], class_id[rows]) for rows in at]
    return TimedBoxes(t_us, pictures, _hold_us(dataset))


def _hold_us(dataset: DatasetConfig) -> int:
    """Labels come once per label interval: one and a half of it bridges the jitter, not a gap."""
    return int(1500 * dataset.preprocessing.label_interval_ms)


# --- predictions -----------------------------------------------------------------------------------------------------


def stored_predictions(folder: Path, name: str, dataset: DatasetConfig, threshold: float) -> BoxesAt:
    """Predictions of one sequence that a validation stored."""
    frames = read_predictions(folder)
    if name not in frames.sequence_names:
        raise UserError(f"{folder}: no predictions of a sequence {name}. It has: {', '.join(frames.sequence_names)}")
    own = frames.mask(frames.sequence == frames.sequence_names.index(name))
    scores = own.predictions.score(read_results(folder)["protocol"]["score"])

    def of(index: int) -> PictureBoxes:
        rows: Bool[ndarray, " n"] = (own.predictions.frame == index) & (scores >= threshold)
        return PictureBoxes(own.predictions.xywh[rows], own.predictions.class_id[rows], scores[rows])

    return TimedBoxes(own.t_us, [of(index) for index in range(len(own))], _hold_us(dataset))


class LivePredictions:
    """A detector that runs along, frame by frame."""

    def __init__(self, detector: Detector, score: str, threshold: float) -> None:
        self._detector, self._score, self._threshold = detector.eval(), score, threshold
        self._device = next(detector.parameters()).device
        self._state = None

    @torch.inference_mode()
    def __call__(self, t_us: int, frame: Frame) -> PictureBoxes:
        frames = torch.from_numpy(frame).to(self._device)[None, None]  # [L=1, B=1, C, H, W]
        features, self._state = self._detector.encode(frames, self._state)
        selected = self._detector.select(features, torch.zeros(1, dtype=torch.int64, device=self._device))
        return PictureBoxes.from_detections(self._detector.detect(selected)[0], self._score, self._threshold)
