"""Reading a sequence folder: frames, times and labels by frame index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import DatasetConfig
from data.frame_store import write_frame_store
from data.index import load_index
from data.layout import compact_path
from data.pixel_map import FreePixelMap, PixelMap
from data.sequence import Sequence
from scripts.soak import damage_frame
from tests.conftest import CHANNELS, FRAME_HW, FRAMES_FILE, REPRESENTATION, write_frames, write_sequence

GOLDEN = Path(__file__).parents[1] / "golden"
FLIP = PixelMap(np.arange(FRAME_HW[0]), np.arange(FRAME_HW[1])[::-1])


@pytest.fixture
def dataset() -> DatasetConfig:
    return load_dataset_config(["dataset=gen4", f"dataset.resolution_hw=[{FRAME_HW[0] * 2},{FRAME_HW[1] * 2}]"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven frames of the values 1..7; frame 2 has two boxes, frame 4 none, frame 5 one."""
    boxes = {2: [(0, 2.0, 4.0, 6.0, 8.0), (7, 20.0, 2.0, 10.0, 4.0)], 4: [], 5: [(3, -4.0, -4.0, 8.0, 8.0)]}
    return write_sequence(tmp_path / "sequence", 7, boxes)


def test_chunk_past_the_end_is_padded_with_empty_frames(folder: Path, dataset: DatasetConfig) -> None:
    sequence = Sequence(folder, dataset)
    assert len(sequence) == 7
    assert sequence.frames(5, 9)[:, 0, 0, 0].tolist() == [6, 7, 0, 0]
    assert sequence.t_us(5, 9).tolist() == [350_000, 400_000, -1, -1]


def test_a_longer_chunk_than_asked_for_is_emptied(folder: Path, dataset: DatasetConfig) -> None:
    batch = np.full((4, 2, CHANNELS, *FRAME_HW), 9, dtype=np.uint8)
    Sequence(folder, dataset).frames(1, 3, batch[:, 1])
    assert batch[:, 1, 0, 0, 0].tolist() == [2, 3, 0, 0]
    assert (batch[:, 0] == 9).all()


def test_labels_are_of_the_loaded_frame_and_counted_from_the_first(folder: Path, dataset: DatasetConfig) -> None:
    labels = Sequence(folder, dataset).labels(1, 6)
    assert labels.frames.tolist() == [1, 3, 4]
    assert labels.box_image.tolist() == [0, 0, 2]
    assert labels.boxes.tolist() == [[0, 1, 2, 3, 4], [7, 10, 1, 1, 2], [3, 0, 0, 2, 2]]  # clamped to 11, 7


def test_labels_outside_of_the_stretch_are_left_out(folder: Path, dataset: DatasetConfig) -> None:
    assert Sequence(folder, dataset).labels(3, 5).frames.tolist() == [1]
    assert len(Sequence(folder, dataset).labels(0, 2).frames) == 0


def test_changing_labels_does_not_change_the_sequence(folder: Path, dataset: DatasetConfig) -> None:
    sequence = Sequence(folder, dataset)
    sequence.labels(0, 7).boxes[:] = -1
    assert (sequence.labels(0, 7).boxes >= 0).all()


def test_fewer_frames_than_times_are_an_error_not_empty_frames(folder: Path, dataset: DatasetConfig) -> None:
    write_frames(folder / REPRESENTATION / FRAMES_FILE, np.zeros((6, CHANNELS, *FRAME_HW), np.uint8))
    with pytest.raises(UserError, match=rf"{FRAMES_FILE}: 6 frames, but timestamps_us.npy has 7.*preprocess.py"):
        Sequence(folder, dataset).frames(0, 3)


def test_labels_without_a_field_name_the_file(folder: Path, dataset: DatasetConfig) -> None:
    path = folder / "labels_v2" / "labels.npz"
    content = dict(np.load(path))
    content["labels"] = content["labels"][["t", "x", "y", "h", "class_id"]]
    np.savez(path, **content)
    with pytest.raises(UserError, match=r"labels.npz is missing or damaged.*w"):
        Sequence(folder, dataset).labels(0, 3)


@pytest.mark.parametrize("pixel_map", [None, FLIP, FreePixelMap(np.arange(96)[::-1].reshape(FRAME_HW))])
def test_compact_store_is_read_instead_where_there_is_one(
    tmp_path: Path, dataset: DatasetConfig, pixel_map: PixelMap | FreePixelMap | None
) -> None:
    frames = np.random.default_rng(0).integers(0, 3, (7, CHANNELS, *FRAME_HW)).astype(np.uint8)
    folder = write_sequence(tmp_path / "sequence", 7, {3: []}, frames)
    slow = Sequence(folder, dataset).frames(2, 9, pixel_map=pixel_map)
    path = folder / REPRESENTATION / FRAMES_FILE
    write_frame_store(compact_path(path), frames, (CHANNELS, *FRAME_HW))
    path.unlink()
    np.testing.assert_array_equal(Sequence(folder, dataset).frames(2, 9, pixel_map=pixel_map), slow)
    expected = frames[2] if pixel_map is None else frames[2][..., ::-1]
    if not isinstance(pixel_map, FreePixelMap):
        np.testing.assert_array_equal(slow[0], expected)


def test_damaged_frame_is_an_error_that_names_file_and_frame(folder: Path, dataset: DatasetConfig) -> None:
    path = folder / REPRESENTATION / FRAMES_FILE
    damage_frame(path, 4)
    sequence = Sequence(folder, dataset)
    assert sequence.frames(0, 4)[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    with pytest.raises(UserError, match=rf"{FRAMES_FILE}: frame 4 is damaged"):
        sequence.frames(3, 6)


def test_frames_of_another_size_name_the_keys(folder: Path, dataset: DatasetConfig) -> None:
    with pytest.raises(UserError, match=r"resolution_hw"):
        Sequence(folder, dataset).frames(0, 1, np.empty((1, CHANNELS, 4, 4), np.uint8))


@pytest.mark.parametrize(
    "name", [f"{REPRESENTATION}/{FRAMES_FILE}", f"{REPRESENTATION}/timestamps_us.npy", "labels_v2/labels.npz"]
)
def test_missing_files_are_named(folder: Path, dataset: DatasetConfig, name: str) -> None:
    (folder / name).unlink()
    sequence = Sequence(folder, dataset)
    with pytest.raises(UserError, match=Path(name).name):
        (sequence.frames(0, 1), sequence.t_us(0, 1), sequence.labels(0, 1))


def test_chunks_are_those_of_the_reference() -> None:
    """Every sample of the reference's random-access data set and streams: labels, and sums of events."""
    golden = np.load(GOLDEN / "sequences.npz")
    names = dict(zip(golden["sequence_ids"].tolist(), golden["sequence_names"].tolist(), strict=True))
    dataset = load_dataset_config(["dataset=gen4"])
    for sample in ("rnd_train", "rnd_val", "train_stream", "eval_stream_bs2"):
        seen = []
        for row, (number, start, stop, _) in enumerate(golden[f"{sample}_meta"].tolist()):
            if number == 0:
                continue  # a lane that has run out
            split = "train" if names[number].endswith("train") else "val"
            sequence = Sequence(GOLDEN / "seq_dataset" / split / names[number], dataset)
            frames = sequence.frames(start, stop, np.empty((5, *sequence.frame_chw), np.uint8))
            np.testing.assert_array_equal(frames.sum(axis=(1, 2, 3)), golden[f"{sample}_ev_sum"][row])
            labels = sequence.labels(start, stop)
            boxes_per_frame = np.zeros(5, dtype=int)
            np.add.at(boxes_per_frame, labels.frames[labels.box_image], 1)
            np.testing.assert_array_equal(boxes_per_frame, np.maximum(golden[f"{sample}_num_labels"][row], 0))
            seen.append(labels.boxes)
        np.testing.assert_array_equal(np.concatenate(seen), golden[f"{sample}_labels"][:, [5, 1, 2, 3, 4]])


def test_frames_of_a_size_between_lie_in_a_file_of_their_own(folder: Path, dataset: DatasetConfig) -> None:
    """Three quarters of the sensor's 16 x 24 pixels; the second box ends at its last column, 23, which is 17 here."""
    between = dataset.model_copy(update={"frame_hw": (12, 18)})
    with pytest.raises(UserError, match=r"event_representations_12x18\.h5 not found"):
        Sequence(folder, between).frames(0, 1)
    frames = np.full((7, CHANNELS, 12, 18), 5, dtype=np.uint8)
    write_frames(folder / REPRESENTATION / "event_representations_12x18.h5", frames)
    assert (Sequence(folder, between).frames(0, 7) == 5).all()
    boxes = Sequence(folder, between).labels(2, 3).boxes.tolist()
    assert boxes == [[0, 1.5, 3, 4.5, 6], [7, 15, 1.5, 2, 3]]
    assert Sequence(folder, dataset).frames(0, 1).shape[2:] == FRAME_HW


def test_a_class_map_gives_stored_classes_their_new_ids(tmp_path: Path) -> None:
    """Of data preprocessed with eTraM's eight classes, read in its three categories."""
    etram3 = load_dataset_config(
        ["dataset=etram3", f"dataset.path={tmp_path}", f"dataset.resolution_hw=[{FRAME_HW[0] * 2},{FRAME_HW[1] * 2}]"]
    )
    labels = {i: [(i, 4.0, 2.0, 10.0, 8.0)] for i in range(8)}
    folder = write_sequence(tmp_path / "train" / "sequence", 9, labels)
    read = Sequence(folder, etram3).labels(0, 9)
    named = [etram3.classes[int(class_id)] for class_id in read.boxes[:, 0]]
    assert named == [
        "pedestrian",
        "vehicle",
        "two-wheeler",
        "vehicle",
        "two-wheeler",
        "vehicle",
        "vehicle",
        "two-wheeler",
    ]
    index = load_index(etram3, "train")
    assert index.class_counts.sum(axis=0).tolist() == [1, 3, 4]
    assert index.unknown_ids.tolist() == [0]
    write_sequence(tmp_path / "val" / "sequence", 3, {1: [(8, 4.0, 2.0, 10.0, 8.0)]})
    assert load_index(etram3, "val").unknown_ids.tolist() == [1]
