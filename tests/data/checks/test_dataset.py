"""check_dataset finds each fault, and names file, place and remedy; the script's exit code tells of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from config.errors import UserError
from config.schema import DatasetConfig, TrainConfig
from data.checks.dataset import check_dataset, require_usable
from data.checks.frames import FramesFound, check_all_frames
from data.frame_files import add_frame_files
from data.index import load_index
from data.layout import SequenceLayout, compact_path
from scripts.check_dataset import main
from scripts.soak import damage_frame
from tests.conftest import (
    CHANNELS,
    FRAME_HW,
    FRAMES_FILE,
    REPRESENTATION,
    write_frames,
    write_sequence,
)


@pytest.fixture
def dataset(make_config: Callable[..., TrainConfig]) -> DatasetConfig:
    return make_config().dataset


def change_boxes(sequence: Path, **changes: object) -> None:
    """Overwrite arrays of labels.npz."""
    path = sequence / "labels_v2" / "labels.npz"
    with np.load(path) as content:
        arrays = {**content, **changes}
    np.savez(path, **arrays)


def change_field(sequence: Path, field: str, value: float, which: int | slice = 1) -> None:
    """Set a field, of the second box unless `which` says more."""
    with np.load(sequence / "labels_v2" / "labels.npz") as content:
        boxes = content["labels"]
    boxes[field][which] = value
    change_boxes(sequence, labels=boxes)


def retype_field(sequence: Path, field: str, dtype: type, value: complex) -> None:
    """Give a field another type, and the second box that value."""
    with np.load(sequence / "labels_v2" / "labels.npz") as content:
        old = content["labels"]
    types = [(name, dtype if name == field else old.dtype[name]) for name in old.dtype.names or ()]
    boxes = old.astype(types)
    boxes[field][1] = value
    change_boxes(sequence, labels=boxes)


def retype(path: Path, dtype: type | str, index: int, value: object) -> None:
    values = np.load(path).astype(dtype)
    values[index] = value
    np.save(path, values)


def change_npy(path: Path, index: int, value: int) -> None:
    values = np.load(path)
    values[index] = value
    np.save(path, values)


def test_a_sound_set_has_no_faults_and_its_totals(dataset: DatasetConfig) -> None:
    report = check_dataset(dataset, thorough=True)
    assert report.faults == []
    train = report.splits[0]
    assert (train.split, train.num_sequences, train.num_frames, train.num_labelled_frames) == ("train", 4, 33, 15)
    assert (train.label_interval_ms, train.longest_label_gap_ms) == (100, 100)
    assert train.boxes[:, 0].sum() == train.boxes.sum() == 15  # all smaller than 32 x 32
    assert train.boxes[3].tolist() == [2, 0, 0]
    assert train.counts_per_frame == pytest.approx(
        CHANNELS * 8 * 12 * (1 + 4 + 7 + 1 + 6 + 12 + 1 + 3 + 5 + 1 + 5 + 9) / 12
    )


FAULTS: list[tuple[Callable[[Path], object], str, str]] = [
    (lambda s: shutil.rmtree(s / REPRESENTATION), "not found", "preprocess"),
    (
        lambda s: (s / REPRESENTATION).rename(s / REPRESENTATION.replace("dt=50", "dt=25")),
        "not found",
        "There is stacked_histogram_dt=25_nbins=10: set dataset.ev_repr_name",
    ),
    (lambda s: (s / REPRESENTATION / FRAMES_FILE).unlink(), "not found", "preprocess"),
    (
        lambda s: (s / REPRESENTATION / FRAMES_FILE).rename(s / REPRESENTATION / "event_representations.h5"),
        "not found",
        "There is event_representations.h5: check dataset.downsample_by_factor_2",
    ),
    (lambda s: damage_frame(s / REPRESENTATION / FRAMES_FILE, 0), "frame 0 is damaged", "preprocess"),
    (lambda s: (s / REPRESENTATION / FRAMES_FILE).write_bytes(b"HDF"), "is damaged", "preprocess"),
    (
        lambda s: write_frames(s / REPRESENTATION / FRAMES_FILE, np.zeros((12, 20, 4, 6), np.uint8)),
        r"frames are (20, 4, 6), but the config says (20, 8, 12)",
        "dataset.resolution_hw",
    ),
    (
        lambda s: write_frames(s / REPRESENTATION / FRAMES_FILE, np.zeros((11, CHANNELS, *FRAME_HW), np.uint8)),
        "11 frames, but timestamps_us.npy has 12",
        "preprocess",
    ),
    (
        lambda s: change_npy(s / REPRESENTATION / "timestamps_us.npy", 5, 0),
        "times do not rise at frame 5",
        "preprocess",
    ),
    (lambda s: change_npy(s / REPRESENTATION / "objframe_idx_2_repr_idx.npy", -1, 12), "frame 12 of 12", "preprocess"),
    (lambda s: change_npy(s / REPRESENTATION / "objframe_idx_2_repr_idx.npy", 1, 9), "do not rise at label 2", ""),
    (lambda s: np.save(s / REPRESENTATION / "objframe_idx_2_repr_idx.npy", np.arange(3)), "index maps do not fit", ""),
    (lambda s: change_boxes(s, objframe_idx_2_label_idx=np.array([0, 1, 2, 3, 4, 99])), "does not fit the boxes", ""),
    (lambda s: change_field(s, "t", 0), "labelled frame 1 is 250 ms away from its window", "preprocess"),
    (lambda s: change_field(s, "x", np.nan, slice(None)), "6 boxes are not finite, the first is box 0", "preprocess"),
    (lambda s: change_field(s, "class_id", 8), "class ids [8] of 1 boxes", "dataset=..."),
    (
        lambda s: change_boxes(s, objframe_idx_2_label_idx=np.arange(1, 7)),
        "does not fit the boxes",
        "",
    ),
    (lambda s: retype_field(s, "class_id", np.float64, 1.9), "class ids: 1.9 at row 1 is not a whole number", ""),
    (lambda s: retype_field(s, "class_id", np.int64, 2**32 + 2), "class ids [4294967298] of 1 boxes", "dataset=..."),
    (lambda s: retype_field(s, "class_id", np.int64, -1), "class ids [-1] of 1 boxes", "dataset=..."),
    (lambda s: retype_field(s, "x", np.complex64, 1), "x of the boxes is complex64", "preprocess"),
    (lambda s: change_boxes(s, labels=np.zeros(6)), "not a list of boxes", "preprocess"),
    (
        lambda s: np.save(s / REPRESENTATION / "objframe_idx_2_repr_idx.npy", np.arange(0, 12, 2)),
        "is not of frame 0",
        "preprocess",
    ),
    (lambda s: retype(s / REPRESENTATION / "timestamps_us.npy", float, 3, np.nan), "nan at row 3 is not a whole", ""),
    (lambda s: retype(s / REPRESENTATION / "timestamps_us.npy", "U9", 3, "x"), "not a list of whole numbers", ""),
    (
        lambda s: change_npy(s / "labels_v2" / "timestamps_us.npy", 2, 0),
        "the label at 0 us (row 2) is not of frame",
        "",
    ),
    (lambda s: (s / "labels_v2" / "labels.npz").unlink(), "labels.npz is missing or damaged", "preprocess"),
    (lambda s: (s / "labels_v2" / "labels.npz").write_bytes(b""), "labels.npz is missing or damaged", "preprocess"),
    (lambda s: (s / REPRESENTATION / "timestamps_us.npy").write_bytes(b""), "timestamps_us.npy is missing or", ""),
    (lambda s: [shutil.rmtree(other) for other in s.parent.iterdir()], "train: no sequences", "preprocess"),
    (lambda s: shutil.rmtree(s.parent), "train: not found", "dataset.path"),
]


@pytest.mark.parametrize(("spoil", "what", "remedy"), FAULTS)
def test_each_fault_is_reported_with_place_and_remedy(
    dataset: DatasetConfig, spoil: Callable[[Path], object], what: str, remedy: str
) -> None:
    spoil(dataset.path / "train" / "sequence_1")
    for thorough in (True, False):
        (fault,) = check_dataset(dataset, thorough=thorough).blocking
        assert what in str(fault)
        assert remedy in str(fault)
        assert str(dataset.path / "train") in str(fault)


def test_what_training_does_not_suffer_from_is_a_note(dataset: DatasetConfig) -> None:
    shutil.rmtree(dataset.path / "test")
    write_sequence(dataset.path / "train" / "sequence_8", 5, {})
    change_field(dataset.path / "train" / "sequence_1", "x", 500.0)
    change_field(dataset.path / "train" / "sequence_2", "x", np.nan)
    report = check_dataset(dataset, thorough=True)
    assert report.blocking == []
    notes = "\n".join(map(str, report.faults))
    for text in (
        "test: not found",
        "sequence_8",
        "no labelled frame",
        "1 boxes lie outside of 16 x 24 pixels",
        "1 boxes are not finite",
    ):
        assert text in notes


def test_quick_check_looks_at_a_few_sequences_only(dataset: DatasetConfig) -> None:
    for number in range(4, 30):
        write_sequence(dataset.path / "train" / f"sequence_{number}", 3, {2: []})
    report = check_dataset(dataset, thorough=False, splits=("train",))
    assert report.splits[0].num_sequences == 8


def test_training_refuses_a_spoiled_set_and_takes_a_sound_one(dataset: DatasetConfig) -> None:
    require_usable(dataset)
    damage_frame(dataset.path / "val" / "sequence_0" / REPRESENTATION / FRAMES_FILE, 0)
    with pytest.raises(UserError, match=r"1 faults.*\n.*val/sequence_0.*frame 0 is damaged"):
        require_usable(dataset)


def test_damaged_frames_are_warned_of_where_training_may_skip_some(dataset: DatasetConfig) -> None:
    damage_frame(dataset.path / "val" / "sequence_0" / REPRESENTATION / FRAMES_FILE, 0)
    with pytest.warns(UserWarning, match="frame 0 is damaged.*Delete.*run scripts/preprocess.py.*left out"):
        require_usable(dataset, max_damaged_chunks=1)
    damage_frame(dataset.path / "train" / "sequence_0" / REPRESENTATION / FRAMES_FILE, 0)
    with pytest.raises(UserError, match="2 faults"):
        require_usable(dataset, max_damaged_chunks=1)


def test_script_prints_tables_and_exits_with_1_for_a_fault(
    dataset: DatasetConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["dataset=gen4", f"dataset.path={dataset.path}", "dataset.resolution_hw=[16,24]"]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "wheelchair" in output
    assert "2 (2/0/0)" in output
    assert "0 faults, 0 notes" in output
    damage_frame(dataset.path / "val" / "sequence_0" / REPRESENTATION / FRAMES_FILE, 0)
    assert main(arguments) == 1
    assert "FAULT" in (output := capsys.readouterr().out)
    assert "val/sequence_0" in output
    assert main(["dataset=gen4", "dataset.path=/nowhere"]) == 2
    assert "/nowhere not found" in capsys.readouterr().err


def test_links_without_target_are_faults_and_folders_of_others_are_notes(dataset: DatasetConfig) -> None:
    (dataset.path / "train" / "sequence_9").symlink_to("/nowhere")
    for name in ("@eaDir", "lost+found"):
        (dataset.path / "train" / name / "deeper").mkdir(parents=True)
    report = check_dataset(dataset, thorough=True)
    (fault,) = report.blocking
    what = "a link to /nowhere, which is not there. Restore its target, or delete the link"
    assert str(fault) == f"{dataset.path}/train/sequence_9: {what}"
    notes = [fault.path.name for fault in report.faults if not fault.blocks_training]
    assert notes == ["@eaDir", "lost+found"]
    with pytest.raises(UserError, match="sequence_9 is a link to what is not there"):
        load_index(dataset, "train")
    (dataset.path / "train" / "sequence_9").unlink()
    assert "@eaDir" not in load_index(dataset, "train").names


def empty_frames(sequence: Path, of: slice) -> None:
    """Without an event."""
    frames = np.ones((12, CHANNELS, *FRAME_HW), np.uint8)
    frames[of] = 0
    write_frames(sequence / REPRESENTATION / FRAMES_FILE, frames)


def test_labelled_frames_without_events_are_a_fault_if_they_are_most(dataset: DatasetConfig) -> None:
    sequence = dataset.path / "train" / "sequence_1"
    labelled = np.load(sequence / REPRESENTATION / "objframe_idx_2_repr_idx.npy")
    half = len(labelled) // 2
    empty_frames(sequence, slice(labelled[0], labelled[half]))
    assert check_dataset(dataset, thorough=False).blocking == []
    empty_frames(sequence, slice(labelled[0], labelled[half + 1]))
    for thorough in (True, False):
        (fault,) = check_dataset(dataset, thorough=thorough).blocking
        assert f"{half + 1} of {len(labelled)} labelled frames hold no event. Events and labels are of" in str(fault)
    with pytest.raises(UserError, match="labelled frames hold no event"):
        require_usable(dataset)
    (fault,) = check_all_frames(dataset, sequence).faults
    assert f"{half + 1} of {len(labelled)} labelled frames hold no event" in str(fault)


def test_every_frame_is_read_from_both_files_and_compared(
    dataset: DatasetConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["dataset=gen4", f"dataset.path={dataset.path}", "dataset.resolution_hw=[16,24]"]
    folder = dataset.path / "train" / "sequence_1"
    frames = folder / REPRESENTATION / FRAMES_FILE
    damage_frame(frames, 4)  # which no sample looks at
    assert main(arguments) == 0
    assert "full=true reads every one" in capsys.readouterr().out
    assert main([*arguments, "full=true", "workers=2"]) == 1
    output = capsys.readouterr().out
    assert "frames 4 of 12 damaged. Delete" in output
    assert "every one of" in output
    empty_frames(folder, slice(3, 4))
    add_frame_files(SequenceLayout.of(folder, dataset), files="compact")
    empty_frames(folder, slice(5, 6))
    (fault,) = check_all_frames(dataset, folder).faults
    assert fault.what == f"frames 3, 5 of 12 differ from {FRAMES_FILE}"
    compact_path(frames).unlink()  # as the remedy says
    add_frame_files(SequenceLayout.of(folder, dataset), files="compact")
    assert check_all_frames(dataset, folder) == FramesFound([], 12)
    frames.unlink()  # the compact file alone is a sequence, too
    assert check_all_frames(dataset, folder) == FramesFound([], 12)
    assert main([*arguments, "full=perhaps"]) == 2


def test_sets_of_the_older_rule_are_noted(dataset: DatasetConfig) -> None:
    with h5py.File(dataset.path / "val" / "sequence_0" / REPRESENTATION / FRAMES_FILE, "r+") as file:
        file.attrs["settings"] = "{}"
    report = check_dataset(dataset, thorough=True)
    (note,) = report.faults
    assert "val: 1 sequences are of an older version" in str(note)
    assert not note.blocks_training


def test_labels_of_another_number_of_classes_are_refused(dataset: DatasetConfig) -> None:
    """Ids of three classes are ids of eight as well, and would be read as other things."""
    with h5py.File(dataset.path / "val" / "sequence_0" / REPRESENTATION / FRAMES_FILE, "r+") as file:
        file.attrs["settings"] = '{"classes": ["pedestrian", "two-wheeler", "car"]}'
        file.attrs["label_rule"] = 2
    with pytest.raises(UserError, match=r"of 3 classes \(pedestrian, two-wheeler, car\).*dataset=gen4 reads 8"):
        require_usable(dataset)
