"""A pen that draws sprites in metres, and the parts that several kinds of road user share."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, cos, pi, sin

import numpy as np
from jaxtyping import Float32
from numpy.random import Generator
from PIL import Image, ImageDraw

OVERSAMPLING = 4
MARGIN_M = 0.25  # room around the body for shadows, mirrors and swinging limbs
SHADOW_OPACITY = 100  # of 255: below one half, so that a box never includes it
RUBBER = 22
Point = tuple[float, float]


class Pen:
    """Draws luma and opacity of one sprite at once; the origin lies on the ground under the middle of the body."""

    def __init__(self, length_m: float, height_m: float, px_per_m: float) -> None:
        self.px_per_m = px_per_m
        self._scale = px_per_m * OVERSAMPLING
        self.anchor_px = (px_per_m * (length_m / 2 + MARGIN_M), px_per_m * (height_m + MARGIN_M))
        size = (
            ceil(2 * self.anchor_px[0]) * OVERSAMPLING,
            ceil(self.anchor_px[1] + px_per_m * MARGIN_M) * OVERSAMPLING,
        )
        self._images = Image.new("L", size), Image.new("L", size)
        self._layers = [ImageDraw.Draw(image) for image in self._images]

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        x0, y0 = (OVERSAMPLING * offset for offset in self.anchor_px)
        return [(x0 + self._scale * x, y0 - self._scale * y) for x, y in points]

    def polygon(self, points: Sequence[Point], luma: float) -> None:
        for layer, fill in zip(self._layers, (int(luma), 255), strict=True):
            layer.polygon(self._pixels(points), fill=fill)

    def box(self, left: float, bottom: float, right: float, top: float, luma: float, radius: float = 0.0) -> None:
        corners = self._pixels([(left, top), (right, bottom)])
        for layer, fill in zip(self._layers, (int(luma), 255), strict=True):
            layer.rounded_rectangle(corners, radius=radius * self._scale, fill=fill)

    def disc(self, x: float, y: float, radius: float, luma: float) -> None:
        self.box(x - radius, y - radius, x + radius, y + radius, luma, radius)

    def ring(self, x: float, y: float, radius: float, width: float, luma: float) -> None:
        corners = self._pixels([(x - radius, y + radius), (x + radius, y - radius)])
        for layer, fill in zip(self._layers, (int(luma), 255), strict=True):
            layer.ellipse(corners, outline=fill, width=max(round(width * self._scale), 1))

    def line(self, points: Sequence[Point], width: float, luma: float) -> None:
        for layer, fill in zip(self._layers, (int(luma), 255), strict=True):
            layer.line(self._pixels(points), fill=fill, width=max(round(width * self._scale), 1), joint="curve")

    def limb(self, start: Point, angles: Sequence[float], lengths: Sequence[float], width: float, luma: float) -> Point:
        """Jointed limb; angles are measured from straight down, positive forwards. Returns where it ends."""
        points = [start]
        for angle, length in zip(angles, lengths, strict=True):
            points.append((points[-1][0] + length * sin(angle), points[-1][1] - length * cos(angle)))
        self.line(points, width, luma)
        return points[-1]

    def shadow(self, length_m: float) -> None:
        corners = self._pixels([(-length_m / 2, 0.06), (length_m / 2, -0.12)])
        self._layers[1].ellipse(corners, fill=SHADOW_OPACITY)

    def finish(self, texture: Float32[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray]:
        """Luma premultiplied by opacity [h w] in 0..255, and opacity [h w] in 0..1."""
        luma, alpha = (np.asarray(image.reduce(OVERSAMPLING), np.float32) for image in self._images)
        alpha = alpha / 255
        return np.minimum(luma * texture[: luma.shape[0], : luma.shape[1]], 255 * alpha), alpha


def paint(rng: Generator) -> float:
    """A luma well apart from the road's: two in three road users are bright."""
    return rng.uniform(165, 240) if rng.random() < 0.65 else rng.uniform(18, 48)


def glass(body: float) -> float:
    """Panes look dark in a bright body, and mirror the sky in a dark one."""
    return 45 if body > 100 else 160


def wheel(pen: Pen, x: float, radius: float, turn: float) -> None:
    """A tyre with a bright five-spoked rim; `turn` in radians."""
    pen.disc(x, radius, radius, RUBBER)
    pen.disc(x, radius, 0.62 * radius, 160)
    for spoke in range(5):
        angle = turn + spoke * 2 * pi / 5
        tip = (x + 0.6 * radius * sin(angle), radius + 0.6 * radius * cos(angle))
        pen.line([(x, radius), tip], 0.16 * radius, 70)


def spoked_wheel(pen: Pen, x: float, radius: float, turn: float, tyre: float) -> None:
    """A thin wheel that one can look through."""
    pen.ring(x, radius, radius, tyre, RUBBER)
    for spoke in range(3):
        angle = turn + spoke * pi / 3
        dx, dy = 0.95 * radius * sin(angle), 0.95 * radius * cos(angle)
        pen.line([(x - dx, radius - dy), (x + dx, radius + dy)], 0.025, 205)


def window_row(
    pen: Pen, left: float, right: float, bottom: float, top: float, count: int, pane: float, rng: Generator
) -> None:
    pitch = (right - left) / count
    for index in range(count):
        x0, x1 = left + (index + 0.08) * pitch, left + (index + 0.92) * pitch
        pen.box(x0, bottom, x1, top, pane)
        if rng.random() < 0.5:  # a reflection, or a passenger behind the pane
            shine = x0 + (x1 - x0) * rng.uniform(0.1, 0.5)
            width = 0.3 * (x1 - x0)
            pen.polygon(
                [(shine, bottom), (shine + width, bottom), (shine + 1.3 * width, top), (shine + 0.3 * width, top)], 110
            )
