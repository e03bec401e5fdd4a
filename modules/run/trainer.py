"""Lightning's Trainer, as a run needs it."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import ClusterEnvironment, LightningEnvironment
from pytorch_lightning.profilers import Profiler, PyTorchProfiler, SimpleProfiler
from pytorch_lightning.strategies import DDPStrategy

from callbacks.checkpoint import CheckpointWriter
from callbacks.early_stopping import EarlyStopping
from callbacks.faults import DamageCounter
from callbacks.gradient_guard import GradientGuard
from callbacks.progress import on_a_terminal, progress_callback
from callbacks.random_state import RandomState
from callbacks.requeue import Requeue
from callbacks.run_record import ResultsFile, RunRecord
from callbacks.signals import SignalHandling
from callbacks.validation_interval import ValidationAtLastStep, ValidationInSteps
from callbacks.visualization import ConfusionMedia, DetectionPictures
from callbacks.weight_average import WeightAverage
from config.hardware import Device
from config.launch import Launch, read_launch
from config.schema import Config
from modules.run.checkpoint_file import AtomicCheckpointIO
from modules.run.folder import RunFolder
from modules.run.meeting import company
from modules.run.processes import world_size
from modules.stage import Stage


def training_trainer(
    stage: Stage,
    device: Device,
    run: RunFolder,
    signals: SignalHandling,
    record: RunRecord,
    loggers: list[Logger],
    more: Sequence[Callback] = (),
) -> tuple[Trainer, CheckpointWriter]:
    """Return the Trainer of a run, or of a stage of it, and its checkpoint writer, which knows best and last files.

    `more` precede the writer. Steps are counted on from those that the run had before.
    """
    config, interval = stage.config, stage.config.validation.val_check_interval
    io = AtomicCheckpointIO()
    writer = CheckpointWriter(run.checkpoints, stage, io, signals)
    hardware = hardware_arguments(config, device)
    hardware["plugins"].append(io)
    trainer = Trainer(
        **hardware,
        default_root_dir=run.path,  # where Lightning looks for checkpoints of its own, in a SLURM job
        max_steps=stage.max_steps,
        max_epochs=config.training.max_epochs,
        accumulate_grad_batches=config.training.accumulate_grad_batches,
        limit_train_batches=config.training.limit_train_batches,
        limit_val_batches=config.validation.limit_val_batches,
        val_check_interval=interval,
        check_val_every_n_epoch=None if interval is not None else config.validation.check_val_every_n_epoch,
        gradient_clip_val=config.training.gradient_clip_val or None,
        gradient_clip_algorithm="value",
        log_every_n_steps=config.logging.train.log_every_n_steps,
        logger=loggers,
        callbacks=_callbacks(stage, device, run, signals, record, more, writer),
        profiler=_profiler(
            config.training.profiler, run.path / "profile" / (f"stage={stage.number}" if stage.is_staged else "")
        ),
        num_sanity_val_steps=0,
        benchmark=config.reproduce.benchmark,
        deterministic=config.reproduce.deterministic_flag,
    )
    if stage.first_step:
        _count_from(trainer, stage.first_step)
        writer.find_last()
    return trainer, writer


def _callbacks(
    stage: Stage,
    device: Device,
    run: RunFolder,
    signals: SignalHandling,
    record: RunRecord,
    more: Sequence[Callback],
    writer: CheckpointWriter,
) -> list[Callback]:
    """In the order in which Lightning calls them."""
    config, interval = stage.config, stage.config.validation.val_check_interval
    settings = config.logging.validation.high_dim
    pictures = DetectionPictures(run.path / "pictures", settings.n_samples, config.dataset)
    every = 1 if device.accelerator == "cpu" else config.logging.train.log_every_n_steps
    return [
        signals,
        *([ValidationInSteps(interval)] if interval is not None else []),
        *([ValidationAtLastStep()] if stage.is_staged else []),
        RandomState(),
        GradientGuard(run.path / "skipped_steps.jsonl", config.training.max_skipped_steps, check_every=every),
        *([WeightAverage(config.training.ema_decay)] if config.training.ema_decay is not None else []),
        DamageCounter(run.path / "damaged_chunks.txt", config.training.max_damaged_chunks),
        *([pictures] if settings.enable else []),
        progress_callback(),
        record,
        EarlyStopping(stage, record),
        *more,
        writer,  # what those before it keep is in the checkpoint
        ResultsFile(run, stage, record, writer),
        *([Requeue(run.run_id, lambda: writer.last)] if config.training.requeue else []),
        ConfusionMedia(run.path / "confusion_matrix"),
    ]


def _count_from(trainer: Trainer, step: int) -> None:
    """Have a Trainer's first step be `step`; a checkpoint that it then resumes from has its own count."""
    loop = trainer.fit_loop.epoch_loop
    total = loop.automatic_optimization.optim_progress.optimizer.step.total
    total.ready = total.completed = loop._batches_that_stepped = step


def _profiler(kind: str | None, folder: Path) -> Profiler | None:
    """What writes into `folder` when the training ends: a table of seconds per hook, or a trace of three steps."""
    if kind is None:
        return None
    if kind == "simple":
        return SimpleProfiler(dirpath=folder, filename="seconds")
    # one window of steps: a trace of a whole training fills any disk
    schedule = torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1)
    return PyTorchProfiler(dirpath=folder, filename="operators", schedule=schedule)


def evaluation_trainer(config: Config, device: Device, callbacks: list[Callback]) -> Trainer:
    """Return the Trainer of a validation or test without training.

    `callbacks` say what becomes of chunks that cannot be read.
    """
    return Trainer(
        **hardware_arguments(config, device),
        logger=False,
        callbacks=[progress_callback(), *callbacks],
        limit_val_batches=config.validation.limit_val_batches,
        limit_test_batches=config.validation.limit_val_batches,
    )


class _Ddp(DDPStrategy):
    def setup_distributed(self) -> None:
        """Meet where the processes have met already: Lightning would have the group read MASTER_ADDR's store as it is.

        An agent of torchrun keeps that store when it starts processes again, with the addresses of those that ended.
        """
        fellows = company()
        if fellows is not None and not torch.distributed.is_initialized():
            self.set_world_ranks()
            backend = self._get_process_group_backend()
            torch.distributed.init_process_group(
                backend,
                store=fellows.store_of_a_group(),
                rank=self.global_rank,
                world_size=self.world_size,
                timeout=self._timeout,
                device_id=self.root_device if self.root_device.type != "cpu" else None,
            )
            if backend == "nccl":  # which warns where it is left open
                atexit.register(torch.distributed.destroy_process_group)
        super().setup_distributed()

    @property
    def root_device(self) -> torch.device:
        devices = self.parallel_devices
        assert devices is not None, "the Trainer sets them"
        return devices[self.local_rank % len(devices)]  # there may be one, which each task of srun sees as its own


class _Launched(ClusterEnvironment):
    """What a launcher has started, for Lightning: its own reading of SLURM's variables would requeue by itself."""

    def __init__(self, launch: Launch) -> None:
        super().__init__()
        self._launch = launch

    creates_processes_externally = True

    @property
    def main_address(self) -> str:
        return self._launch.address

    @property
    def main_port(self) -> int:
        return self._launch.port

    @staticmethod
    def detect() -> bool:
        return read_launch().has_launcher

    def world_size(self) -> int:
        return self._launch.world_size

    def set_world_size(self, size: int) -> None:
        """The launcher has set it."""

    def global_rank(self) -> int:
        return self._launch.rank

    def set_global_rank(self, rank: int) -> None:
        """The launcher has set it."""

    def local_rank(self) -> int:
        return self._launch.local_rank

    def node_rank(self) -> int:
        return self._launch.node_rank


def hardware_arguments(config: Config, device: Device) -> dict[str, Any]:
    """Return where and how exactly to compute, and what is never Lightning's to do here."""
    launch = read_launch()
    backend = config.hardware.dist_backend if device.accelerator == "gpu" else "gloo"
    # DDP would broadcast buffers in the first validation batch, which a process without sequences does not have
    options = {"process_group_backend": backend, "gradient_as_bucket_view": True, "forward_sync_buffers": False}
    return {
        "accelerator": device.accelerator,
        "devices": list(device.indices) or launch.local_world_size,
        "num_nodes": launch.num_nodes,
        "strategy": _Ddp(**options) if world_size(device) > 1 else "auto",
        "plugins": [_Launched(launch) if launch.has_launcher else LightningEnvironment()],
        "precision": device.precision,
        "use_distributed_sampler": False,  # the plan deals lanes to ranks
        "enable_checkpointing": False,  # callbacks/checkpoint.py writes them
        "enable_model_summary": False,
        "enable_progress_bar": on_a_terminal(),
    }
