"""Small preprocessed data sets that tests make for themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

# tiny tensors are faster in one thread, by far when the machine is busy; PyTorch reads it when it is first imported
os.environ["OMP_NUM_THREADS"] = "1"

from jaxtyping import install_import_hook

from tests.checking import checked  # noqa: F401  (the hook finds it by its name)

# before anything of ours is imported: shapes and types of arguments and results are checked while the tests run
install_import_hook(["models", "data"], "tests.checking.checked")

import h5py
import hdf5plugin
import numpy as np
import pytest
from PIL import Image

from config.loading import load_train_config
from config.schema import TrainConfig
from tests.runs import NETWORK, Start

BOX_FIELDS = np.dtype(
    [
        ("t", "<i8"),
        *((name, "<f4") for name in "xywh"),
        ("class_id", "<u4"),
        ("track_id", "<u4"),
        ("class_confidence", "<f4"),
    ]
)
FRAME_HW = (8, 12)  # as loaded; the sensor has twice as many pixels
CHANNELS = 20
FRAMES_FILE = "event_representations_ds2_nearest.h5"
REPRESENTATION = "event_representations_v2/stacked_histogram_dt=50_nbins=10"

# class, x, y, w, h in sensor pixels; and a track id, if it is not 0
Boxes = list[tuple[int, float, float, float, float] | tuple[int, float, float, float, float, int]]


def write_sequence(path: Path, num_frames: int, labels: dict[int, Boxes], frames: np.ndarray | None = None) -> Path:
    """A sequence folder in RVT's layout; frame i has the value i + 1 everywhere, unless `frames` are given.

    Args:
        labels: boxes by index of the labelled frame; windows end at 100 ms, 150 ms, ...
    """
    t_us = 100_000 + 50_000 * np.arange(num_frames)
    rows = [(t_us[i], *box[1:5], box[0], *(box[5:] or (0,)), 1.0) for i in sorted(labels) for box in labels[i]]
    boxes_per_frame = [len(labels[i]) for i in sorted(labels)]
    representation, boxes = path / REPRESENTATION, path / "labels_v2"
    representation.mkdir(parents=True)
    boxes.mkdir()
    np.savez(
        boxes / "labels.npz",
        labels=np.array(rows, dtype=BOX_FIELDS),
        objframe_idx_2_label_idx=(np.cumsum(boxes_per_frame) - boxes_per_frame).astype(np.int64),
    )
    np.save(boxes / "timestamps_us.npy", t_us[sorted(labels)])
    np.save(representation / "timestamps_us.npy", t_us)
    np.save(representation / "objframe_idx_2_repr_idx.npy", np.array(sorted(labels), dtype=np.int64))
    if frames is None:
        values = np.arange(1, num_frames + 1, dtype=np.uint8)
        frames = np.broadcast_to(values[:, None, None, None], (num_frames, CHANNELS, *FRAME_HW))
    write_frames(representation / FRAMES_FILE, frames)
    return path


def write_frames(path: Path, frames: np.ndarray) -> None:
    """A frames file as scripts/preprocess.py writes it: one frame per chunk, with checksums."""
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "data",
            data=frames,
            chunks=(1, *frames.shape[1:]),
            fletcher32=True,
            **hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE),
        )


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """Train: sequences of 7, 12, 5 and 9 frames, every second one labelled; val: 11, 6 and 4 frames; test: one of 5."""
    for split, lengths in {"train": (7, 12, 5, 9), "val": (11, 6, 4), "test": (5,)}.items():
        for number, length in enumerate(lengths):
            labels: dict[int, Boxes] = {i: [((i + number) % 8, 4.0, 2.0, 10.0, 8.0)] for i in range(1, length, 2)}
            write_sequence(tmp_path / "data" / split / f"sequence_{number}", length, labels)
    return tmp_path / "data"


signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may have been started by nohup


def small(data_set: Path) -> list[str]:
    """Overrides for `data_set`: chunks of 3 frames, batches of 4, no workers."""
    return [
        "dataset=gen4",
        "model=maxvit_yolox/default",
        f"dataset.path={data_set}",
        f"dataset.resolution_hw=[{FRAME_HW[0] * 2},{FRAME_HW[1] * 2}]",
        "dataset.sequence_length=3",
        "batch_size.train=4",
        "batch_size.eval=2",
        "hardware.num_workers.train=0",
        "hardware.num_workers.eval=0",
        "reproduce.seed_everything=1",
    ]


@pytest.fixture
def make_config(data_set: Path) -> Callable[..., TrainConfig]:
    """Configs of `small`, unless overrides say otherwise."""
    return lambda *overrides: load_train_config([*small(data_set), *overrides])


@pytest.fixture
def start(data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Train with overrides; runs lie under tmp_path / "runs" / <project>. Figures are blank: drawing takes a third."""

    from modules.run.entry import train

    monkeypatch.setattr("modules.pictures.figures.figure_to_image", lambda _: Image.new("RGB", (8, 8)))

    def start(*overrides: str, project: str = "project") -> int:
        for name in ("RUN", "SEED", "VALIDATION_FOLDER"):
            monkeypatch.delenv(f"STREAMRVT_{name}", raising=False)
        command = [
            *small(data_set),
            *NETWORK,
            "hardware.gpus=0",
            "logger=csv",
            "dataset.train.sampling=mixed",
            "logging.train.log_every_n_steps=1",
            "logging.validation.high_dim.enable=false",
            "dataset.eval.box_filter={min_diagonal: 0, min_side: 0, skip_first_ms: 0}",
            f"run_root={tmp_path / 'runs'}",
            f"wandb.project_name={project}",
            *overrides,
        ]
        return train(load_train_config(command), ["train.py", *command])

    return start
