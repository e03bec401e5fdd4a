"""Whether the disk has room for what a run or a validation will write."""

from __future__ import annotations

import shutil
from pathlib import Path

from config.errors import UserError
from config.schema import TrainConfig
from modules.detection import DetectionModule

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


def _megabytes(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
