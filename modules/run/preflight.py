"""What can go wrong in ten hours, looked at in a minute: `train.py check=true ...`."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from config.errors import UserError
from config.hardware import Device
from config.schema import TrainConfig
from modules.data import EventDataModule
from modules.detection import DetectionModule
from modules.run.activations import StepMemory
from modules.run.memory import peak_memory_mb
from modules.run.processes import is_first_process
from modules.run.trainer import hardware_arguments

WARM_UP_STEPS, TIMED_STEPS = 2, 4
# about 40 predictions, each of 40 bytes as an array and 160 as JSON, and 600 of 26 bytes under other thresholds
_BYTES_OF_RESULTS_PER_FRAME = 24_000
_BYTES_PER_PARAMETER = 12  # the weight and AdamW's two moments, float32


def check_disk_space(config: TrainConfig, module: DetectionModule, already_there: int = 0, more_stages: int = 0) -> str:
    """Return what the checkpoints will need and find, less those that a resumed run has already.

    Each of `more_stages` leaves its best ones and its last one.

    Raises UserError if the disk cannot hold them.
    """
    size = checkpoint_bytes(config, module)
    count = config.checkpoint.keep_best + 2  # the best, the last, and the one being written
    count = max(count + more_stages * (config.checkpoint.keep_best + 1) - already_there, 1)
    needed = size * count
    folder = config.run_root.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {_megabytes(free)} free, but {count} checkpoints need {_megabytes(needed)}. "
            "Free some space, set run_root=FOLDER on another disk, or a smaller checkpoint.keep_best"
        )
    return f"{_megabytes(size)} per checkpoint, {_megabytes(needed)} in all; {_megabytes(free)} free in {folder}"


def room_for_results(folder: Path, num_frames: int) -> list[str]:
    """What to say where the results of a validation may not fit: nothing is certain before it has run."""
    needed, free = num_frames * _BYTES_OF_RESULTS_PER_FRAME, shutil.disk_usage(folder).free
    if free >= needed:
        return []
    told = f"{free / 2**20:,.1f} MiB free, and predictions of {num_frames:,} frames may take {needed / 2**20:,.1f} MiB"
    return [f"{folder}: {told}. The figures are stored first"]


def checkpoint_bytes(config: TrainConfig, module: DetectionModule) -> int:
    """Return the size of a checkpoint: weights, moments, and the states of all lanes."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    states = module.detector.backbone.state_bytes(config.input_hw) * config.batch_size.train
    average = 0 if config.training.ema_decay is None else parameters * 4
    return parameters * _BYTES_PER_PARAMETER + average + states


def check_run(
    config: TrainConfig,
    device: Device,
    data: EventDataModule,
    module: DetectionModule,
    argv: Sequence[str],
    stages: int,
) -> float:
    """Train a few steps, print what the run, or one of its `stages`, will take, and return the hours.

    Leaves nothing behind.
    """
    memory, timer = StepMemory(config, module, device), _StepTimer()
    memory.require_room()
    trainer = Trainer(
        **hardware_arguments(config, device),
        max_steps=WARM_UP_STEPS + TIMED_STEPS,
        limit_val_batches=0,
        gradient_clip_val=config.training.gradient_clip_val or None,
        gradient_clip_algorithm="value",
        logger=False,
        callbacks=[timer],
    )
    with memory.out_of_memory_told():
        trainer.fit(module, datamodule=data)
    batches = config.training.accumulate_grad_batches
    steps_per_epoch = -(-data.training_plan().steps_per_epoch // batches)
    seconds_per_step = timer.seconds_per_batch * batches
    hours = seconds_per_step * config.training.max_steps / 3600
    rows: dict[str, Any] = {
        "Network": f"{sum(p.numel() for p in module.parameters()):,} parameters, input {config.input_hw}, "
        f"windows {config.partition_size}",
        "Training": f"{len(data.index('train'))} sequences, {steps_per_epoch} steps per epoch, "
        f"{config.training.max_steps / steps_per_epoch:.1f} epochs",
        "Validation": f"{len(data.index('val'))} sequences, {len(data.index('val').label_frame)} labelled frames",
        "Memory": f"{peak_memory_mb():,.0f} MiB at batch_size.train={config.batch_size.train}, without loader workers",
        **memory.rows(),
        "Disk": check_disk_space(config, module, more_stages=stages - 1),
        "Time": f"{seconds_per_step:.2f} s per step over {TIMED_STEPS} steps: about "
        f"{hours:.1f} h for "
        f"training.max_steps={config.training.max_steps}, without validation",
        "Command": shlex.join(["python", *(text for text in argv if not text.lstrip("+").startswith("check="))]),
    }
    if is_first_process():
        print("\n".join(f"{name + ':':<12} {text}" for name, text in rows.items()), flush=True)
    return hours


class _StepTimer(Callback):
    """Seconds per step, data waiting included, after the warm-up."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self._times.append(time.perf_counter())

    @property
    def seconds_per_batch(self) -> float:
        return (self._times[-1] - self._times[WARM_UP_STEPS - 1]) / (len(self._times) - WARM_UP_STEPS)


def _megabytes(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
