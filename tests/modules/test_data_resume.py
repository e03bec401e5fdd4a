"""A run that is stopped and resumed trains on the batches of a run that never stopped; with Lightning's own Trainer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from config.schema import TrainConfig
from data.batch import SequenceBatch
from modules.data import EventDataModule

NUM_STEPS = 14  # of epochs of 6


class Tape(LightningModule):
    """Writes down what Lightning does: ("train", digest of the batch), ("val", global step), ("epoch", epoch)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.events: list[tuple[str, object]] = []

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> torch.Tensor:
        self.events.append(("train", digest(batch)))
        return (self.weight - batch.frames.float().mean()).square()

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        pass

    def on_validation_start(self) -> None:
        self.events.append(("val", self.global_step))

    def on_train_epoch_end(self) -> None:
        self.events.append(("epoch", self.current_epoch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class SaveEverywhere(Callback):
    """Checkpoints before and after each training batch, after each validation and epoch, and the tape till then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saved: list[tuple[Path, int]] = []

    def _save(self, trainer: Trainer, tape: Tape, moment: str) -> None:
        path = self.folder / f"{moment}_{trainer.global_step}.ckpt"
        trainer.save_checkpoint(path)
        self.saved.append((path, len(tape.events)))

    def on_train_batch_start(self, trainer: Trainer, tape: Tape, *_: object) -> None:
        self._save(trainer, tape, "before")

    def on_train_batch_end(self, trainer: Trainer, tape: Tape, *_: object) -> None:
        self._save(trainer, tape, "after")

    def on_validation_end(self, trainer: Trainer, tape: Tape) -> None:
        self._save(trainer, tape, "validation")

    def on_train_epoch_end(self, trainer: Trainer, tape: Tape) -> None:
        self._save(trainer, tape, "epoch")


def digest(batch: SequenceBatch) -> str:
    tensors = (batch.frames, batch.boxes, batch.box_image, batch.labelled_frames, batch.is_first, batch.t_us)
    content = b"".join(tensor.numpy().tobytes() for tensor in tensors)
    return f"{batch.addresses()} {hashlib.sha256(content).hexdigest()[:12]}"


def run(config: TrainConfig, folder: Path, checkpoint: Path | None = None, **settings: object) -> tuple[Tape, list]:
    tape, save = Tape(), SaveEverywhere(folder)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=[save] if checkpoint is None else [],
        **{"max_steps": NUM_STEPS, "max_epochs": 100, **settings},
    )
    trainer.fit(tape, datamodule=EventDataModule(config), ckpt_path=checkpoint)
    assert trainer.global_step == NUM_STEPS
    return tape, save.saved


@pytest.mark.parametrize(
    "settings",
    [
        {},  # validation at the end of each epoch of 6 steps
        {"val_check_interval": 4},
        {"val_check_interval": 4, "check_val_every_n_epoch": None},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_resumed_run_goes_on_where_it_stopped(
    make_config: Callable[..., TrainConfig], tmp_path: Path, settings: dict[str, object]
) -> None:
    config = make_config()
    tape, saved = run(config, tmp_path, **settings)
    for path, num_events in saved:
        if step_of(path) not in (0, 3, 4, 6, 7, 12):  # of epochs of 6, with a validation after step 4
            continue
        resumed, _ = run(config, tmp_path, path, **settings)
        expected = tape.events[num_events:]
        assert trained(resumed.events) == trained(expected), path
        if lightning_counts_rightly(path, expected, settings):
            assert resumed.events == expected, path


def lightning_counts_rightly(path: Path, expected: list[tuple[str, object]], settings: dict[str, object]) -> bool:
    """Whether validations and ends of epochs, too, come as in a run that never stopped.

    Lightning leaves out what was due upon a step when the checkpoint was written at that step's end. Written before a
    step, it counts one step twice towards `val_check_interval` over the ends of epochs.
    """
    moment = path.stem.split("_")[0]
    if moment == "after":
        return expected[0][0] == "train"
    return moment == "validation" or (moment == "before" and "check_val_every_n_epoch" not in settings)


@pytest.mark.filterwarnings("ignore")
def test_another_batch_size_leaves_the_epoch_and_begins_the_next(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    run(make_config(), tmp_path)
    config = make_config("batch_size.train=2")
    plan = EventDataModule(config).training_plan()
    with pytest.warns(UserWarning, match="the next one begins"):
        resumed, _ = run(config, tmp_path, tmp_path / "before_2.ckpt")
    dataset = EventDataModule(config).train_dataloader().dataset
    assert trained(resumed.events)[0] == ("train", digest(dataset.__getitems__(plan.batch(epoch=1, step=0))))


def step_of(path: Path) -> int:
    return int(path.stem.split("_")[1])


def trained(events: list[tuple[str, object]]) -> list[tuple[str, object]]:
    return [event for event in events if event[0] == "train"]
