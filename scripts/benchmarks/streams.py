"""Loading and preprocessing on one core, and the loader as a run uses it."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from config.loading import load_dataset_config, load_train_config
from config.schema import TrainConfig
from data.dataset import ChunkDataset
from data.layout import FrameFiles, SequenceLayout
from data.recordings.preprocessing import preprocess_recording
from data.recordings.representation import add_stacked_histogram
from data.sampling import make_training_plan
from modules.data import EventDataModule
from scripts.benchmarks import plain_data
from scripts.benchmarks.measuring import Measure, Row, alternate
from scripts.benchmarks.recordings import WINDOW_US, Scene

BATCH_SIZE, STEPS = 6, 4


def load(scene: Scene, rounds: int) -> list[Row]:
    """CPU seconds a frame of the training loader, augmentation and collation included, in this process."""
    with _one_thread(), tempfile.TemporaryDirectory() as folder:
        config = _config(scene.prepare(Path(folder), num_recordings=3))
        index = EventDataModule(config).index("train")
        plan = make_training_plan(config, index, world_size=1)
        steps = [plan.batch(0, step) for step in range(min(STEPS, plan.steps_per_epoch))]
        num_frames = sum(len(reads) for reads in steps) * config.dataset.sequence_length
        dataset = ChunkDataset(index, config.dataset)
        costs = alternate(
            {
                "plain": _cpu_ms(lambda: list(plain_data.batches(index, config.dataset, steps)), num_frames),
                "ours": _cpu_ms(lambda: [dataset.__getitems__(reads) for reads in steps], num_frames),
            },
            rounds,
        )
    note = f"{scene.description}, mixed sampling"
    return [Row("loader, a frame", "CPU ms", costs["ours"], costs["plain"], ">= 4 x", note)]


def preprocess(scene: Scene, rounds: int) -> list[Row]:
    """CPU seconds a window: counting alone, and from a recording to a finished sequence folder of each layout."""
    with _one_thread():
        return [_counting(scene, rounds), *_recording(scene, rounds)]


def _counting(scene: Scene, rounds: int) -> Row:
    x, y, polarity, t_us = scene.events(1, np.random.default_rng(0)).values()
    frame = np.zeros((20, scene.sensor_hw[0] // 2, scene.sensor_hw[1] // 2), np.uint8)

    def plain() -> torch.Tensor:
        return plain_data.stacked_histogram(x, y, polarity, t_us, 10, 10, scene.sensor_hw)

    def ours() -> None:
        frame.fill(0)
        add_stacked_histogram(x, y, polarity, t_us, 10, 2, frame)

    costs = alternate({"plain": _cpu_ms(plain, 1), "ours": _cpu_ms(ours, 1)}, rounds)
    return Row("counting events, a window", "CPU ms", costs["ours"], costs["plain"], ">= 12 x", scene.description)


def _recording(scene: Scene, rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_dataset_config(scene.overrides)
        files = scene.record(Path(folder) / "recording")
        numbers = itertools.count()

        def ours(layout: FrameFiles) -> SequenceLayout:
            out = Path(folder) / str(next(numbers))
            preprocess_recording(out, dataset, files, layout=layout)
            return SequenceLayout.of(out / files.split / files.name, dataset)

        end_us = np.load(ours("compact").frame_times).tolist()

        def plain() -> None:
            plain_data.preprocess(files.events, Path(folder) / "plain.h5", dataset, end_us)

        ways = {"plain": plain, **{layout: partial(ours, layout) for layout in get_args(FrameFiles)}}
        costs = alternate({name: _cpu_ms(way, len(end_us)) for name, way in ways.items()}, rounds)
    return [
        Row(
            f"preprocessing, a window from file to file, layout={layout}",
            "CPU ms",
            costs[layout],
            costs["plain"],
            target,
            f"{scene.description}; {_hours(statistics.median(costs[layout]))}",
        )
        for layout, target in (("compact", ">= 4 x"), ("rvt", ""), ("both", ""))
    ]


def _hours(window_ms: float) -> str:
    """What a set of recordings costs, by its length alone."""
    return ", ".join(
        f"{name}'s {hours} h: {window_ms * hours * 1000 / WINDOW_US:.2g} core hours"
        for name, hours in (("eTraM", 10), ("1 Mpx", 15))
    )


def loader_rate(scene: Scene, num_workers: int, device: str, epochs: int = 5) -> float:
    """Frames a second of the loader of a run, until they are on the device; its workers get up in an epoch before."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = scene.prepare(Path(folder), num_recordings=6)
        config = _config([*overrides, f"hardware.num_workers.train={num_workers}"])
        loader = EventDataModule(config).train_dataloader()
        loader.pin_memory = device == "cuda"  # as with a Trainer on a GPU
        for _ in loader:
            pass
        started = time.perf_counter()
        num_batches = 0
        for batch in itertools.chain.from_iterable(itertools.repeat(loader, epochs)):
            batch.to(torch.device(device))
            num_batches += 1
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    return num_batches * config.batch_size.train * config.dataset.sequence_length / seconds


def _config(overrides: list[str]) -> TrainConfig:
    common = [f"batch_size.train={BATCH_SIZE}", "reproduce.seed_everything=0"]
    return load_train_config(["model=maxvit_yolox/plain_lstm", *overrides, *common])


@contextlib.contextmanager
def _one_thread() -> Generator[None]:
    """As in a loader's worker; waiting threads would count as CPU time, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cpu_ms(function: Callable[[], object], parts: int) -> Measure:
    def measure() -> float:
        started = time.process_time()
        function()
        return (time.process_time() - started) * 1000 / parts

    measure()
    return measure
