"""Frames and boxes of a sequence folder or a raw recording, in the order of time, for scripts/render.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig, RepresentationConfig
from data.layout import SequenceLayout
from data.recordings.boxes import clean_boxes, read_boxes
from data.recordings.event_files import open_event_file
from data.recordings.formats.common import Reading
from data.recordings.preprocessing import reading_of
from data.recordings.recording import Recording
from data.recordings.representation import add_stacked_histogram
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


def name_of(source: Path) -> str:
    """A sequence's name; a recording's without `_td` and what follows."""
    return source.name if source.is_dir() else source.name.split("_td.")[0].removesuffix(source.suffix)


def sequence_frames(path: Path, dataset: DatasetConfig) -> Iterator[tuple[int, Frame]]:
    """End of the window in us, and the frame."""
    sequence = SequenceFolder(path, dataset)
    for index in range(len(sequence)):
        yield int(sequence.t_us(index, index + 1)[0]), sequence.frames(index, index + 1)[0]


def recording_frames(path: Path, dataset: DatasetConfig | None) -> Iterator[tuple[int, Frame]]:
    """Windows of a raw recording from its first event to its last; without a data set at the sensor's resolution."""
    reading = reading_of(dataset) if dataset else Reading()
    sensor_hw = dataset.resolution_hw if dataset else open_event_file(path, reading).sensor_hw
    if sensor_hw is None:
        raise UserError(f"{path} does not tell the sensor's size: add dataset=NAME, which does")
    settings = dataset.representation if dataset else QUICK_LOOK
    frame_hw = dataset.frame_hw if dataset else sensor_hw
    first = next((piece.t_us[0] for piece in Recording(path, sensor_hw, reading).pieces() if len(piece)), None)
    if first is None:
        raise UserError(f"{path} holds no events on the sensor")
    window_us = settings.window_ms * 1000
    starts = range(int(first) // window_us * window_us, 2**62, window_us)
    recording = Recording(path, sensor_hw, reading)
    for start_us, events in zip(starts, recording.windows((t, t + window_us) for t in starts), strict=False):
        if len(events) == 0 and recording.end_us < start_us:
            return  # windows may go on a little after the last event
        frame = np.zeros((2 * settings.bins, *frame_hw), np.uint8)
        stride = sensor_hw[0] // frame_hw[0]
        columns = (events.x, events.y, events.polarity, events.t_us)
        add_stacked_histogram(*columns, settings.count_cutoff, stride, frame)
        yield start_us + window_us, frame


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
    """Boxes of `<name>_bbox.npy` beside the recording; None without that file, or a data set to read it by."""
    boxes_path = path.with_name(f"{name_of(path)}_bbox.npy")
    if dataset is None or not boxes_path.is_file():
        return None
    settings = dataset.preprocessing
    class_ids = {raw: dataset.classes.index(name) for raw, name in settings.class_ids.items()}
    boxes, _ = clean_boxes(read_boxes(boxes_path), dataset.resolution_hw, settings, class_ids, is_train=False)
    scale = dataset.frame_hw[0] / dataset.resolution_hw[0]
    xywh = np.column_stack([boxes[name] for name in "xywh"]).astype(np.float32) * scale
    t_us = np.unique(boxes["t"])
    at = [boxes["t"] == t for t in t_us]
    pictures = [PictureBoxes(xywh[rows], boxes["class_id"][rows].astype(int)) for rows in at]
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
