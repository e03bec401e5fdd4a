"""Behaviour of modules/pictures/film.py."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import DatasetConfig
from data.layout import is_sequence_folder
from modules.evaluation.results import write_results
from modules.pictures.film import (
    LivePredictions,
    TimedBoxes,
    name_of,
    recording_frames,
    recording_truth,
    sequence_frames,
    sequence_truth,
    stored_predictions,
)
from modules.pictures.frames import PictureBoxes
from tests.conftest import FRAME_HW, write_sequence
from tests.evaluations import CAR, ELSEWHERE, HIT, boxes_of, found, result_of

FRAME = np.zeros((20, 4, 4), np.uint8)


@pytest.fixture
def dataset() -> DatasetConfig:
    """eTraM's classes on a tiny sensor, loaded at half resolution."""
    return load_dataset_config(["dataset=gen4", f"dataset.resolution_hw=[{FRAME_HW[0] * 2},{FRAME_HW[1] * 2}]"])


def write_recording(path: Path, rows: list[tuple[int, int, int, int]], sensor_hw: tuple[int, int] = (16, 24)) -> Path:
    """Events (x, y, polarity, t_us)."""
    with h5py.File(path, "w") as file:
        for name, column in zip("xypt", np.array(rows, np.int64).reshape(-1, 4).T, strict=True):
            file[f"events/{name}"] = column
        file["events/height"], file["events/width"] = sensor_hw
    return path


def test_names() -> None:
    assert name_of(Path("raw/street_001_td.h5")) == "street_001"
    assert name_of(Path("raw/street_001_td.dat.h5")) == "street_001"
    assert name_of(Path("raw/night.v2.raw")) == "night.v2"
    assert name_of(Path("raw/cam0.2024-05-01_td.h5")) == "cam0.2024-05-01"


def test_boxes_stay_until_they_are_too_old() -> None:
    first, second = (PictureBoxes(np.full((1, 4), value), np.zeros(1, int)) for value in (1, 2))
    boxes = TimedBoxes(np.array([100, 200]), [first, second], hold_us=150)
    assert [boxes(t_us, FRAME) for t_us in (99, 100, 199, 200, 350, 351)] == [None, first, first, second, second, None]


def test_sequence_gives_all_frames_and_its_labels(dataset: DatasetConfig, tmp_path: Path) -> None:
    path = write_sequence(tmp_path / "street", 4, {1: [(2, 4, 2, 10, 8)], 3: []})
    frames = list(sequence_frames(path, dataset))
    assert [(t_us, int(frame.max())) for t_us, frame, _ in frames] == [
        (100_000, 1), (150_000, 2), (200_000, 3), (250_000, 4),
    ]  # fmt: skip
    truth = sequence_truth(path, dataset)
    assert truth(100_000, FRAME) is None
    assert truth(200_000, FRAME).xywh.tolist() == [[2, 1, 5, 4]]
    assert truth(200_000, FRAME).class_id.tolist() == [2]
    assert is_sequence_folder(path)


def test_sequence_without_labels(dataset: DatasetConfig, tmp_path: Path) -> None:
    path = write_sequence(tmp_path / "street", 2, {1: []})
    (path / "labels_v2" / "labels.npz").unlink()
    assert sequence_truth(path, dataset) is None


def test_recording_is_cut_into_windows_from_its_first_event_to_its_last(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a_td.h5", [(3, 5, 1, 120_000), (3, 5, 1, 130_000), (0, 0, 0, 260_000)])
    frames = list(recording_frames(path, None))
    assert [each.t_us for each in frames] == [150_000, 200_000, 250_000, 300_000]
    assert [int(each.frame.sum()) for each in frames] == [2, 0, 0, 1]
    first = frames[0].frame
    assert first.shape == (20, 16, 24)
    assert (first[10, 5, 3], first[19, 5, 3]) == (1, 1)


def test_recording_of_a_data_set_has_its_resolution(dataset: DatasetConfig, tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a_td.h5", [(3, 5, 1, 0), (2, 5, 1, 0)])
    (only,) = recording_frames(path, dataset)
    assert only.frame.shape == (20, *FRAME_HW)
    assert (int(only.frame.sum()), only.told) == (1, "2 events")  # the frame sees one of them


def test_boxes_beside_a_recording(dataset: DatasetConfig, tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a_td.h5", [(0, 0, 1, 0), (0, 0, 1, 90_000)])
    assert recording_truth(path, dataset) is None
    fields = [("ts", "<i8"), *((name, "<f4") for name in "xywh"), ("class_id", "u1")]
    np.save(tmp_path / "a_bbox.npy", np.array([(50_000, 4, 2, 10, 8, 1)], fields))
    assert recording_truth(path, None) is None
    assert recording_truth(path, dataset)(60_000, FRAME).xywh.tolist() == [[2, 1, 5, 4]]


@pytest.mark.parametrize(
    ("events_from_us", "boxes_from_us", "settings"),
    [
        (0, 0, []),
        (1_600_000_000_000_000, 1_600_000_000_000_000, []),
        (1_600_000_000_000_000, 0, []),
        (1_800_000_000, 0, ["dataset.preprocessing.label_clock=start"]),
        (1_800_000_000, 1_800_000_000, []),
    ],
)
def test_boxes_lie_on_their_events_whatever_the_clock(
    tmp_path: Path, events_from_us: int, boxes_from_us: int, settings: list[str]
) -> None:
    """An event in each window, and in its second half a box as large as the window's number."""
    sensor = f"dataset.resolution_hw=[{FRAME_HW[0] * 2},{FRAME_HW[1] * 2}]"
    dataset = load_dataset_config(["dataset=gen4", "dataset.downsample_by_factor_2=false", sensor, *settings])
    rows = [(number + 1, 5, 1, events_from_us + 50_000 * number) for number in range(8)]
    path = write_recording(tmp_path / "a_td.h5", rows)
    fields = [("t", "<i8"), *((name, "<f4") for name in "xywh"), ("class_id", "u1")]
    boxes = [(boxes_from_us + 50_000 * number + 30_000, 0, 0, 6 + number, 6, 1) for number in range(7)]
    np.save(tmp_path / "a_bbox.npy", np.array(boxes, fields))
    truth = recording_truth(path, dataset)
    drawn = [truth(each.t_us, each.frame) for each in recording_frames(path, dataset)]
    assert [boxes.xywh[0, 2] for boxes in drawn[:7]] == list(range(6, 13))


def test_empty_recording_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no events"):
        list(recording_frames(write_recording(tmp_path / "a_td.h5", []), None))


def test_stored_predictions_of_a_sequence(dataset: DatasetConfig, tmp_path: Path) -> None:
    result = result_of(
        ("street", 600_000, boxes_of(CAR), found(HIT, (0, 0, 30, 30, 0.5, 0.4, 0))),
        ("other", 600_000, boxes_of(CAR), found(ELSEWHERE)),
    )
    write_results(result, tmp_path)
    boxes = stored_predictions(tmp_path, "street", dataset, threshold=0.25)(600_000, FRAME)
    assert boxes.xywh.tolist() == [[60, 60, 80, 80]]
    assert boxes.scores.tolist() == pytest.approx([0.81])
    with pytest.raises(UserError, match="It has: other, street"):
        stored_predictions(tmp_path, "nowhere", dataset, threshold=0.25)


class CountingDetector(torch.nn.Module):
    """Its state counts the frames it saw, and so does its box."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, frames: torch.Tensor, state: int | None) -> tuple[torch.Tensor, int]:
        assert frames.shape == (1, 1, 20, 4, 4)
        return frames, (state or 0) + 1

    def select(self, features: torch.Tensor, labelled_frames: torch.Tensor) -> torch.Tensor:
        return features.flatten(0, 1)[labelled_frames]

    def detect(self, selected: torch.Tensor) -> list[torch.Tensor]:
        return [torch.tensor([[0.0, 0, 10, 10, 0.9, 0.9, float(selected.sum())], [0, 0, 5, 5, 0.1, 0.9, 0]])]


def test_network_runs_along_and_remembers() -> None:
    live = LivePredictions(CountingDetector(), "product", 0.25)
    boxes = [live(t_us, FRAME + t_us) for t_us in (0, 1)]
    assert [box.class_id.tolist() for box in boxes] == [[0], [320 % 2**31]]
    assert live._state == 2
