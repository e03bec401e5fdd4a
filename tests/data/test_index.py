"""The index of a split: what it tells, and when it is made anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import data.index
from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import TrainConfig
from data.index import load_index
from tests.conftest import write_sequence

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folders_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the sequence folders whose labels were read."""
    names: list[str] = []

    def read_labels(path: Path, *arguments: object) -> object:
        names.append(path.name)
        return original(path, *arguments)

    original = data.index.read_labels
    monkeypatch.setattr(data.index, "read_labels", read_labels)
    return names


def test_streams_and_chunks_are_those_of_the_reference(tmp_path: Path) -> None:
    golden = np.load(GOLDEN / "sequences.npz")
    number = dict(zip(golden["sequence_names"].tolist(), golden["sequence_ids"].tolist(), strict=True))
    shutil.copytree(GOLDEN / "seq_dataset", tmp_path / "data")
    dataset = load_dataset_config(["dataset=gen4", f"dataset.path={tmp_path / 'data'}"])
    indices = [load_index(dataset, split) for split in ("train", "val")]

    def all_rows(method: str, split_indices: list[data.index.SplitIndex]) -> list[list[int]]:
        return [
            [number[str(index.names[sequence])], *rest]
            for index in split_indices
            for sequence, *rest in getattr(index, method)(5).tolist()
        ]

    assert all_rows("training_streams", indices) == golden["train_ranges"][:, [0, 2, 3]].tolist()
    samples = golden["eval_sequences_samples"]
    whole = [[i, samples[samples[:, 0] == i, 2].min(), samples[samples[:, 0] == i, 3].max()] for i in range(1, 7)]
    assert all_rows("evaluation_streams", indices) == whole
    assert all_rows("random_chunks", indices[:1]) == golden["rnd_train_meta"][:, :2].tolist()
    assert all_rows("random_chunks", indices[1:]) == golden["rnd_val_meta"][:, :2].tolist()
    weights = indices[0].chunk_weights(indices[0].random_chunks(5), 5)
    np.testing.assert_allclose(weights, golden["rnd_train_sampler_weights"], rtol=1e-12)


def test_second_start_reads_no_sequence(make_config: Callable[..., TrainConfig], folders_read: list[str]) -> None:
    dataset = make_config().dataset
    first = load_index(dataset, "train")
    assert len(folders_read) == 4
    second = load_index(dataset, "train")
    assert len(folders_read) == 4
    for name in ("names", "num_frames", "first_label", "label_frame", "class_counts"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_only_what_changed_is_read_again(make_config: Callable[..., TrainConfig], folders_read: list[str]) -> None:
    dataset = make_config().dataset
    load_index(dataset, "train")
    split = dataset.path / "train"
    shutil.rmtree(split / "sequence_0")
    shutil.rmtree(split / "sequence_2")
    write_sequence(split / "sequence_2", 8, {4: [], 6: []})
    write_sequence(split / "sequence_9", 3, {2: []})
    folders_read.clear()
    index = load_index(dataset, "train")
    assert sorted(folders_read) == ["sequence_2", "sequence_9"]
    assert index.names.tolist() == ["sequence_1", "sequence_2", "sequence_3", "sequence_9"]
    assert index.num_frames.tolist() == [12, 8, 9, 3]
    assert index.label_frame[index.first_label[1] : index.first_label[2]].tolist() == [4, 6]


def test_another_class_list_has_an_index_of_its_own(
    make_config: Callable[..., TrainConfig], folders_read: list[str]
) -> None:
    dataset = make_config().dataset
    load_index(dataset, "train")
    fewer = dataset.model_copy(update={"classes": dataset.classes[:3]})
    assert load_index(fewer, "train").unknown_ids.sum() > 0
    assert load_index(dataset, "train").unknown_ids.sum() == 0
    assert len(folders_read) == 8


@pytest.mark.parametrize("content", [b"", b"no zip file"])
def test_an_index_that_was_cut_short_is_made_anew(
    make_config: Callable[..., TrainConfig], folders_read: list[str], content: bytes
) -> None:
    dataset = make_config().dataset
    load_index(dataset, "train")
    (path,) = (dataset.path / "train").glob(".index*")
    path.write_bytes(content)
    assert len(load_index(dataset, "train")) == 4
    assert len(folders_read) == 8


def test_an_index_that_says_something_else_is_made_anew(
    make_config: Callable[..., TrainConfig], folders_read: list[str]
) -> None:
    """A sound zip file whose numbers are not those that were written."""
    dataset = make_config().dataset
    first = load_index(dataset, "train")
    (path,) = (dataset.path / "train").glob(".index*")
    with np.load(path) as content:
        arrays = {**content, "label_frame": content["label_frame"] - 1}
    np.savez(path, **arrays)
    np.testing.assert_array_equal(load_index(dataset, "train").label_frame, first.label_frame)
    assert len(folders_read) == 8


def test_index_of_a_read_only_data_set_lies_in_the_users_cache(
    make_config: Callable[..., TrainConfig], folders_read: list[str], user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_config().dataset
    original = data.index.tempfile.mkstemp

    def mkstemp(dir: Path, prefix: str) -> tuple[int, str]:
        if dataset.path in Path(dir).parents:
            raise PermissionError(30, "Read-only file system")
        return original(dir=dir, prefix=prefix)

    monkeypatch.setattr(data.index.tempfile, "mkstemp", mkstemp)
    load_index(dataset, "train")
    load_index(dataset, "train")
    assert len(folders_read) == 4
    assert len(list((user_cache / "streamrvt").iterdir())) == 1


def test_hidden_folders_and_files_are_no_sequences(make_config: Callable[..., TrainConfig]) -> None:
    dataset = make_config().dataset
    (dataset.path / "train" / ".half_written").mkdir()
    (dataset.path / "train" / "notes.txt").write_text("")
    assert len(load_index(dataset, "train")) == 4


def test_faults_of_the_folder_are_named(make_config: Callable[..., TrainConfig]) -> None:
    dataset = make_config().dataset
    with pytest.raises(UserError, match=r"dataset\.path"):
        load_index(dataset.model_copy(update={"path": dataset.path / "nowhere"}), "train")
    with pytest.raises(UserError, match="ev_repr_name"):
        load_index(dataset.model_copy(update={"ev_repr_name": "stacked_histogram_dt=20_nbins=10"}), "train")
    (dataset.path / "train" / "sequence_1" / "labels_v2" / "labels.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"sequence_1/labels_v2/labels.npz"):
        load_index(dataset, "train")
    shutil.rmtree(dataset.path / "test" / "sequence_0")
    with pytest.raises(UserError, match="no sequences"):
        load_index(dataset, "test")


def test_repeats_of_streams_are_those_of_lvis(make_config: Callable[..., TrainConfig]) -> None:
    """Four streams: all have cars, one a tram, two pedestrians, one of them in a frame that it does not reach."""
    dataset = make_config().dataset
    car, pedestrian, tram = (1, 4.0, 2.0, 10.0, 8.0), (0, 4.0, 2.0, 10.0, 8.0), (6, 4.0, 2.0, 10.0, 8.0)
    for number, boxes in enumerate([[car], [car, pedestrian], [car, tram, pedestrian], [car]]):
        folder = dataset.path / "train" / f"sequence_{number}"
        shutil.rmtree(folder)
        write_sequence(folder, 20, {4: boxes, 15: [car, pedestrian] if number == 3 else [car]})
    index = load_index(dataset, "train")
    streams = np.array([(0, 0, 16), (1, 0, 16), (2, 0, 16), (3, 0, 15)])
    for threshold in (0.1, 0.3, 0.9):
        expected = []
        for classes in ({1}, {1, 0}, {1, 6, 0}, {1}):
            share = {1: 4 / 4, 0: 2 / 4, 6: 1 / 4}
            expected.append(max(max(1, (threshold / share[name]) ** 0.5) for name in classes))
        np.testing.assert_allclose(index.stream_repeats(streams, threshold), expected)
