"""Flip, rotation and zoom of frames and boxes together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int64, Real
from numpy import ndarray

from config.schema import AugmentationConfig
from data.pixel_map import EMPTY, FreePixelMap, PixelMap


@dataclass(frozen=True)
class Zoom:
    """Zoom in: the window of size 1 / factor at (x0, y0) fills the frame. Out: the frame shrinks to that window."""

    zoom_in: bool
    factor: float  # >= 1
    x0: int
    y0: int


@dataclass(frozen=True)
class Move:
    """One drawn augmentation: flip, then rotation, then zoom."""

    frame_hw: tuple[int, int]
    hflip: bool = False
    angle_deg: float = 0  # counter-clockwise
    zoom: Zoom | None = None

    def boxes(self, boxes: Float32[ndarray, "n 5"]) -> Float32[ndarray, "n 5"]:
        """Moved boxes (class, x, y, w, h), clamped to the frame; those that left it come out flat."""
        class_id, x, y, w, h = boxes.T
        if self.hflip:
            x = self.frame_hw[1] - 1 - x - w
        x1, y1, x2, y2 = x, y, x + w, y + h
        if self.angle_deg:
            x1, y1, x2, y2 = self._rotated(x1, y1, x2, y2)
        if self.zoom is not None:
            x1, y1, x2, y2 = self._zoomed(self.zoom, x1, y1, x2, y2)
        return np.stack([class_id, x1, y1, x2 - x1, y2 - y1], axis=1).astype(np.float32)

    def pixel_map(self) -> PixelMap | FreePixelMap | None:
        """Where each pixel of a moved frame comes from, by nearest neighbours; None where nothing moves."""
        if not (self.hflip or self.angle_deg or self.zoom):
            return None
        height, width = self.frame_hw
        rows, columns = np.arange(height), np.arange(width)
        if self.zoom is not None:
            window_h, window_w = window_size(self.frame_hw, self.zoom.factor)
            if self.zoom.zoom_in:
                rows = self.zoom.y0 + nearest(window_h, height)
                columns = self.zoom.x0 + nearest(window_w, width)
            else:
                rows, columns = np.full(height, EMPTY), np.full(width, EMPTY)
                rows[self.zoom.y0 : self.zoom.y0 + window_h] = nearest(height, window_h)
                columns[self.zoom.x0 : self.zoom.x0 + window_w] = nearest(width, window_w)
        if self.angle_deg:
            inside = (rows[:, None] != EMPTY) & (columns != EMPTY)
            return FreePixelMap(np.where(inside, self._rotation_map()[rows[:, None], columns], EMPTY))
        if self.hflip:
            columns = np.where(columns == EMPTY, EMPTY, width - 1 - columns)
        return PixelMap(rows, columns)

    def _rotation_map(self) -> Int64[ndarray, "h w"]:
        """Flat source pixel of each pixel after flip and rotation, computed in float32 as RVT does."""
        import torch
        from torchvision.transforms.functional import InterpolationMode, rotate

        from_1 = [torch.arange(1, size + 1, dtype=torch.float32) for size in self.frame_hw]  # 0: nothing lands here
        numbers = torch.stack(torch.meshgrid(*from_1, indexing="ij"))
        if self.hflip:
            numbers = numbers.flip(-1)
        rows, columns = rotate(numbers, self.angle_deg, interpolation=InterpolationMode.NEAREST).long().numpy() - 1
        return np.where(rows >= 0, rows * self.frame_hw[1] + columns, EMPTY)

    def _rotated(self, x1: ndarray, y1: ndarray, x2: ndarray, y2: ndarray) -> tuple[ndarray, ndarray, ndarray, ndarray]:
        """The box around the four rotated corners."""
        height, width = self.frame_hw
        cos, sin = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        center_x, center_y = width // 2, height // 2
        x = np.stack([x1, x2, x2, x1]) - center_x
        y = np.stack([y1, y1, y2, y2]) - center_y
        corner_x = np.clip(x * cos + y * sin + center_x, 0, width - 1)
        corner_y = np.clip(-x * sin + y * cos + center_y, 0, height - 1)
        return corner_x.min(0), corner_y.min(0), corner_x.max(0), corner_y.max(0)

    def _zoomed(
        self, zoom: Zoom, x1: ndarray, y1: ndarray, x2: ndarray, y2: ndarray
    ) -> tuple[ndarray, ndarray, ndarray, ndarray]:
        height, width = self.frame_hw
        if not zoom.zoom_in:
            last_x, last_y = zoom.x0 + width / zoom.factor - 1, zoom.y0 + height / zoom.factor - 1
            x1, x2 = (np.minimum(x / zoom.factor + zoom.x0, last_x) for x in (x1, x2))
            y1, y2 = (np.minimum(y / zoom.factor + zoom.y0, last_y) for y in (y1, y2))
            return x1, y1, x2, y2
        last_x = min(zoom.x0 + width / zoom.factor, width - 1) - 1
        last_y = min(zoom.y0 + height / zoom.factor, height - 1) - 1
        x1, x2 = (zoom.factor * (np.clip(x, zoom.x0, last_x) - zoom.x0) for x in (x1, x2))
        y1, y2 = (zoom.factor * (np.clip(y, zoom.y0, last_y) - zoom.y0) for y in (y1, y2))
        return x1, y1, x2, y2


class Augmentation:
    """Draws moves. Equal seeds give equal moves; only a zoom in looks at the boxes, too: it aims at one of them."""

    def __init__(self, config: AugmentationConfig, frame_hw: tuple[int, int]) -> None:
        self._config, self._frame_hw = config, frame_hw

    def draw(self, seed: tuple[int, ...], boxes: Float32[ndarray, "n 5"]) -> Move:
        """A move for a chunk with these boxes; without zoom in, the boxes have no influence."""
        rng = np.random.default_rng(seed)
        hflip = bool(rng.random() < self._config.prob_hflip)
        angle_deg = 0.0
        rotate = self._config.rotate
        if rng.random() < rotate.prob:
            angle_deg = rng.choice((-1.0, 1.0)) * rng.uniform(rotate.min_angle_deg, rotate.max_angle_deg)
        move = Move(self._frame_hw, hflip, angle_deg)
        if rng.random() < self._config.zoom.prob:
            move = replace(move, zoom=self._draw_zoom(rng, move.boxes(boxes)))
        return move

    def _draw_zoom(self, rng: np.random.Generator, boxes: Float32[ndarray, "n 5"]) -> Zoom:
        zoom_in, zoom_out = self._config.zoom.zoom_in, self._config.zoom.zoom_out
        inwards = zoom_in is not None and rng.random() * (zoom_in.weight + zoom_out.weight) < zoom_in.weight
        bounds = zoom_in.factor if inwards else zoom_out.factor
        factor = rng.uniform(bounds.min, bounds.max)
        height, width = self._frame_hw
        window_hw = window_size(self._frame_hw, factor)
        if not inwards:
            x0, y0 = rng.integers(width - window_hw[1] + 1), rng.integers(height - window_hw[0] + 1)
            return Zoom(False, factor, int(x0), int(y0))
        seen = boxes[(boxes[:, 3] > 0) & (boxes[:, 4] > 0)]
        target = seen[rng.integers(len(seen))] if len(seen) else np.array([0, 0, 0, width, height])
        x0, y0 = window_at(target[1:], self._frame_hw, window_hw, rng.random(2))
        return Zoom(True, factor, x0, y0)


def window_at(
    box_xywh: Real[ndarray, "4"], frame_hw: tuple[int, int], window_hw: tuple[int, int], u: Float64[ndarray, "2"]
) -> tuple[int, int]:
    """Top-left corner of a window that holds the box, or lies within a larger box; `u` in 0..1 picks one."""
    corner = []
    for start, side, frame, window, share in zip(
        box_xywh[:2].tolist(), box_xywh[2:].tolist(), frame_hw[::-1], window_hw[::-1], u.tolist(), strict=True
    ):
        ends = max(start + side - window, 0), min(start, max(frame - 1 - window, 0))
        corner.append(int(min(ends) + share * (max(ends) - min(ends))))
    return corner[0], corner[1]


def window_size(frame_hw: tuple[int, int], factor: float) -> tuple[int, int]:
    """Height and width of the zoom's window."""
    return int(frame_hw[0] / factor), int(frame_hw[1] / factor)


def nearest(source: int, target: int) -> Int64[ndarray, " target"]:
    """Source index of each target index, pixel centre on pixel centre ("nearest-exact")."""
    scale = np.float32(source) / np.float32(target)
    index = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale
    return np.minimum(index.astype(np.int64), source - 1)
