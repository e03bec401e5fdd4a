"""What a process pays for many sequences and many other processes: simulated, in one process and CPU seconds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from config.schema import DatasetConfig
from data.index import SplitIndex, _places, _write, written_index
from data.plan import EvaluationPlan, TrainingPlan
from modules.evaluation import coco
from modules.evaluation.labelled_frames import LabelledFrames
from modules.evaluation.matching import match
from modules.run.memory import peak_memory_mb
from scripts.benchmarks.evaluation import NUM_CLASSES, make_boxes
from scripts.benchmarks.network import OURS, Case

SIZES = ((1_000, 8), (10_000, 64), (100_000, 1_024))  # sequences, processes
LABELS_PER_SEQUENCE, LENGTH, LANES = 60, 5, 8
FILES_PER_SEQUENCE, CHECKS_OF_A_FOLDER = 4, 2  # what a start asks the file system of each sequence
REQUESTS_PER_S = 50_000  # that a network disk answers, of all processes together
FRAMES = 20_000  # of an evaluation: labelled, of 200 predictions each
PROCESSES = (1, 2, 4, 8, 16, 32, 64)
STEP_S, BACKWARD_SHARE = 0.1, 2 / 3
GIGABYTES_PER_S = {"NVLink, 300 GB/s": 300.0, "InfiniBand, 25 GB/s": 25.0, "Ethernet, 1.25 GB/s": 1.25}

Figure = tuple[str, str, str]


def scale(case: Case, most: int | None = None) -> list[Figure]:
    """Rows (what, how many, figure); `most` limits the sizes."""
    rows = [row for sequences, processes in SIZES[:most] for row in _data(case, sequences, processes)]
    rows += [row for parts in (1, 64, 1_024)[:most] for row in _evaluation(parts, FRAMES if most is None else 50)]
    return rows + _all_reduce(sum(p.numel() for p in replace(case, model="base").detector(OURS).parameters()))


def _data(case: Case, sequences: int, processes: int) -> list[Figure]:
    what = f"{sequences:,} sequences, {processes:,} processes"
    with tempfile.TemporaryDirectory() as folder:
        dataset = case.config().dataset.model_copy(update={"path": Path(folder)})
        index = _index(dataset, sequences)
        _write(index, dataset)
        size = next(path for path in _places(index.split, dataset) if path.is_file()).stat().st_size / 2**20
        read_s = _seconds(lambda: written_index(dataset, "train", index.digest))
    streams, chunks = index.training_streams(LENGTH), index.random_chunks(LENGTH)
    weights_s = _seconds(lambda: index.chunk_weights(chunks, LENGTH))
    rows: dict[str, Any] = {"num_stream_rows": LANES // 2, "num_random_rows": LANES // 2}
    plan = TrainingPlan(streams, chunks, length=LENGTH, seed=0, world_size=processes, **rows)
    epoch_s = _seconds(lambda: plan.batch(0, 0, processes - 1))
    steps = range(0, plan.steps_per_epoch, max(plan.steps_per_epoch // 200, 1))
    step_s = _seconds(lambda: [plan.batch(0, step, processes - 1) for step in steps]) / len(steps)
    evaluation_s = _seconds(lambda: EvaluationPlan(index.evaluation_streams(LENGTH), LENGTH, LANES, processes))
    requests = sequences * (FILES_PER_SEQUENCE + CHECKS_OF_A_FOLDER)
    return [
        ("index: file and arrays of a process", what, f"{size:.1f} MB, read and checked in {read_s:.2f} s"),
        ("index: read by all", what, f"{size * processes / 1024:.1f} GB"),
        ("index: sequences looked at by one process", what, _asked(requests)),
        ("index: sequences looked at by each process", what, _asked(requests * processes)),
        ("plan, mixed: first batch of an epoch", what, f"{epoch_s:.2f} s"),
        ("plan, mixed: a later batch", what, f"{step_s * 1e6:.0f} us"),
        ("plan: weights of the random chunks", what, f"{weights_s:.2f} s"),
        ("plan of an evaluation", what, f"{evaluation_s:.2f} s"),
        ("peak memory of this process so far", what, f"{peak_memory_mb():.0f} MB"),
    ]


def _asked(requests: int) -> str:
    return f"{requests:,} requests, {requests / REQUESTS_PER_S:,.0f} s at {REQUESTS_PER_S:,} a second"


def _index(dataset: DatasetConfig, sequences: int) -> SplitIndex:
    """Sequences whose labelled frames lie two frames apart."""
    rng, labels = np.random.default_rng(0), sequences * LABELS_PER_SEQUENCE
    folder = dataset.path / "train"
    folder.mkdir()
    return SplitIndex(
        split=folder,
        names=np.array([f"recording_2019-02-15_{number:08d}" for number in range(sequences)]),
        fingerprint=rng.integers(0, 2**40, (sequences, 2 * FILES_PER_SEQUENCE)),
        num_frames=np.full(sequences, 2 * LABELS_PER_SEQUENCE + LENGTH),
        first_label=np.arange(sequences + 1) * LABELS_PER_SEQUENCE,
        label_frame=np.tile(LENGTH + 2 * np.arange(LABELS_PER_SEQUENCE), sequences),
        class_counts=rng.integers(0, 5, (labels, NUM_CLASSES), dtype=np.uint16),
        unknown_ids=np.zeros(sequences, np.int64),
        left_out=np.zeros((sequences, 2), np.int64),
        largest_id=np.full(sequences, NUM_CLASSES - 1),
    )


def _evaluation(processes: int, num_frames: int) -> list[Figure]:
    """What every process does with what all of them have found."""
    truth, found = make_boxes(num_frames)
    frames = np.arange(num_frames)
    names = tuple(f"sequence_{number:06d}" for number in range(max(1, num_frames // 100)))
    whole = LabelledFrames(names, (frames // 100 % len(names)).astype(np.int32), frames * 100_000, frames, truth, found)
    parts = [whole.take(frames[process::processes]) for process in range(processes)]
    merged: list[LabelledFrames] = []
    merge_s = _seconds(lambda: merged.append(LabelledFrames.merge(parts)))
    all_frames = merged[0]
    size = sum(array.nbytes for boxes in (all_frames.truth, all_frames.predictions) for array in vars(boxes).values())

    def measure() -> None:
        t, p = all_frames.truth, all_frames.predictions
        scores = p.score("product")
        coco.accumulate(match(t.frame, t.class_id, t.xywh, p.frame, p.class_id, p.xywh, scores, NUM_CLASSES)).summary()

    what = f"{num_frames:,} labelled frames of {processes:,} processes"
    return [
        ("evaluation: boxes and predictions in each process", what, f"{size / 2**20:.0f} MB"),
        ("evaluation: merged", what, f"{merge_s:.2f} s"),
        ("evaluation: AP, once", what, f"{_seconds(measure):.2f} s"),
    ]


def exposed_share(parameters: int, processes: int, bytes_per_s: float, step_s: float = STEP_S) -> tuple[float, float]:
    """Seconds of a ring's all-reduce of float32 gradients, and what is left of it as a share of the step.

    It runs beside the backward pass. Each process sends and receives 2 (N - 1) / N times the gradients. The last bucket
    (25 MiB, or all there is) has nothing left to hide behind.
    """
    size = 4 * parameters
    ring = 2 * (processes - 1) / processes
    seconds = ring * size / bytes_per_s
    last = ring * min(size, 25 * 2**20) / bytes_per_s
    exposed = max(last, seconds - BACKWARD_SHARE * step_s)
    return seconds, exposed / (step_s + exposed)


def _all_reduce(parameters: int) -> list[Figure]:
    rows = []
    for name, rate in GIGABYTES_PER_S.items():
        for processes in PROCESSES:
            seconds, share = exposed_share(parameters, processes, rate * 1e9)
            what = f"all-reduce of {parameters / 1e6:.1f} M gradients"
            rows.append((what, f"{processes} GPUs, {name}", f"{seconds * 1e3:.1f} ms, {share:.1%}"))
    return rows


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
