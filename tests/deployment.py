"""A small trained network, and recordings that it can look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from config.loading import load_train_config
from tests.event_files import EventRows, raw_file
from tests.network import golden_weights
from tests.runs import checkpoint_content

SENSOR_HW = (64, 128)
SMALL = (
    "dataset=toy", f"dataset.resolution_hw=[{SENSOR_HW[0]},{SENSOR_HW[1]}]", "dataset.downsample_by_factor_2=false",
    "model=maxvit_yolox/plain_lstm", "model.backbone.embed_dim=16", "model.backbone.partition_split_32=1",
    "model.backbone.stage.attention.dim_head=8", "model.fpn.depth=0.33",
    "model.postprocess.confidence_threshold=0.02",
)  # fmt: skip


def write_checkpoint(path: Path, *changes: str, weights: dict[str, Any] | None = None) -> Path:
    """Of a run whose network has the golden weights. `changes` take the place of SMALL's of the same keys."""
    changed = tuple(word.split("=")[0] for word in changes)
    kept = [word for word in SMALL if word.split("=")[0] not in changed]
    config = load_train_config([*kept, "dataset.path=.", *changes]).model_dump(mode="json")
    torch.save(checkpoint_content(config=config, state_dict=weights or golden_weights()), path)
    return path


def moving_square(seconds: float, per_ms: int = 6) -> EventRows:
    """Events of the edges of a square that crosses the sensor; columns x, y, p, t in us."""
    rng = np.random.default_rng(1)
    t = np.sort(rng.integers(0, round(seconds * 1e6), round(seconds * 1000) * per_ms))
    left = (10 + t // 20_000) % 90
    side = rng.integers(0, 2, len(t))
    rows = [left + side * 24 + rng.integers(0, 2, len(t)), rng.integers(20, 44, len(t)), side, t]
    return np.stack(rows, axis=1)


def dat_header() -> bytes:
    height, width = SENSOR_HW
    return f"% Version 2\n% Height {height}\n% Width {width}\n".encode() + bytes([12, 8])


def dat_words(events: EventRows) -> bytes:
    x, y, p, t = events.T
    return np.stack([t, x | y << 14 | p << 28], axis=1).astype("<u4").tobytes()


def evt3_header() -> bytes:
    height, width = SENSOR_HW
    return raw_file(["evt 3.0", f"format EVT3;height={height};width={width}"], [], "<u2")


def evt3_words(events: EventRows, high: int | None = None) -> bytes:
    """Events of single columns; `high` is the high time of those before."""
    words = []
    for x, y, p, t in events.tolist():
        for new in range(t >> 12 if high is None else high + 1, (t >> 12) + 1):
            high = new
            words.append(8 << 12 | high & 0xFFF)
        words += [6 << 12 | t & 0xFFF, y, 2 << 12 | p << 11 | x]
    return np.array(words, "<u2").tobytes()


WRITING = {"dat": (dat_header, dat_words), "raw": (evt3_header, evt3_words)}
