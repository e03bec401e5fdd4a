"""Loading and preprocessing on one core, and the loader as a run uses it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from config.loading import load_dataset_config, load_train_config
from config.schema import TrainConfig
from data.dataset import ChunkDataset
from data.preprocessing import preprocess_recording
from data.representation import add_stacked_histogram
from modules.data import EventDataModule, make_training_plan
from scripts.benchmarks import plain_data
from scripts.benchmarks.measuring import Measure, Row, alternate
from scripts.benchmarks.recordings import SENSOR_HW, WINDOW_US, draw_events, prepare_data_set, write_recording

BATCH_SIZE, STEPS = 6, 4


def load(rounds: int, num_events: int) -> list[Row]:
    """CPU seconds a frame of the training loader, augmentation and collation included, in this process."""
    with _one_thread(), tempfile.TemporaryDirectory() as folder:
        prepare_data_set(Path(folder), num_recordings=3, num_windows=30, events_per_window=num_events)
        config = _config(Path(folder))
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
    note = f"{num_events:,} events a window, mixed sampling"
    return [Row("loader", "CPU ms/frame", costs["ours"], costs["plain"], ">= 4 x", note)]


def preprocess(rounds: int, num_events: int, num_windows: int) -> list[Row]:
    """CPU seconds a window: counting alone, and from a recording to a finished sequence folder."""
    with _one_thread():
        return [_counting(rounds, num_events), _recording(rounds, num_events, num_windows)]


def _counting(rounds: int, num_events: int) -> Row:
    x, y, polarity, t_us = draw_events(num_events, WINDOW_US, np.random.default_rng(0)).values()
    frame = np.zeros((20, SENSOR_HW[0] // 2, SENSOR_HW[1] // 2), np.uint8)

    def plain() -> torch.Tensor:
        return plain_data.stacked_histogram(x, y, polarity, t_us, 10, 10, SENSOR_HW)

    def ours() -> None:
        frame.fill(0)
        add_stacked_histogram(x, y, polarity, t_us, 10, 2, frame)

    costs = alternate({"plain": _cpu_ms(plain, 1), "ours": _cpu_ms(ours, 1)}, rounds)
    return Row(
        "counting events", "CPU ms/window", costs["ours"], costs["plain"], ">= 12 x", f"{num_events:,} events a window"
    )


def _recording(rounds: int, num_events: int, num_windows: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_dataset_config(["dataset=gen4"])
        files = write_recording(Path(folder) / "recording", num_windows, num_events)
        numbers = iter(range(10**6))

        def ours() -> Path:
            out = Path(folder) / str(next(numbers))
            preprocess_recording(out, dataset, files)
            return next(out.rglob(dataset.frames_file_name))

        end_us = np.load(ours().with_name("timestamps_us.npy")).tolist()

        def plain() -> None:
            plain_data.preprocess(files.events, Path(folder) / "plain.h5", dataset, end_us)

        costs = alternate({"plain": _cpu_ms(plain, len(end_us)), "ours": _cpu_ms(ours, len(end_us))}, rounds)
    note = f"{num_events:,} events a window; ours writes the compact store, too"
    return Row("preprocessing, file to file", "CPU ms/window", costs["ours"], costs["plain"], note=note)


def loader_rate(folder: Path, num_workers: int, epochs: int = 5) -> float:
    """Frames a second of the loader of a run, after an epoch in which its workers get up."""
    config = _config(folder, f"hardware.num_workers.train={num_workers}")
    loader = EventDataModule(config).train_dataloader()
    for _ in loader:
        pass
    started = time.perf_counter()
    num_batches = sum(1 for _ in range(epochs) for _ in loader)
    seconds = time.perf_counter() - started
    return num_batches * config.batch_size.train * config.dataset.sequence_length / seconds


def _config(folder: Path, *overrides: str) -> TrainConfig:
    common = ["dataset=gen4", "model=maxvit_yolox/plain_lstm", f"dataset.path={folder / 'data'}"]
    return load_train_config([*common, f"batch_size.train={BATCH_SIZE}", "reproduce.seed_everything=0", *overrides])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
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
