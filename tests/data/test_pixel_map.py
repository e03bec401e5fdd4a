"""Moving pixels: gathered from a dense frame, or scattered while the compact store decodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.augmentation import Move, Zoom
from data.frame_store import FrameStore, write_frame_store
from data.pixel_map import EMPTY, FreePixelMap, PixelMap

HW = (9, 14)
MOVES = [
    Move(HW, hflip=True),
    Move(HW, zoom=Zoom(zoom_in=True, factor=1.5, x0=3, y0=1)),
    Move(HW, hflip=True, zoom=Zoom(zoom_in=True, factor=4.2, x0=9, y0=6)),
    Move(HW, hflip=True, zoom=Zoom(zoom_in=False, factor=1.2, x0=1, y0=0)),
    Move(HW, zoom=Zoom(zoom_in=False, factor=3.0, x0=5, y0=6)),
]


def moved_slowly(frame: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    moved = np.zeros_like(frame)
    for y, row in enumerate(pixel_map.rows):
        for x, column in enumerate(pixel_map.columns):
            if row != EMPTY and column != EMPTY:
                moved[:, y, x] = frame[:, row, column]
    return moved


@pytest.mark.parametrize("move", MOVES)
def test_a_frame_is_moved_alike_from_both_kinds_of_file(move: Move, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = np.where(rng.random((3, 4, *HW)) < 0.2, rng.integers(1, 256, (3, 4, *HW)), 0).astype(np.uint8)
    pixel_map = move.pixel_map()
    expected = np.stack([moved_slowly(frame, pixel_map) for frame in frames])

    gathered = np.full_like(frames, 7)
    for frame, target in zip(frames, gathered, strict=True):
        pixel_map.gather(frame, target)
    np.testing.assert_array_equal(gathered, expected)

    write_frame_store(tmp_path / "frames_compact.h5", frames, (4, *HW))
    batch = np.full((3, 2, 4, *HW), 7, dtype=np.uint8)
    FrameStore(tmp_path / "frames_compact.h5").read(0, 3, batch[:, 1], pixel_map)
    np.testing.assert_array_equal(batch[:, 1], expected)
    assert (batch[:, 0] == 7).all()


def test_free_map_takes_each_pixel_from_anywhere() -> None:
    frame = np.arange(1, 7, dtype=np.uint8).reshape(1, 2, 3)
    moved = np.empty_like(frame)
    FreePixelMap(np.array([[5, EMPTY, 0], [1, 1, 4]])).gather(frame, moved)
    assert moved.tolist() == [[[6, 0, 1], [2, 2, 5]]]
