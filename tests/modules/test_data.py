"""Loaders and plans of the DataModule; resuming is in test_data_resume.py."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from config.errors import ConfigError, UserError
from config.schema import TrainConfig
from data.sampling import rows_per_kind
from modules.data import EventDataModule
from tests.conftest import write_sequence
from tests.modules.test_data_resume import digest


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_change_nothing(make_config: Callable[..., TrainConfig]) -> None:
    def epoch(num_workers: int) -> list[str]:
        data = EventDataModule(make_config(f"hardware.num_workers.train={num_workers}"))
        return [digest(batch) for batch in data.train_dataloader()]

    expected = epoch(0)
    assert len(expected) == 6
    for num_workers in (1, 4, 7):
        assert epoch(num_workers) == expected


def test_training_batches_are_full_and_evaluation_reads_each_frame_once(
    make_config: Callable[..., TrainConfig],
) -> None:
    data = EventDataModule(make_config())
    assert all(batch.lane.tolist() == [0, 1, 2, 3] for batch in data.train_dataloader())
    seen = [
        (name, t_us)
        for batch in data.val_dataloader()
        for row, name in enumerate(batch.sequence_names)
        for t_us in batch.t_us[:, row].tolist()
        if t_us >= 0
    ]
    assert sorted(seen) == [
        (f"sequence_{number}", 100_000 + 50_000 * frame)
        for number, length in enumerate((11, 6, 4))
        for frame in range(length)
    ]
    assert len(list(data.test_dataloader())) == 2


def test_evaluation_batches_shrink_when_lanes_run_out(make_config: Callable[..., TrainConfig]) -> None:
    batches = list(EventDataModule(make_config("batch_size.eval=8")).val_dataloader())
    assert [batch.num_lanes for batch in batches] == [3, 3, 1, 1]
    assert [batch.lane.tolist() for batch in batches] == [[0, 1, 2], [0, 1, 2], [0], [0]]


@pytest.mark.parametrize("sampling", ["stream", "random", "mixed"])
@pytest.mark.parametrize("batch_size", [2, 9])
def test_one_short_sequence_is_enough(
    make_config: Callable[..., TrainConfig], tmp_path: Path, sampling: str, batch_size: int
) -> None:
    write_sequence(tmp_path / "small" / "train" / "only", 4, {1: [], 3: [(0, 2.0, 2.0, 8.0, 8.0)]})
    config = make_config(
        f"dataset.path={tmp_path / 'small'}", f"batch_size.train={batch_size}", f"dataset.train.sampling={sampling}"
    )
    batches = list(EventDataModule(config).train_dataloader())
    assert [batch.num_lanes for batch in batches] == [batch_size] * len(batches)
    assert len(batches) == (1 if sampling == "random" else 2)


def test_streams_keep_their_augmentation_and_others_have_their_own(make_config: Callable[..., TrainConfig]) -> None:
    """Four rows of one sequence, zoomed out: the share of empty pixels tells the zoom."""
    config = make_config("dataset.train.sampling=stream", "dataset.data_augmentation.stream.zoom.prob=1")
    share = [(batch.frames > 0).float().mean(dim=(2, 3, 4)) for batch in EventDataModule(config).train_dataloader()]
    first = [batch.is_first for batch in EventDataModule(config).train_dataloader()]
    for before, now, is_first in zip(share, share[1:], first[1:], strict=False):
        goes_on = ~is_first & (now[0] > 0)
        torch.testing.assert_close(before[0][goes_on], now[0][goes_on])
    assert len(set(torch.cat([values[0] for values in share]).tolist())) > 2


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["dataset.train.sampling=stream", "batch_size.train=5"], (5, 0)),
        (["dataset.train.sampling=random", "batch_size.train=5"], (0, 5)),
        (["batch_size.train=6"], (3, 3)),
        (["batch_size.train=8", "dataset.train.mixed.w_random=3"], (2, 6)),
        (["batch_size.train=4", "dataset.train.mixed.w_stream=1000"], (3, 1)),
        (["batch_size.train=4", "dataset.train.mixed.w_random=1000"], (1, 3)),
    ],
)
def test_mixed_batches_have_rows_of_each_kind(
    make_config: Callable[..., TrainConfig], overrides: list[str], expected: tuple[int, int]
) -> None:
    assert rows_per_kind(make_config(*overrides)) == expected


def test_weighted_sampling_prefers_rare_classes(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    common = {i: [(1, 2.0, 2.0, 8.0, 8.0)] for i in range(2, 102)}
    write_sequence(tmp_path / "skewed" / "train" / "common", 102, common)
    write_sequence(tmp_path / "skewed" / "train" / "rare", 3, {2: [(6, 2.0, 2.0, 8.0, 8.0)]})
    config = make_config(
        f"dataset.path={tmp_path / 'skewed'}",
        "dataset.train.sampling=random",
        "dataset.train.random.weighted_sampling=true",
        "dataset.sequence_length=1",
    )
    names = [name for batch in EventDataModule(config).train_dataloader() for name in batch.sequence_names]
    assert 0.3 < names.count("rare") / len(names) < 0.7  # of 101 chunks, half of the weight


def test_too_little_shared_memory_is_reported_before_a_worker_dies(
    make_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modules.data.shutil.disk_usage", lambda path: SimpleNamespace(free=90_000))
    needed = 2 * 2 * 3 * 20 * 8 * 12  # prefetched batches of 2 rows of 3 frames
    assert needed < 90_000 < 4 * needed
    EventDataModule(make_config("hardware.num_workers.eval=1")).val_dataloader()
    with pytest.raises(UserError, match=r"/dev/shm .*hardware\.num_workers\.eval"):
        EventDataModule(make_config("hardware.num_workers.eval=4")).val_dataloader()


def test_few_open_files_are_told_before_the_start_or_made_more(
    make_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, allowed = [(64, 64), (64, 4096)], []
    monkeypatch.setattr("modules.data.resource.getrlimit", lambda _: limits.pop(0))
    monkeypatch.setattr("modules.data.resource.setrlimit", lambda _, limit: allowed.append(limit))
    workers = ("hardware.num_workers.train=8", "hardware.num_workers.eval=8")
    with pytest.raises(UserError, match=r"16 loader workers may need \d+ open files, but the shell allows 64"):
        EventDataModule(make_config(*workers))
    EventDataModule(make_config(*workers))
    ((soft, hard),) = allowed
    assert 16 * 24 < soft < 1024
    assert hard == 4096


def test_boxes_that_loading_leaves_out_are_counted_by_reason(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    labels = {
        1: [(0, 1.0, 1.0, 5.0, 5.0), (0, np.nan, 1.0, 5.0, 5.0)],
        2: [(0, 5.0, 5.0, -3.0, 4.0), (0, 900.0, 1.0, 5.0, 5.0), (1, 2.0, 2.0, 4.0, 4.0)],
    }
    write_sequence(tmp_path / "elsewhere" / "train" / "odd", 4, labels)
    write_sequence(tmp_path / "elsewhere" / "train" / "good", 4, {1: labels[1][:1]})
    data = EventDataModule(make_config(f"dataset.path={tmp_path / 'elsewhere'}"))
    for _ in range(2):  # read, and from the index file
        with pytest.warns(UserWarning, match=r"3 boxes are left out \(1 not finite, 2 flat .*most of them in .*/odd\."):
            assert data.index("train").class_counts.sum() == 3
        data = EventDataModule(make_config(f"dataset.path={tmp_path / 'elsewhere'}"))


def test_labels_that_may_be_grouped_already_are_told_with_what_they_are_read_as(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    grouped = tmp_path / "grouped"
    for split, last in (("train", 2), ("val", 3)):
        write_sequence(grouped / split / "one", 4, {1: [(i, 2.0, 2.0, 6.0, 6.0) for i in (0, 1, last)]})
    mapped = ["dataset=etram3", "dataset.resolution_hw=[16,24]", f"dataset.path={grouped}"]
    with pytest.warns(
        UserWarning, match=r"ids 0 to 2 alone.*: 0 as pedestrian, 1 as vehicle, 2 as two-wheeler\. .*"
    ) as told:
        EventDataModule(make_config(*mapped)).index("train")
    assert "++dataset.class_map.bicycle=CLASS for id 2" in str(told[0].message)
    exchanged = ["++dataset.class_map.car=two-wheeler", "++dataset.class_map.bicycle=vehicle"]
    with pytest.warns(UserWarning, match="1 as two-wheeler, 2 as vehicle"):
        EventDataModule(make_config(*mapped, *exchanged)).index("train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EventDataModule(make_config(*mapped)).index("val")  # id 3 is of the eight alone
        EventDataModule(make_config(f"dataset.path={grouped}")).index("train")


def test_mistakes_name_key_and_remedy(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sequence_length"):
        EventDataModule(make_config("dataset.sequence_length=50")).train_dataloader()
    write_sequence(tmp_path / "strange" / "train" / "one", 3, {2: [(8, 2.0, 2.0, 8.0, 8.0)]})
    with pytest.raises(UserError, match=r"strange/train/one/labels_v2/labels.npz has class ids beyond"):
        EventDataModule(make_config(f"dataset.path={tmp_path / 'strange'}")).train_dataloader()
    with pytest.raises(UserError, match=r"strange/val not found"):
        EventDataModule(make_config(f"dataset.path={tmp_path / 'strange'}")).val_dataloader()


def test_a_validation_of_some_sequences(make_config: Callable[..., TrainConfig], data_set: Path) -> None:
    whole = EventDataModule(make_config()).index("val")
    dataset = make_config().dataset.model_copy(update={"only": ("sequence_2", "sequence_0")})
    index = EventDataModule(make_config().model_copy(update={"dataset": dataset})).index("val")
    assert index.names.tolist() == ["sequence_0", "sequence_2"]
    assert index.num_frames.tolist() == [11, 4]
    at = np.isin(whole.label_sequence, [0, 2])
    assert index.label_frame.tolist() == whole.label_frame[at].tolist()
    assert index.class_counts.tolist() == whole.class_counts[at].tolist()
    assert index.evaluation_streams(3)[:, 0].tolist() == [0, 1]
    with pytest.raises(UserError, match=r"dataset.only: .*val has no sequence sequence_7. It has: sequence_"):
        index.only(["sequence_7"])
    with pytest.raises(ConfigError, match=r"is for validation.py"):
        make_config("dataset.only=[sequence_0]")


def test_streams_of_rare_classes_are_read_more_often(make_config) -> None:
    """Each of the four streams has classes that not all have."""
    stream = "dataset.train.sampling=stream"
    once, often = (
        EventDataModule(make_config(stream, *more)).training_plan()
        for more in ([], ["dataset.train.repeat_threshold=1"])
    )
    assert often.steps_per_epoch > once.steps_per_epoch
    reads = [read for step in range(often.steps_per_epoch) for read in often.batch(0, step)]
    assert len(reads) == 4 * often.steps_per_epoch


@pytest.mark.parametrize("only", [(), ("sequence_0",)])
def test_one_process_looks_at_the_files_and_the_others_take_its_index(
    make_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, only: tuple[str, ...]
) -> None:
    config = make_config()
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"only": only})})
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("STREAMRVT_INDEX_VAL", "")  # restored at the end
    first = EventDataModule(config)
    first.share_index("val")

    monkeypatch.setenv("LOCAL_RANK", "1")  # as Lightning starts the others, with what the first has decided
    with monkeypatch.context() as others:
        others.setattr("modules.data.load_index", lambda *_: pytest.fail("it looked at the files"))
        second = EventDataModule(config)
        second.share_index("val")
    assert second.index("val").digest == first.index("val").digest

    monkeypatch.setenv("STREAMRVT_INDEX_VAL", '"of another disk"')
    third = EventDataModule(config)
    third.share_index("val")
    assert third.index("val").digest == first.index("val").digest
