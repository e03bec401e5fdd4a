"""What can go wrong in ten hours, looked at in a minute: `train.py check=true ...`."""

from __future__ import annotations

import gc
import shlex
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from config.hardware import Device
from config.schema import TrainConfig
from config.stages import STAGES
from modules.data import EventDataModule
from modules.detection import DetectionModule
from modules.run.activations import StepMemory
from modules.run.disk import check_disk_space
from modules.run.memory import peak_memory_mb
from modules.run.preparation import make_module, open_data, open_stage, with_seed
from modules.run.processes import is_first_process
from modules.run.stages import check_later_stages, named
from modules.run.start import say
from modules.run.trainer import hardware_arguments
from modules.stage import Stage, size

WARM_UP_STEPS, TIMED_STEPS = 2, 4


def check_training(config: TrainConfig, device: Device, argv: Sequence[str]) -> int:
    """Train a few steps of each stage, print what the run will take, and return the exit code. Leaves nothing behind.

    Raises UserError for all that the start would refuse, and for a step that the memory has no room for.
    """
    say(*device.notes)
    stage, hours = Stage(with_seed(config, checkpoint=None)), 0.0
    if not stage.is_last:
        check_later_stages(stage, open_data)
    while True:
        if stage.is_staged:
            say(f"\nStage {stage.number} of {stage.of}, on frames of {size(stage.config)}")
        hours += named(stage, partial(_check_stage, stage, device, argv))
        if stage.is_last:
            break
        stage = stage.following()
        _forget_memory()
    if stage.is_staged:
        say(f"\nAll {stage.of} stages: about {hours:.1f} h, without validation")
    return 0


def _forget_memory() -> None:
    """What the stage before has left on a GPU is not the next one's, which asks how much is free."""
    gc.collect()  # a Trainer and its callbacks hold each other
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _check_stage(stage: Stage, device: Device, argv: Sequence[str]) -> float:
    """Train a few steps, print what the stage, or a run without stages, will take, and return the hours."""
    config, data = stage.config, open_stage(stage)
    module = make_module(stage, data)
    above = f"+{STAGES}.{stage.number - 1}." if stage.is_staged else ""
    memory = StepMemory(config, module, device, above)
    memory.require_room()
    with memory.out_of_memory_told():
        seconds = _seconds_per_batch(config, device, data, module)
    batches = config.training.accumulate_grad_batches
    steps_per_epoch = -(-data.training_plan().steps_per_epoch // batches)
    seconds_per_step = seconds * batches
    hours = seconds_per_step * config.training.max_steps / 3600
    rows: dict[str, Any] = {
        "Network": f"{sum(p.numel() for p in module.parameters()):,} parameters, input {config.input_hw}, "
        f"windows {config.partition_size}",
        "Training": f"{len(data.index('train'))} sequences, {steps_per_epoch} steps per epoch, "
        f"{config.training.max_steps / steps_per_epoch:.1f} epochs",
        "Validation": f"{len(data.index('val'))} sequences, {len(data.index('val').label_frame)} labelled frames",
        "Memory": _memory(stage, device),
        **memory.rows(),
        "Disk": check_disk_space(config, module, more_stages=stage.of - 1),
        "Time": f"{seconds_per_step:.2f} s per step over {TIMED_STEPS} steps: about "
        f"{hours:.1f} h for "
        f"training.max_steps={config.training.max_steps}, without validation",
        "Command": shlex.join(["python", *(text for text in argv if not text.lstrip("+").startswith("check="))]),
    }
    if is_first_process():
        print("\n".join(f"{name + ':':<12} {text}" for name, text in rows.items()), flush=True)
    return hours


def _memory(stage: Stage, device: Device) -> str:
    told = f"{peak_memory_mb():,.0f} MiB"
    if stage.number > 1 and device.accelerator == "cpu":  # whose peak nobody can begin anew
        return f"{told}, the most of stages 1 to {stage.number}, without loader workers. Backward is this one's own"
    return f"{told} at batch_size.train={stage.config.batch_size.train}, without loader workers"


def _seconds_per_batch(config: TrainConfig, device: Device, data: EventDataModule, module: DetectionModule) -> float:
    timer = _StepTimer()
    trainer = Trainer(
        **hardware_arguments(config, device),
        max_steps=WARM_UP_STEPS + TIMED_STEPS,
        limit_val_batches=0,
        gradient_clip_val=config.training.gradient_clip_val or None,
        gradient_clip_algorithm="value",
        logger=False,
        callbacks=[timer],
    )
    trainer.fit(module, datamodule=data)
    return timer.seconds_per_batch


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
