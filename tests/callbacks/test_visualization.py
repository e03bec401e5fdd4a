"""Behaviour of callbacks/visualization.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.trainer.states import TrainerFn

from callbacks.visualization import ConfusionMedia, DetectionPictures, pictures_due
from config.loading import load_dataset_config
from data.batch import SequenceBatch
from tests.evaluations import CAR, HIT, SETTINGS, boxes_of, found, result_of

DATASET = load_dataset_config(["dataset=gen4"])
MODULE: Any = SimpleNamespace(config=SimpleNamespace(evaluation=SETTINGS), result=None)


def batch(number: int, labelled: tuple[int, ...] = (0, 3)) -> SequenceBatch:
    """Two frames of two lanes; the second labelled frame has a car, the first has nothing."""
    return SequenceBatch(
        frames=torch.ones(2, 2, 20, 36, 64, dtype=torch.uint8),
        boxes=torch.tensor([[1.0, 30, 20, 20, 10]]) if labelled else torch.zeros(0, 5),
        box_image=torch.tensor([len(labelled) - 1]) if labelled else torch.zeros(0, dtype=torch.int64),
        labelled_frames=torch.tensor(labelled, dtype=torch.int64),
        is_first=torch.zeros(2, dtype=torch.bool),
        lane=torch.arange(2),
        sequence_names=("left", "right"),
        first_frame=torch.zeros(2, dtype=torch.int64),
        t_us=torch.tensor([[0, 0], [50_000, 50_000]]) + number * 100_000,
    )


def trainer(num_batches: int, *loggers: Any, fn: TrainerFn = TrainerFn.FITTING) -> Any:
    return SimpleNamespace(
        sanity_checking=False, is_global_zero=True, testing=fn == TrainerFn.TESTING, global_step=70,
        num_val_batches=[num_batches], num_test_batches=[num_batches], state=SimpleNamespace(fn=fn), loggers=loggers,
    )  # fmt: skip


def run(callback: DetectionPictures, stand_in: Any, batches: list[SequenceBatch]) -> None:
    callback.on_validation_epoch_start(stand_in, MODULE)
    for index, each in enumerate(batches):
        detections = [found((20, 15, 40, 25, 0.9, 0.9, 1)) for _ in each.labelled_frames]
        callback.on_validation_batch_end(stand_in, MODULE, {"batch": each, "detections": detections}, each, index)
    callback.on_validation_end(stand_in, MODULE)


class RecordingWandb(WandbLogger):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.images: dict[str, list[str]] = {}
        self.tables: dict[str, list[list[Any]]] = {}

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        assert all(isinstance(image, Image.Image) for image in images)
        self.images[key] = kwargs["caption"]

    def log_table(self, key: str, columns: list[str], data: list[list[Any]], **_: Any) -> None:
        self.tables[key] = data


@pytest.mark.parametrize(
    ("n_samples", "num_batches", "expected"),
    [(2, 4, [0, 1, 1, 2]), (1, 3, [0, 1, 1]), (4, 2, [2, 4]), (3, 3, [1, 2, 3])],
)
def test_samples_are_spread_over_the_batches(n_samples: int, num_batches: int, expected: list[int]) -> None:
    assert [pictures_due(n_samples, index, num_batches) for index in range(num_batches)] == expected


def test_pictures_are_saved_with_sequence_and_time(tmp_path: Path) -> None:
    run(DetectionPictures(tmp_path, 2, DATASET), trainer(8), [batch(number) for number in range(8)])
    names = sorted(path.name for path in (tmp_path / "step=70").iterdir())
    assert names == ["right_0000250ms.png", "right_0000650ms.png"]  # of batches 2 and 6; the frame with the car
    with Image.open(tmp_path / "step=70" / names[0]) as picture:
        assert picture.size == (1280, 720)


def test_batches_without_labels_are_made_up_for_by_later_ones(tmp_path: Path) -> None:
    batches = [batch(number, labelled=() if number < 3 else (0, 3)) for number in range(4)]
    run(DetectionPictures(tmp_path, 2, DATASET), trainer(4), batches)
    assert len(list((tmp_path / "step=70").iterdir())) == 2


def test_validation_without_training_has_no_step_folder(tmp_path: Path) -> None:
    run(DetectionPictures(tmp_path, 1, DATASET), trainer(1, fn=TrainerFn.TESTING), [batch(0)])
    assert [path.name for path in tmp_path.iterdir()] == ["right_0000050ms.png"]


def test_other_ranks_and_sanity_checks_draw_nothing(tmp_path: Path) -> None:
    other_rank, sanity = trainer(1), trainer(1)
    other_rank.is_global_zero, sanity.sanity_checking = False, True
    for stand_in in (other_rank, sanity):
        run(DetectionPictures(tmp_path, 1, DATASET), stand_in, [batch(0)])
    assert list(tmp_path.iterdir()) == []


def test_pictures_go_to_the_loggers(tmp_path: Path) -> None:
    wandb, tensorboard = RecordingWandb(), TensorBoardLogger(tmp_path / "tensorboard")
    run(DetectionPictures(tmp_path, 1, DATASET), trainer(1, wandb, tensorboard), [batch(0)])
    assert wandb.images == {"val/pictures": ["right_0000050ms"]}
    assert any((tmp_path / "tensorboard").rglob("events*"))


def test_confusion_matrix_and_classes_are_written_and_go_to_the_loggers(tmp_path: Path) -> None:
    wandb = RecordingWandb()
    module: Any = SimpleNamespace(result=result_of(("a", 600_000, boxes_of(CAR), found(HIT))))
    ConfusionMedia(tmp_path).on_validation_end(trainer(1, wandb), module)
    assert len(list(tmp_path.iterdir())) == 4
    assert wandb.images == {"val/confusion_matrix": ["counts", "row_normalised"]}
    names = [row[0] for row in wandb.tables["val/classes"]]
    assert names == [*DATASET.classes, "small", "medium", "large"]


def test_nothing_measured_is_no_matrix(tmp_path: Path) -> None:
    ConfusionMedia(tmp_path).on_validation_end(trainer(1, RecordingWandb()), MODULE)
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_fail_end_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no picture")

    monkeypatch.setattr("callbacks.visualization.draw_frame", fail)
    monkeypatch.setattr("modules.pictures.figures.draw_confusion_matrix", fail)
    module: Any = SimpleNamespace(result=result_of(("a", 600_000, boxes_of(CAR), found(HIT))))
    with pytest.warns(UserWarning, match="no picture.*The run goes on"):
        run(DetectionPictures(tmp_path, 1, DATASET), trainer(1), [batch(0)])
    with pytest.warns(UserWarning, match="no picture.*The run goes on"):
        ConfusionMedia(tmp_path).on_validation_end(trainer(1), module)
    assert (tmp_path / "counts.csv").is_file()  # the tables come first
