"""The LightningDataModule: plans, loaders, and the plan position that a checkpoint keeps."""

from __future__ import annotations

import math
import resource
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from config.errors import UserError
from config.schema import Config, DatasetConfig, TrainConfig
from data.batch import SequenceBatch
from data.copy_paste import CopyPaste
from data.dataset import ChunkDataset
from data.index import SplitIndex, load_index, written_index
from data.layout import CHECK_LABELS, SequenceLayout
from data.loader import LoaderWatch, StreamLoader, prepare_worker
from data.plan import EvaluationPlan, TrainingPlan
from data.sampling import EvaluationSampler, TrainingSampler, make_training_plan
from data.sequence import Sequence
from modules.run.description import describe_split
from modules.run.meeting import refuse_other_data, together
from modules.run.processes import share

Split = Literal["train", "val", "test"]
_PREFETCH = 2  # batches that each worker reads ahead
_FILES_PER_WORKER = 24  # tensors of the batches read ahead, pipes
_OTHER_FILES = 32  # logs, checkpoints, frames
_SHARED_MEMORY = Path("/dev/shm")


class EventDataModule(LightningDataModule):
    """Streams of chunks for training, validation and test.

    Pass `use_distributed_sampler=False` to the Trainer: the plans share out the lanes among the ranks themselves.
    Raises UserError for a data set that cannot work.
    """

    def __init__(self, config: Config, watch: LoaderWatch | None = None) -> None:
        """`watch` is told when the main thread waits for a loader."""
        super().__init__()
        workers = config.hardware.num_workers
        _allow_open_files(workers.eval + (workers.train if isinstance(config, TrainConfig) else 0))
        self._watch = watch or LoaderWatch()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer sequences than ranks
        self._config = config
        self._indices: dict[Split, SplitIndex] = {}
        self._plan: TrainingPlan | None = None
        self._steps_before = 0  # plan steps less batches that Lightning has counted; differs after a change of plan
        self._resumed: dict[str, Any] | None = None

    # --- Lightning's hooks -------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader:
        rank, _ = self._rank_and_world_size()
        sampler = TrainingSampler(self.training_plan(), rank, self._position)
        return self._loader("train", sampler, self._config.hardware.num_workers.train)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def state_dict(self) -> dict[str, Any]:
        """Where the plan stands: after the batches that were trained, not those that workers have read ahead."""
        plan = self.training_plan()
        _, world_size = self._rank_and_world_size()
        position = {"position": self._position(), "batches_trained": self._batches_trained()}
        return {**position, "processes": world_size, **_identity(plan)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resumed = state_dict

    # --- what they are made of ---------------------------------------------------------------------------------------

    def share_index(self, split: Split) -> None:
        """Read the index of a split in the first process, which looks at every sequence's files; the others take it.

        A thousand processes that ask a network disk for the times of four files a sequence would keep it busy for an
        hour. A process that does not see that index, or sees another, looks at the files itself. To be called by all
        processes, before anything asks for the index; ends them all where one cannot read it or holds other data.
        """

        def look() -> str:
            whole = load_index(self._config.dataset, split)
            self._indices[split] = self._usable(whole)
            return whole.digest

        told = share(f"INDEX_{split.upper()}_{self._config.dataset.loaded_hw}", look)  # a stage may have other frames

        def take() -> str:
            if split not in self._indices:
                whole = written_index(self._config.dataset, split, told) or load_index(self._config.dataset, split)
                self._indices[split] = self._usable(whole)
            return describe_split(self.index(split))["digest"]

        refuse_other_data(self._config.dataset.path / split, together(take))

    def index(self, split: Split) -> SplitIndex:
        """The split's index, read once."""
        if split not in self._indices:
            self._indices[split] = self._usable(load_index(self._config.dataset, split))
        return self._indices[split]

    def _usable(self, index: SplitIndex) -> SplitIndex:
        """What is trained on of a whole index. Raises UserError for classes that the data set does not have."""
        _report_grouped_labels(index, self._config.dataset)
        if self._config.dataset.only:
            index = index.only(self._config.dataset.only)
        unknown = index.unknown_ids.nonzero()[0]
        if len(unknown):
            raise UserError(
                f"{SequenceLayout.of(index.path(unknown[0]), self._config.dataset).boxes} has class ids beyond the "
                f"{len(self._config.dataset.label_classes)} classes of the data set ({len(unknown)} such "
                "sequences). "
                "Is dataset=... the one that it was preprocessed for?"
            )
        _report_boxes_left_out(index)
        return index

    def training_plan(self) -> TrainingPlan:
        """The plan of all ranks, made once."""
        if self._plan is None:
            _, world_size = self._rank_and_world_size()
            self._plan = make_training_plan(self._config, self.index("train"), world_size)
        return self._plan

    def _evaluation_loader(self, split: Split) -> DataLoader:
        rank, world_size = self._rank_and_world_size()
        length = self._config.dataset.sequence_length
        streams = self.index(split).evaluation_streams(length)
        if len(streams) == 0:
            raise UserError(f"{self._config.dataset.path / split} has no labelled frame. {CHECK_LABELS}")
        plan = EvaluationPlan(streams, length, self._config.batch_size.eval, world_size)
        return self._loader(split, EvaluationSampler(plan, rank), self._config.hardware.num_workers.eval)

    def require_tracks(self) -> None:
        """Raises UserError where objects are to be pasted along tracks, and the labels have none.

        Warns of classes that have none.
        """
        dataset = self._config.dataset
        if not dataset.pastes:
            return
        index = self.index("train")
        missing = CopyPaste(index, lambda i: Sequence(index.path(i), dataset)).require_tracks()
        if missing:
            names = ", ".join(dataset.classes[class_id] for class_id in missing)
            rank_zero_warn(
                f"{index.split}: copy_paste cannot paste {names}: no box of such an object is found again by track_id"
            )

    def check_shared_memory(self, split: Split) -> None:
        """Raises UserError where the batches that workers read ahead do not fit."""
        training = split == "train"
        batch_size = self._config.batch_size.train if training else self._config.batch_size.eval
        workers = self._config.hardware.num_workers.train if training else self._config.hardware.num_workers.eval
        frames_shape = (
            batch_size,
            self._config.dataset.sequence_length,
            self._config.dataset.channels,
            *self._config.dataset.loaded_hw,
        )
        _check_shared_memory(workers * _PREFETCH * math.prod(frames_shape), split)

    def _loader(self, split: Split, sampler: Any, num_workers: int) -> DataLoader:
        self.check_shared_memory(split)  # again: another process may have taken some
        return StreamLoader(
            ChunkDataset(self.index(split), self._config.dataset),
            batch_sampler=sampler,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=num_workers > 0,
            prefetch_factor=_PREFETCH if num_workers else None,
            worker_init_fn=prepare_worker,
            # the first pass draws a seed that nothing here uses; from the global generator, it would shift the random
            # numbers of a resumed process, whose first validation is not the run's first
            generator=torch.Generator(),
            timeout=self._config.hardware.loader_timeout_s if num_workers else 0,
            watch=self._watch,
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _batches_trained(self) -> int:
        if self.trainer is None:
            return 0
        counted: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return counted.processed

    def _position(self) -> int:
        """Plan steps of this run so far, over all epochs."""
        if self._resumed is not None:
            self._steps_before = self._position_of(self._resumed) - self._resumed["batches_trained"]
            self._resumed = None
        return self._steps_before + self._batches_trained()

    def _position_of(self, state: dict[str, Any]) -> int:
        """Where a checkpoint's plan stood; under another plan its steps mean nothing, and its epoch counts as read."""
        identity = _identity(self.training_plan())
        if identity == {key: state[key] for key in identity}:
            return state["position"]
        before, (_, now) = state.get("processes"), self._rank_and_world_size()
        if before not in (None, now):
            own = self._config.batch_size.train
            why = (
                f"the checkpoint is of {before} processes, now there are {now}, so a step takes {now} x {own} sequences"
            )
        else:
            why = "batch size, number of GPUs, seed or data differ from those of the checkpoint"
        rank_zero_warn(f"{why}: the epoch that it was in is left, and the next one begins")
        return -(-state["position"] // state["steps_per_epoch"]) * identity["steps_per_epoch"]


def data_of(trainer: Trainer) -> EventDataModule:
    """What a Trainer of ours has been given."""
    return trainer.datamodule  # type: ignore[attr-defined]  # set by a connector, where type checkers do not see it


def _report_grouped_labels(index: SplitIndex, dataset: DatasetConfig) -> None:
    """Labels that are of our classes already would be mapped once more, and nothing else would tell."""
    stored, largest = dataset.label_classes, int(index.largest_id.max(initial=0))
    if dataset.stored_classes is not None and 0 < largest < len(dataset.classes) < len(stored):
        read_as = [f"{i} as {dataset.classes[dataset.class_of_label[i]]}" for i in range(largest + 1)]
        rank_zero_warn(
            f"{index.split}: of the {len(stored)} classes in dataset.stored_classes, its labels have ids 0 to "
            f"{largest} alone. Have they been grouped before? They are read in this way: {', '.join(read_as)}. Where "
            f"that is not their meaning, say it with ++dataset.class_map.{stored[largest]}=CLASS for id {largest}, and "
            "so on"
        )


def _report_boxes_left_out(index: SplitIndex) -> None:
    not_finite, outside = index.left_out.sum(axis=0)
    if not_finite + outside:
        worst = index.path(index.left_out.sum(axis=1).argmax())
        rank_zero_warn(
            f"{index.split}: {not_finite + outside} boxes are left out ({not_finite} not finite, {outside} flat or "
            f"outside the frame), most of them in {worst}. scripts/check_dataset.py lists them by sequence"
        )


def _identity(plan: TrainingPlan) -> dict[str, Any]:
    return {"steps_per_epoch": plan.steps_per_epoch, "signature": plan.signature}


def _allow_open_files(num_workers: int) -> None:
    """Each tensor that workers have read ahead is an open file here. What may be allowed is; else it is told now."""
    needed = len(list(Path("/proc/self/fd").iterdir())) + _OTHER_FILES + num_workers * _FILES_PER_WORKER
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or needed <= soft:
        return
    if needed > hard:
        raise UserError(
            f"{num_workers} loader workers may need {needed} open files, but the shell allows {hard} (ulimit -Hn). "
            "Allow more, or take fewer of hardware.num_workers.train and .eval: 0 needs none"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _check_shared_memory(num_bytes: int, split: Split) -> None:
    """Workers hand batches over in /dev/shm; where it is full, they die of a bus error that names no reason."""
    if not _SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if num_bytes > free:
        key = "train" if split == "train" else "eval"
        raise UserError(
            f"{_SHARED_MEMORY} has {free >> 20} MB free, but the batches that workers read ahead take "
            f"{num_bytes >> 20} MB. Make it larger (docker run --shm-size=...), or take fewer of "
            f"hardware.num_workers.{key}: 0 needs none"
        )


def _as_it_is(batch: SequenceBatch) -> SequenceBatch:
    """Collation: the data set has made the batch already."""
    return batch
