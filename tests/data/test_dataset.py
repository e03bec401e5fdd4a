"""From chunk reads to a batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

import data.sequence
from config.schema import TrainConfig
from data.dataset import ChunkDataset
from data.index import load_index
from data.plan import ChunkRead
from scripts.soak import damage_frame
from tests.conftest import FRAMES_FILE, REPRESENTATION, write_sequence


def read(sequence: int, start: int, stop: int, row: int = 0, **changes: object) -> ChunkRead:
    """A chunk of a stream's middle, without augmentation."""
    return ChunkRead(sequence, start, stop, False, row, False, None)._replace(**changes)


@pytest.fixture
def make_dataset(make_config: Callable[..., TrainConfig]) -> Callable[..., ChunkDataset]:
    def make(*overrides: str, split: str = "train") -> ChunkDataset:
        dataset = make_config(*overrides).dataset
        return ChunkDataset(load_index(dataset, split), dataset)

    return make


def test_rows_of_a_batch_are_its_reads(make_dataset: Callable[..., ChunkDataset]) -> None:
    """Sequence 0 has 7 frames, sequence 1 has 12; frame i has the value i + 1; the odd ones are labelled."""
    batch = make_dataset().__getitems__([read(1, 0, 3, is_first=True), read(0, 6, 7, row=3)])
    assert batch.frames[:, :, 0, 0, 0].tolist() == [[1, 7], [2, 0], [3, 0]]
    assert batch.t_us.tolist() == [[100_000, 400_000], [150_000, -1], [200_000, -1]]
    assert batch.labelled_frames.tolist() == [1 * 2 + 0]
    assert batch.boxes.tolist() == [[2.0, 4.5, 3.0, 5.0, 4.0]]  # class 1 + 1; corner (2, 1), 5 x 4 pixels
    assert batch.box_image.tolist() == [0]
    assert batch.is_first.tolist() == [True, False]
    assert batch.lane.tolist() == [0, 3]
    assert batch.addresses() == ["sequence_1[0:3]", "sequence_0[6:9]"]
    assert batch.faults == ()


def test_labelled_frames_are_in_order_of_time_and_row(make_config: Callable[..., TrainConfig]) -> None:
    dataset = make_config().dataset
    split = dataset.path / "train"
    write_sequence(split / "sequence_4", 3, {0: [(0, 2.0, 2.0, 4.0, 4.0), (1, 2.0, 2.0, 4.0, 4.0)], 2: []})
    write_sequence(split / "sequence_5", 3, {0: [], 1: [(2, 2.0, 2.0, 4.0, 4.0)], 2: [(3, 2.0, 2.0, 4.0, 4.0)]})
    batch = ChunkDataset(load_index(dataset, "train"), dataset).__getitems__([read(5, 0, 3), read(4, 0, 3)])
    assert batch.labelled_frames.tolist() == [0, 1, 2, 4, 5]
    assert batch.boxes[:, 0].tolist() == [0, 1, 2, 3]
    assert batch.box_image.tolist() == [1, 1, 2, 3]


def test_batch_without_labels_has_empty_tensors(make_dataset: Callable[..., ChunkDataset]) -> None:
    batch = make_dataset().__getitems__([read(0, 0, 1), read(1, 0, 1)])
    assert batch.boxes.shape == (0, 5)
    assert len(batch.box_image) == len(batch.labelled_frames) == 0


def test_only_load_end_labels_concerns_random_chunks(make_dataset: Callable[..., ChunkDataset]) -> None:
    dataset = make_dataset("dataset.only_load_end_labels=true")
    batch = dataset.__getitems__([read(1, 1, 4, is_random=True), read(1, 1, 4), read(1, 2, 5, is_random=True)])
    assert batch.labelled_frames.tolist() == [0 * 3 + 1, 2 * 3 + 0, 2 * 3 + 1]
    assert batch.box_image.tolist() == [0, 1, 2]


def test_augmentation_moves_frames_and_boxes_and_leaves_no_flat_box(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config(
        "dataset.data_augmentation.stream.prob_hflip=1", "dataset.data_augmentation.stream.zoom.prob=0"
    )
    frames = np.zeros((3, 20, 8, 12), dtype=np.uint8)
    frames[..., 0] = 5
    path = config.dataset.path / "train" / "sequence_4"
    write_sequence(path, 3, {1: [(0, 0.0, 0.0, 4.0, 4.0), (1, 23.0, 0.0, 5.0, 4.0)]}, frames)
    batch = ChunkDataset(load_index(config.dataset, "train"), config.dataset)[read(4, 0, 3, augmentation_seed=(1,))]
    assert batch.frames[:, 0, 0, 0].tolist() == [[0] * 11 + [5]] * 3
    assert batch.boxes.tolist() == [[0, 10, 1, 2, 2]]  # x = 12 - 1 - 0 - 2 = 9
    assert batch.labelled_frames.tolist() == [1]


@pytest.mark.parametrize(("keep", "labelled"), [("false", [1, 2]), ("true", [0, 1, 2])])
def test_zooming_in_aims_at_the_latest_labelled_frame_and_those_it_empties_are_unlabelled(
    make_config: Callable[..., TrainConfig], keep: str, labelled: list[int]
) -> None:
    """Frame 0 has its box in one corner, frame 2 in the other; frame 1 was annotated without any."""
    zoom = "dataset.data_augmentation.random.zoom"
    config = make_config(
        f"{zoom}.prob=1", f"{zoom}.zoom_in.weight=1", f"{zoom}.zoom_out.weight=0", f"{zoom}.zoom_in.factor.max=2",
        f"{zoom}.zoom_in.factor.min=2", f"dataset.data_augmentation.keep_emptied_frames={keep}",
    )  # fmt: skip
    path = config.dataset.path / "train" / "sequence_4"
    write_sequence(path, 3, {0: [(0, 0.0, 0.0, 2.0, 2.0)], 1: [], 2: [(3, 16.0, 8.0, 4.0, 4.0)]})
    dataset = ChunkDataset(load_index(config.dataset, "train"), config.dataset)
    for seed in range(20):
        batch = dataset[read(4, 0, 3, augmentation_seed=(seed,), is_random=True)]
        assert batch.boxes[:, 0].tolist() == [3]
        assert batch.labelled_frames.tolist() == labelled
        assert batch.box_image.tolist() == [labelled.index(2)]


def test_frames_after_a_streams_end_stay_empty_under_augmentation(make_dataset: Callable[..., ChunkDataset]) -> None:
    dataset = make_dataset("dataset.data_augmentation.stream.prob_hflip=1")
    batch = dataset.__getitems__([read(1, 3, 5, augmentation_seed=(seed,), row=seed) for seed in range(8)])
    assert (batch.frames[:2].flatten(2).amax(dim=2) > 0).all()
    assert (batch.frames[2] == 0).all()


def test_damaged_chunk_comes_empty_with_its_address(make_dataset: Callable[..., ChunkDataset], data_set: Path) -> None:
    damage_frame(data_set / "train" / "sequence_1" / REPRESENTATION / FRAMES_FILE, 4)
    batch = make_dataset().__getitems__([read(1, 3, 6), read(0, 3, 6, row=1), read(1, 6, 9, row=2)])
    assert (batch.frames[:, 0] == 0).all()
    assert batch.frames[:, 1:, 0, 0, 0].tolist() == [[4, 7], [5, 8], [6, 9]]
    assert batch.t_us[:, 0].tolist() == [-1, -1, -1]
    assert batch.is_first.tolist() == [True, False, False]
    assert set((batch.labelled_frames % 3).tolist()) == {1, 2}
    (fault,) = batch.faults
    assert f"sequence_1/{REPRESENTATION}/{FRAMES_FILE}: frame 4 is damaged" in fault
    assert "frames 3..5" in fault


def test_files_are_opened_once_per_process(
    make_dataset: Callable[..., ChunkDataset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original, log = data.sequence.Hdf5Frames, tmp_path / "opened"

    def opened(path: Path) -> data.sequence.Hdf5Frames:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {path}\n")
        return original(path)

    monkeypatch.setattr(data.sequence, "Hdf5Frames", opened)
    reads = [[read(sequence, start, start + 3) for sequence in (0, 1)] for start in (0, 1, 2, 3)] * 3
    dataset = make_dataset()
    dataset.__getitems__(reads[0])  # a handle of the parent, which must not be used after the fork
    for batch in DataLoader(dataset, batch_sampler=reads, num_workers=2, collate_fn=lambda batch: batch):
        assert batch.faults == ()
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 3 * 2


def test_open_files_are_bounded(make_dataset: Callable[..., ChunkDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.dataset._MAX_OPEN_SEQUENCES", 2)
    dataset = make_dataset()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for sequence in (0, 1, 2, 3, 0, 1):
        assert dataset[read(sequence, 0, 3)].frames[:, 0, 0, 0, 0].tolist() == [1, 2, 3]
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 2
