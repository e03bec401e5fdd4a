"""What is done to a program before it starts: slow, hanging and dying parts, at a known moment."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from collections.abc import Callable
from types import SimpleNamespace

from callbacks.checkpoint import CheckpointWriter
from data.dataset import ChunkDataset
from modules import data
from modules.data import EventDataModule
from modules.detection import DetectionModule
from modules.run import company, loggers
from modules.run.loggers import MetricsCsv

LONG_S = 600.0


def _before(owner: type, method: str, action: object) -> None:
    original = getattr(owner, method)

    def replaced(self: object, *args: object) -> object:
        action(self, *args)
        return original(self, *args)

    setattr(owner, method, replaced)


def sleep_at_the_start() -> None:
    _before(EventDataModule, "__init__", lambda *_: (print("here", flush=True), time.sleep(LONG_S)))


def sleep_in_step_3() -> None:
    def sleep(module: DetectionModule, *_: object) -> None:
        if module.global_step == 3:
            print("here", flush=True)
            time.sleep(LONG_S)

    _before(DetectionModule, "training_step", sleep)


def sleep_in_step_3_with_little_grace() -> None:
    sleep_in_step_3()
    company.GRACE_S = 0.5


def kill_children_in_step_7() -> None:
    _kill_children_if(lambda module: module.global_step == 7)


def kill_children_in_the_last_step_of_the_epoch() -> None:
    _kill_children_if(lambda module: module.trainer.is_last_batch)


def _kill_children_if(condition: Callable[[DetectionModule], bool]) -> None:
    def kill(module: DetectionModule, *_: object) -> None:
        if condition(module):
            for child in multiprocessing.active_children():
                child.kill()
            time.sleep(0.5)

    _before(DetectionModule, "training_step", kill)


def wandb_waits_for_five_seconds_at_the_end() -> None:
    loggers.WANDB_FINISH_TIMEOUT_S = 5


def slow_validation() -> None:
    _before(DetectionModule, "validation_step", lambda *_: time.sleep(1))


def sleep_in_worker_after_three_batches() -> None:
    calls = []

    def sleep(*_: object) -> None:
        calls.append(1)
        if len(calls) > 3:
            print("here", flush=True)
            time.sleep(LONG_S)

    _before(ChunkDataset, "__getitems__", sleep)


def die_in_worker_after_three_batches() -> None:
    calls = []

    def die(*_: object) -> None:
        calls.append(1)
        if len(calls) > 3:
            os.kill(os.getpid(), 9)

    _before(ChunkDataset, "__getitems__", die)


def raise_in_worker_after_three_batches() -> None:
    calls = []

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) > 3:
            raise MemoryError("no more memory")

    _before(ChunkDataset, "__getitems__", fail)


def steps_of_a_tenth_of_a_second() -> None:
    _before(DetectionModule, "training_step", lambda *_: time.sleep(0.1))


def slow_steps_without_roots_power() -> None:
    """Root may write into any folder; take that from this process, and only that."""
    steps_of_a_tenth_of_a_second()
    dac_override, dac_read_search = 1, 2
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0
    sets[0] &= ~(1 << dac_override | 1 << dac_read_search) & 0xFFFFFFFF  # of the effective ones
    assert libc.capset(header, sets) == 0


def not_finite_in_step_3_of_the_second_process() -> None:
    original = DetectionModule.training_step

    def training_step(module: DetectionModule, *args: object) -> object:
        loss = original(module, *args)
        return loss * float("nan") if module.global_step == 3 and module.global_rank == 1 else loss

    DetectionModule.training_step = training_step


def seven_seconds_of_farewell() -> None:
    """As a logger may take that sends what it has."""
    _before(MetricsCsv, "finalize", lambda *_: time.sleep(7))


def sleep_before_the_end() -> None:
    _before(CheckpointWriter, "on_train_end", lambda *_: time.sleep(3))


def little_shared_memory_on_the_second_node() -> None:
    if os.environ.get("SLURM_NODEID") == "1":
        data._check_shared_memory.__globals__["shutil"] = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=-1))


def other_data_on_the_second_node() -> None:
    if os.environ.get("SLURM_NODEID") == "1":
        data.describe_split = lambda _: {"digest": "other"}
