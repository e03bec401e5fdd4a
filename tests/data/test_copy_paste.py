from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from config.errors import ConfigError, UserError
from config.schema import CopyPasteConfig, TrainConfig
from data.batch import SequenceBatch
from data.boxes import xywh_from_cxcywh
from data.copy_paste import CopyPaste
from data.dataset import ChunkDataset
from data.index import load_index
from data.plan import ChunkRead
from modules.data import EventDataModule
from tests.conftest import CHANNELS, Boxes, write_sequence

FRAME_HW = (40, 64)
SENSOR = "dataset.resolution_hw=[80,128]"
STREET, TRAM = 36, 20  # frames
STREAM, RANDOM = "dataset.data_augmentation.stream", "dataset.data_augmentation.random"
STILL = [f"{kind}.{key}" for kind in (STREAM, RANDOM) for key in ("prob_hflip=0", "zoom.prob=0")]


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Train: a street where pedestrians stand (frames of 1), and one where a tram (7) and a rider (9) move on."""
    two: Boxes = [(0, 4.0, 4.0, 8.0, 16.0, 1), (0, 60.0, 40.0, 8.0, 16.0, 2)]
    people = dict.fromkeys(range(0, STREET, 2), two)
    frames = np.ones((STREET, CHANNELS, *FRAME_HW), np.uint8)
    write_sequence(tmp_path / "set" / "train" / "a_street", STREET, people, frames)
    write_sequence(tmp_path / "set" / "val" / "a_street", STREET, people, frames)
    frames = np.zeros((TRAM, CHANNELS, *FRAME_HW), np.uint8)
    tram: dict[int, Boxes] = {}
    for i in range(TRAM):
        frames[i, :, 16:32, i : i + 20] = 7
        frames[i, :, 20:24, i + 2 : i + 6] = 9
        if i % 2 == 0:  # in sensor pixels, twice those of the frame
            tram[i] = [(6, 2.0 * i, 32.0, 40.0, 32.0, 1), (2, 2.0 * i + 4, 40.0, 8.0, 8.0, 2)]
    write_sequence(tmp_path / "set" / "train" / "b_tram", TRAM, tram, frames)
    return tmp_path / "set"


@pytest.fixture
def chunks(make_config: Callable[..., TrainConfig], streets: Path) -> Callable[..., ChunkDataset]:
    def chunks(*overrides: str, length: int = 3) -> ChunkDataset:
        options = [f"dataset.path={streets}", SENSOR, f"dataset.sequence_length={length}", *STILL, *overrides]
        dataset = make_config(*options).dataset
        return ChunkDataset(load_index(dataset, "train"), dataset)

    return chunks


def boxes_by_frame(batch: SequenceBatch, start: int = 0) -> dict[int, list[list[float]]]:
    """Class, x, y, w, h of a batch of one lane, in order."""
    found: dict[int, list[list[float]]] = {int(frame) + start: [] for frame in batch.labelled_frames}
    frames = [int(frame) + start for frame in batch.labelled_frames]
    for box, image in zip(batch.boxes.numpy(), batch.box_image.tolist(), strict=True):
        found[frames[image]].append([float(box[0]), *xywh_from_cxcywh(box[None, 1:])[0].round(3).tolist()])
    return {frame: sorted(boxes) for frame, boxes in found.items()}


RARE = f"{STREAM}.copy_paste={{prob: 1, frames: 30, max_number: 1, rare: 9}}"  # the tram, or its rider


def test_a_tram_crosses_another_street_from_chunk_to_chunk(chunks: Callable[..., ChunkDataset]) -> None:
    """However a stream is cut into chunks, the same is seen: the tram's pixels in its box, at its own places."""
    seed, crossings = (5, 1, 0), 0
    whole = chunks(RARE, length=STREET)[ChunkRead(0, 0, STREET, True, 0, False, seed)]
    plain = chunks(length=STREET)[ChunkRead(0, 0, STREET, True, 0, False, seed)]
    short = chunks(RARE)
    for start in range(0, STREET, 3):
        part = short[ChunkRead(0, start, start + 3, start == 0, 0, False, seed)]
        assert (part.frames[:, 0] == whole.frames[start : start + 3, 0]).all()
        for frame, boxes in boxes_by_frame(part, start).items():
            assert boxes == boxes_by_frame(whole)[frame]
    shifts = set()
    for frame, boxes in boxes_by_frame(whole).items():
        for class_id, x, y, w, h in boxes:
            if class_id == 6:
                crossings += 1
                shifts.add(frame - x)  # the tram of frame i begins in column i
                area = whole.frames[frame, 0, :, int(y) : int(y + h), int(x) : int(x + w)]
                assert (area >= 7).all()
                assert [2.0, x + 2, y + 4, 4.0, 4.0] in boxes, "its rider comes along"
    assert crossings > 3
    assert 1 <= len(shifts) <= 2  # a track for each stretch of 30 frames
    untouched = whole.frames[:, 0] == plain.frames[:, 0]
    assert untouched[:, :, :16].all()
    assert untouched[:, :, 32:].all()


def test_a_chunk_that_stands_alone_shows_it_at_its_labelled_end(chunks: Callable[..., ChunkDataset]) -> None:
    dataset = chunks(f"{RANDOM}.copy_paste={{prob: 0.5, max_number: 1, rare: 9}}")
    reads = [ChunkRead(0, 6, 9, True, 0, True, (3, i)) for i in range(100)]
    pasted = [any(box[0] != 0 for box in boxes_by_frame(dataset[read], 6)[8]) for read in reads]
    assert 35 < sum(pasted) < 65
    assert not any(box[0] != 0 for box in boxes_by_frame(dataset[reads[0]._replace(is_random=False)], 6)[8])


def test_what_a_paste_hides_has_no_box_any_more(chunks: Callable[..., ChunkDataset], streets: Path) -> None:
    car: Boxes = [(1, 0.0, 0.0, 30.0, 24.0, 1)]
    frames = np.ones((4, CHANNELS, *FRAME_HW), np.uint8)
    write_sequence(streets / "train" / "c_still", 4, dict.fromkeys(range(4), car), frames)
    dataset = chunks(f"{RANDOM}.copy_paste={{prob: 1, max_number: 1, rare: 9, small: 0}}")
    found = [boxes_by_frame(dataset[ChunkRead(0, 6, 9, True, 0, True, (3, i))], 6)[8] for i in range(40)]
    under_car = [boxes for boxes in found if any(box[0] == 1 for box in boxes)]
    assert under_car
    assert all(boxes == [[0.0, 30.0, 20.0, 4.0, 8.0], [1.0, 0.0, 0.0, 15.0, 12.0]] for boxes in under_car)


def test_flips_and_zooms_move_what_was_pasted_as_everything_else(chunks: Callable[..., ChunkDataset]) -> None:
    read = ChunkRead(0, 0, STREET, True, 0, False, (5, 1, 0))
    still = chunks(RARE, length=STREET)[read]
    flipped = chunks(RARE, f"{STREAM}.prob_hflip=1", length=STREET)[read]
    assert (flipped.frames == still.frames.flip(-1)).all()
    for one, other in zip(boxes_by_frame(still).values(), boxes_by_frame(flipped).values(), strict=True):
        assert sorted([c, FRAME_HW[1] - 1 - x - w, y, w, h] for c, x, y, w, h in one) == other


def test_rare_classes_and_small_objects_are_drawn_more_often(chunks: Callable[..., ChunkDataset]) -> None:
    dataset = chunks(f"{RANDOM}.copy_paste.prob=1")
    paste = CopyPaste(dataset._index, dataset._sequence)

    def shares(**options: float) -> list[float]:
        config = CopyPasteConfig.model_validate({"prob": 1, "max_number": 1, **options})
        drawn = [paste.draw(ChunkRead(0, 6, 9, True, 0, True, (i,)), config)[0].track for i in range(1500)]
        return [Counter(track.class_id for track in drawn)[class_id] / 1500 for class_id in (0, 2, 6)]

    counts = np.array([2 * STREET / 2, TRAM / 2, TRAM / 2])
    for rare in (0.0, 1.0, 2.0, 1000.0):
        weight = (counts / counts.min()) ** -rare
        assert shares(rare=rare, small=rare) == pytest.approx(weight / weight.sum(), abs=0.04)


def test_a_class_without_tracks_is_told_and_takes_nobody_s_place(
    chunks: Callable[..., ChunkDataset], make_config: Callable[..., TrainConfig], streets: Path
) -> None:
    """It is the rarest by far: alone it would be drawn."""
    write_sequence(streets / "train" / "c_truck", 4, {1: [(5, 4.0, 4.0, 8.0, 8.0, 1)]})
    dataset = chunks(f"{RANDOM}.copy_paste={{prob: 1, max_number: 1, rare: 9}}")
    assert len(boxes_by_frame(dataset[ChunkRead(0, 6, 9, True, 0, True, (3, 1))], 6)[8]) > 2
    data = EventDataModule(make_config(f"dataset.path={streets}", SENSOR, f"{RANDOM}.copy_paste.prob=0.1"))
    with pytest.warns(UserWarning, match="copy_paste cannot paste truck"):
        data.require_tracks()


def test_labels_without_tracks_are_refused_before_the_run_begins(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    everywhere: dict[int, Boxes] = {i: [(0, 4.0, 4.0, 8.0, 8.0), (0, 14.0, 4.0, 8.0, 8.0)] for i in range(8)}
    write_sequence(tmp_path / "none" / "train" / "a", 8, everywhere)
    data = EventDataModule(make_config(f"dataset.path={tmp_path / 'none'}", f"{STREAM}.copy_paste.prob=0.1"))
    with pytest.raises(UserError, match=r"follows objects by track_id.*copy_paste.prob=0"):
        data.require_tracks()
    EventDataModule(make_config(f"dataset.path={tmp_path / 'none'}")).require_tracks()


@pytest.mark.parametrize(("kind", "sampling"), [("random", "stream"), ("stream", "random")])
def test_pasting_into_what_is_not_read_is_refused(
    make_config: Callable[..., TrainConfig], kind: str, sampling: str
) -> None:
    with pytest.raises(ConfigError, match="has no effect"):
        make_config(f"dataset.train.sampling={sampling}", f"dataset.data_augmentation.{kind}.copy_paste.prob=0.5")
