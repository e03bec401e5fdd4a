"""What the detector sees, as pictures: a few validation frames, and the confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.trainer.states import TrainerFn

from config.schema import DatasetConfig
from data.batch import SequenceBatch
from modules.detection import of_ours
from modules.pictures.figures import write_confusion_matrix
from modules.pictures.frames import PictureBoxes, draw_frame
from modules.run.writing import goes_on_without


class DetectionPictures(Callback):
    """Draws frames that lie evenly over the validation set, the same ones every time.

    Pictures go to `<folder>/step=N/` in training, to `<folder>` otherwise, and to the loggers. Expects of the module
    its `config`, and that `validation_step` returns {"batch": SequenceBatch, "detections": list of [m, 7]}.
    """

    def __init__(self, folder: Path, n_samples: int, dataset: DatasetConfig) -> None:
        self._folder, self._n_samples, self._classes = folder, n_samples, dataset.classes
        self._pictures: dict[str, Image.Image] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pictures = {}

    @goes_on_without("pictures of the validation")
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: SequenceBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        # Only what the confusion matrix counts: hundreds of boxes of score .001 would hide the picture.
        settings = of_ours(pl_module).config.evaluation
        num_batches = (trainer.num_test_batches if trainer.testing else trainer.num_val_batches)[dataloader_idx]
        due = pictures_due(self._n_samples, batch_idx, int(num_batches)) - len(self._pictures)
        for position in richest_frames(outputs["batch"], due):
            found = PictureBoxes.from_detections(
                outputs["detections"][position], settings.score, settings.confusion_threshold
            )
            name, picture = self._draw(outputs["batch"], found, position)
            self._pictures[name] = picture

    def _draw(self, batch: SequenceBatch, predictions: PictureBoxes, position: int) -> tuple[str, Image.Image]:
        index = int(batch.labelled_frames[position])
        sequence = batch.sequence_names[index % batch.num_lanes]
        t_ms = int(batch.t_us.flatten()[index]) // 1000
        frame = batch.frames.flatten(0, 1)[index].cpu().numpy()
        boxes = batch.boxes[batch.box_image == position].cpu().numpy()
        truth = PictureBoxes.from_centres(boxes)
        caption = f"{sequence} · {t_ms / 1000:.2f} s · {int(frame.sum(dtype=np.int64)):,} counts"
        return f"{sequence}_{t_ms:07d}ms", draw_frame(frame, self._classes, predictions, truth, caption)

    @goes_on_without("pictures of the validation")
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._pictures:
            return
        step = trainer.global_step
        folder = self._folder / f"step={step}" if trainer.state.fn == TrainerFn.FITTING else self._folder
        with goes_on_without(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name, picture in self._pictures.items():
                picture.save(folder / f"{name}.png")
        _send_pictures(trainer, "pictures", self._pictures)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end


class ConfusionMedia(Callback):
    """Writes the confusion matrix, and sends it and the table of classes to the loggers that can show them.

    Expects of the module an EvaluationResult in `result` after validation.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @goes_on_without("confusion matrix")
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        result = of_ours(pl_module).result
        if result is None or trainer.sanity_checking or not trainer.is_global_zero:
            return
        pictures = {}
        with goes_on_without(self._folder):
            pictures = write_confusion_matrix(result.confusion, self._folder)
        _send_pictures(trainer, "confusion_matrix", pictures)
        rows = [[c.name, c.AP, c.AP_50, c.boxes, c.missed, c.false] for c in (*result.classes, *result.groups)]
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                columns = ["class or group", "AP", "AP_50", "boxes", "missed", "false"]
                logger.log_table(f"{_split(trainer)}/classes", columns, rows, step=trainer.global_step)

    on_test_end = on_validation_end


def _split(trainer: Trainer) -> str:
    return "test" if trainer.testing else "val"


def _send_pictures(trainer: Trainer, key: str, pictures: dict[str, Image.Image]) -> None:
    key, step = f"{_split(trainer)}/{key}", trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, list(pictures.values()), step=step, caption=list(pictures))
        elif isinstance(logger, TensorBoardLogger):
            with goes_on_without(f"{logger.log_dir}: {key}"):
                for name, picture in pictures.items():
                    logger.experiment.add_image(f"{key}/{name}", np.asarray(picture), step, dataformats="HWC")


def pictures_due(n_samples: int, batch_idx: int, num_batches: int) -> int:
    """How many of n_samples, spread evenly over num_batches, are due once batch_idx is done."""
    return sum((2 * sample + 1) * num_batches // (2 * n_samples) <= batch_idx for sample in range(n_samples))


def richest_frames(batch: SequenceBatch, count: int) -> list[int]:
    """Positions in `labelled_frames` of the `count` frames with most boxes."""
    boxes = torch.bincount(batch.box_image.cpu(), minlength=len(batch.labelled_frames)).numpy()
    return np.argsort(-boxes, kind="stable")[: max(count, 0)].tolist()
