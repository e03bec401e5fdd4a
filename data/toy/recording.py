"""The toy traffic scene as raw recordings: what a fixed event camera would have seen of a made-up street.

A scene is rendered at a high frame rate; the pixel model of eventcv (v2e, Hu et al., CVPRW 2021) makes events of it.
Files are in eTraM's form: `<name>_td.h5` with events/{x,y,p,t,height,width} and `<name>_bbox.npy` at 30 Hz.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import eventcv
import h5py
import numpy as np
from jaxtyping import UInt64
from numpy.random import default_rng

from data.boxes import BOX_DTYPE
from data.toy.scene import Scene
from data.toy.street import make_scene

LABEL_RATE_HZ = 30
EVENT_DTYPES = {"x": "<u2", "y": "<u2", "t": "<i8", "p": "u1"}
PIXEL_MODEL = {
    "pos_thres": 0.5,
    "neg_thres": 0.5,
    "sigma_thres": 0.03,
    "refractory_us": 3000,  # a pixel fires twice or so between frames, also at a hard edge
    "leak_rate_hz": 0.1,
    "shot_noise_rate_hz": 0.5,
    "upsample": "off",  # the frame rate is high enough; subdividing costs ten times as much
}


def frame_interval_us(height: int) -> int:
    """Time between frames, in which fast road users move by about two pixels."""
    return min(8000 * 360 // height, 8000)


def simulate_events(
    scene: Scene, duration_s: float, seed: int, frames_per_piece: int = 80
) -> Iterator[UInt64[np.ndarray, "events 4"]]:
    """Events (x, y, t in us, polarity 0 or 1) in order of time, in pieces, so that memory is bounded."""
    interval_us = frame_interval_us(scene.view.frame_hw[0])
    num_frames = round(duration_s * 1e6 / interval_us)
    last = scene.frame(0.0)
    for start in range(0, num_frames, frames_per_piece):
        following = range(start + 1, min(start + frames_per_piece, num_frames) + 1)
        frames = np.stack([last, *(scene.frame(index * interval_us / 1e6) for index in following)])
        events = eventcv.simulate(frames, fps=1e6 / interval_us, seed=seed + start, **PIXEL_MODEL).numpy()
        events[:, 2] += np.uint64(start * interval_us)
        yield events
        last = frames[-1]


def label_boxes(scene: Scene, duration_s: float) -> np.ndarray:
    """Boxes at 30 Hz as a structured array of `BOX_DTYPE`, sorted by time and track."""
    rows = []
    for index in range(int(duration_s * LABEL_RATE_HZ) + 1):
        t_us = round(index * 1e6 / LABEL_RATE_HZ)
        for actor, box in scene.boxes(t_us / 1e6):
            rows.append((t_us, *box, actor.class_id, actor.track_id, 1.0))
    return np.sort(np.array(rows, BOX_DTYPE), order=["t", "track_id"])


def write_recording(
    folder: Path,
    name: str,
    frame_hw: tuple[int, int],
    duration_s: float,
    index: int,
    seed: tuple[int, ...],
    distant: bool = False,
) -> int:
    """Write `<name>_td.h5` and `<name>_bbox.npy`; equal arguments give equal files. Returns the number of events."""
    scene = make_scene(frame_hw, duration_s, index, default_rng(seed), distant)
    np.save(folder / f"{name}_bbox.npy", label_boxes(scene, duration_s))
    with h5py.File(folder / f"{name}_td.h5", "w") as file:
        group = file.create_group("events")
        group["height"], group["width"] = frame_hw
        columns = [
            group.create_dataset(
                key,
                (0,),
                dtype,
                maxshape=(None,),
                chunks=(1 << 16,),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )
            for key, dtype in EVENT_DTYPES.items()
        ]
        for events in simulate_events(scene, duration_s, seed=index):
            written = len(columns[0])
            for number, column in enumerate(columns):
                column.resize(written + len(events), axis=0)
                column[written:] = events[:, number]
        return len(columns[0])
