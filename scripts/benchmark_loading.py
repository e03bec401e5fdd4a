"""Frames per CPU second of the loader, beside a plain one: a slice per frame, stacked frame by frame.

python scripts/benchmark_loading.py [FOLDER]

Makes a set of 8 sequences of 60 half-resolution frames, 6 % of their cells filled (FOLDER keeps it), and reads batches
of 8 rows in one process. CPU seconds count, so that the numbers hold on a busy machine, too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import torch
from torch.nn.functional import interpolate, pad
from torch.utils.data import default_collate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.loading import load_train_config
from config.schema import TrainConfig
from data.augmentation import Augmentation, Move, window_size
from data.dataset import ChunkDataset
from data.frame_store import compact_path, write_frame_store
from data.index import load_index
from data.labels import BOX_DTYPE
from data.plan import ChunkRead, TrainingPlan
from modules.data import make_training_plan

NUM_SEQUENCES, NUM_FRAMES = 8, 60
FILLED, MEAN_COUNT, CUT_OFF = 0.06, 1.7, 10
BATCHES = 6
NO_BOXES = np.zeros((0, 5), dtype=np.float32)
NO_AUGMENTATION = tuple(
    f"dataset.data_augmentation.{kind}.{key}=0" for kind in ("random", "stream") for key in ("prob_hflip", "zoom.prob")
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER")
    folder = parser.parse_args(arguments).folder
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = folder or Path(temporary)
        config = _config(root)
        if not (root / "train").is_dir():
            write_set(root, config)
        frames_files = sorted((root / "train").glob("*/*/*/event_representations_ds2_nearest.h5"))
        compact_files = [compact_path(path) for path in frames_files]
        write_compact(frames_files, compact_files)
        for name, files in (("frames file", frames_files), ("compact store", compact_files)):
            size = sum(path.stat().st_size for path in files) / NUM_SEQUENCES / NUM_FRAMES
            print(f"{name:40} {size / 1000:6.0f} KB a frame")
        for title, overrides in (("with augmentation", ()), ("no augmentation", NO_AUGMENTATION)):
            chosen = _config(root, *overrides)
            plain = report(f"plain, {title}", chosen, PlainLoader(frames_files, chosen).load)
            loader = ChunkDataset(load_index(config.dataset, "train"), chosen.dataset)
            rate = report(f"compact store, {title}", chosen, loader.__getitems__)
            print(f"{'':40} {rate / plain:6.1f} times the plain one")
        for path in compact_files:
            path.unlink()
        loader = ChunkDataset(load_index(config.dataset, "train"), _config(root).dataset)
        report("frames file, with augmentation", config, loader.__getitems__)
    return 0


class PlainLoader:
    """What a first version would do; the handles stay open, as ours do."""

    def __init__(self, files: list[Path], config: TrainConfig) -> None:
        self._data = [h5py.File(path)["data"] for path in files]
        self._length = config.dataset.sequence_length
        random, stream = config.dataset.data_augmentation.random, config.dataset.data_augmentation.stream
        self._random = Augmentation(random, config.dataset.frame_hw)
        self._stream = Augmentation(stream, config.dataset.frame_hw)

    def load(self, reads: list[ChunkRead]) -> list[torch.Tensor]:
        rows = []
        for read in reads:
            frames = [torch.from_numpy(self._data[read.sequence][i]) for i in range(read.start, read.stop)]
            move = (self._random if read.is_random else self._stream).draw(read.augmentation_seed, NO_BOXES)
            frames = [_moved(frame, move) for frame in frames]
            frames += [torch.zeros_like(frames[0])] * (self._length - len(frames))
            rows.append(frames)
        return [default_collate(frames) for frames in zip(*rows, strict=True)]


def _moved(frame: torch.Tensor, move: Move) -> torch.Tensor:
    if move.hflip:
        frame = frame.flip(-1)
    if move.zoom is None:
        return frame
    (h, w), (height, width), zoom = window_size(move.frame_hw, move.zoom.factor), move.frame_hw, move.zoom
    if zoom.zoom_in:
        window = frame[None, :, zoom.y0 : zoom.y0 + h, zoom.x0 : zoom.x0 + w]
        return interpolate(window, size=(height, width), mode="nearest-exact")[0]
    small = interpolate(frame[None], size=(h, w), mode="nearest-exact")[0]
    return pad(small, (zoom.x0, width - w - zoom.x0, zoom.y0, height - h - zoom.y0))


def report(title: str, config: TrainConfig, load: Callable[[list[ChunkRead]], object]) -> float:
    """Frames per CPU second, collation included."""
    plan: TrainingPlan = make_training_plan(config, load_index(config.dataset, "train"), world_size=1)
    load(plan.batch(0, 0))  # opens files, compiles loops
    begin = time.process_time()
    for step in range(1, BATCHES + 1):
        load(plan.batch(0, step))
    rate = BATCHES * config.batch_size.train * config.dataset.sequence_length / (time.process_time() - begin)
    print(f"{title:40} {rate:6.0f} frames per CPU second")
    return rate


def write_set(root: Path, config: TrainConfig) -> None:
    """Sequences in RVT's layout; every second frame has a label."""
    rng = np.random.default_rng(0)
    shape = (NUM_FRAMES, config.dataset.channels, *config.dataset.frame_hw)
    for number in range(NUM_SEQUENCES):
        sequence = root / "train" / f"sequence_{number}"
        representation = sequence / "event_representations_v2" / config.dataset.ev_repr_name
        representation.mkdir(parents=True)
        (sequence / "labels_v2").mkdir()
        t_us, labelled = 100_000 + 50_000 * np.arange(NUM_FRAMES), np.arange(0, NUM_FRAMES, 2)
        boxes = np.zeros(len(labelled), dtype=BOX_DTYPE)
        boxes["t"], boxes["x"], boxes["y"], boxes["w"], boxes["h"] = t_us[labelled], 300, 200, 200, 100
        np.savez(sequence / "labels_v2" / "labels.npz", labels=boxes, objframe_idx_2_label_idx=np.arange(len(labelled)))
        np.save(representation / "timestamps_us.npy", t_us)
        np.save(representation / "objframe_idx_2_repr_idx.npy", labelled)
        filled = rng.random(shape, dtype=np.float32) < FILLED
        frames = np.zeros(shape, dtype=np.uint8)
        frames[filled] = np.minimum(rng.geometric(1 / MEAN_COUNT, filled.sum()), CUT_OFF)
        with h5py.File(representation / config.dataset.frames_file_name, "w") as file:
            blosc = hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)
            file.create_dataset("data", data=frames, chunks=(1, *shape[1:]), **blosc)


def write_compact(frames_files: list[Path], compact_files: list[Path]) -> None:
    for source, target in zip(frames_files, compact_files, strict=True):
        with h5py.File(source) as file:
            write_frame_store(target, file["data"], file["data"].shape[1:])


def _config(root: Path, *overrides: str) -> TrainConfig:
    fixed = ["dataset=gen4", "model=maxvit_yolox/plain_lstm", f"dataset.path={root}", "reproduce.seed_everything=0"]
    return load_train_config([*fixed, "batch_size.train=8", *overrides])


if __name__ == "__main__":
    sys.exit(main())
