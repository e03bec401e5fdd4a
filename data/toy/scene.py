"""A street seen by a fixed camera: lanes, road users that move along them, things that stand in front, and the boxes.

The street runs roughly across the picture. Lanes meet in a vanishing point far to one side, so whoever drives along
them grows or shrinks by up to 13 %; nearer lanes lie lower and are larger. Lengths of the layout are fractions of the
frame height, so that a scene looks alike at every resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import expm1, log1p

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy.random import Generator
from PIL import Image

from data.toy.sprites import Sprite

NEAR_PX_PER_M = 0.108  # times the frame height, at the lower edge of the frame
MIN_VISIBLE = 0.35  # share of a road user's area, in the frame and not hidden, below which it is not labelled
MIN_SIDE = 0.022  # of the frame height, times the view's scale; narrower slivers at the frame's edge are not labelled
MIN_SHIFT_PX = (
    0.7  # within a window of 50 ms, times the view's scale; whoever stands still gives no events and is not labelled
)


@dataclass(frozen=True)
class View:
    """Perspective of the ground: lanes meet in row `vanishing_y`, `1 / convergence` columns from the centre."""

    frame_hw: tuple[int, int]
    vanishing_y: float
    convergence: float  # per pixel, never zero
    scale: float = 1.0  # of everything that stands or moves there; the ground's layout stays

    def y_at(self, depth_y: float, x: float) -> float:
        return self.vanishing_y + (depth_y - self.vanishing_y) * (1 + self.convergence * (x - self.frame_hw[1] / 2))

    def px_per_m(self, y: float) -> float:
        height = self.frame_hw[0]
        return NEAR_PX_PER_M * height * (y - self.vanishing_y) / (height - self.vanishing_y) * self.scale

    def x_at(self, depth_y: float, metres: float) -> float:
        """Column of a point that lies `metres` to the right of the centre along the lane at `depth_y`."""
        return self.frame_hw[1] / 2 + expm1(self.convergence * self.px_per_m(depth_y) * metres) / self.convergence

    def metres_at(self, depth_y: float, x: float) -> float:
        return log1p(self.convergence * (x - self.frame_hw[1] / 2)) / (self.convergence * self.px_per_m(depth_y))


@dataclass(frozen=True)
class Motion:
    """Speed along a lane, for all who drive in it: constant, or with a halt at a light."""

    speed_m_s: float  # negative: to the left
    seconds: Float64[np.ndarray, " knots"]
    travelled_s: Float64[np.ndarray, " knots"]  # time at full speed that brings one as far

    def metres(self, t_s: float) -> float:
        return self.speed_m_s * float(np.interp(t_s, self.seconds, self.travelled_s))


def make_motion(speed_m_s: float, duration_s: float, halts: bool, rng: Generator) -> Motion:
    seconds = np.linspace(0.0, duration_s, 1 + round(200 * duration_s))
    pace = np.ones_like(seconds)
    if halts:
        stop = rng.uniform(0.2, 0.7) * duration_s
        pace = np.interp(seconds, [stop, stop + 0.6, stop + 1.2, stop + 1.8], [1, 0, 0, 1])
    steps = (pace[1:] + pace[:-1]) / 2 * np.diff(seconds)
    return Motion(speed_m_s, seconds, np.concatenate([[0.0], np.cumsum(steps)]))


@dataclass(frozen=True)
class Patch:
    """Pixels of one road user; `luma` is premultiplied by `alpha`. The corner may lie outside the frame."""

    x0: int
    y0: int
    luma: Float32[np.ndarray, "h w"]
    alpha: Float32[np.ndarray, "h w"]

    def paste(self, frame: Float32[np.ndarray, "H W"]) -> None:
        """Lay the patch over the frame, in place."""
        rows, cols = self.window(frame.shape)
        area = frame[rows, cols]
        inner = np.s_[rows.start - self.y0 : rows.stop - self.y0, cols.start - self.x0 : cols.stop - self.x0]
        area *= 1 - self.alpha[inner]
        area += self.luma[inner]

    def window(self, frame_hw: tuple[int, ...]) -> tuple[slice, slice]:
        """Rows and columns of the frame that the patch covers; empty where it lies outside."""
        top, left = min(max(self.y0, 0), frame_hw[0]), min(max(self.x0, 0), frame_hw[1])
        bottom = min(max(self.y0 + self.alpha.shape[0], top), frame_hw[0])
        right = min(max(self.x0 + self.alpha.shape[1], left), frame_hw[1])
        return slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class Actor:
    """A road user on its way along a lane."""

    class_id: int
    track_id: int
    sprite: Sprite
    view: View
    depth_y: float  # of the lane, at the frame's centre; also the order of occlusion
    start_m: float
    motion: Motion

    def x_at(self, t_s: float) -> float:
        return self.view.x_at(self.depth_y, self.start_m + self.motion.metres(t_s))

    def shift_px(self, t_s: float, window_s: float = 0.05) -> float:
        """How far it has moved within the window that ends at `t_s`."""
        return abs(self.x_at(t_s) - self.x_at(t_s - window_s))

    def patch(self, t_s: float, inside: bool = True) -> Patch | None:
        """The road user at a time, cut at the frame's sides if `inside`; None where nothing of it would be left."""
        x = self.x_at(t_s)
        y = self.view.y_at(self.depth_y, x)
        zoom = self.view.px_per_m(y) / self.sprite.px_per_m
        slope = self.view.convergence * (self.depth_y - self.view.vanishing_y)
        phase = self.sprite.phase_at(abs(self.motion.metres(t_s)))
        luma, alpha = self.sprite.luma[phase], self.sprite.alpha[phase]
        (ax, ay), (h, w) = self.sprite.anchor_px, alpha.shape
        x0, x1 = int(np.floor(x - zoom * ax)), int(np.ceil(x + zoom * (w - ax)))
        lean = abs(slope) * max(x - x0, x1 - x)
        y0, y1 = int(np.floor(y - zoom * ay - lean)), int(np.ceil(y + zoom * (h - ay) + lean))
        if inside:
            x0, x1 = max(x0, 0), min(x1, self.view.frame_hw[1])
        if x1 <= x0:
            return None
        # Output pixel -> sprite pixel; a shear makes long vehicles stand along the slope of their lane.
        across = (1 / zoom, 0.0, ax + (x0 - x) / zoom)
        down = (-slope / zoom, 1 / zoom, ay + (y0 - y - slope * (x0 - x)) / zoom)
        placed = [
            np.asarray(
                plane.transform((x1 - x0, y1 - y0), Image.Transform.AFFINE, across + down, Image.Resampling.BILINEAR)
            )
            for plane in (Image.fromarray(luma), Image.fromarray(alpha))
        ]
        return Patch(x0, y0, *placed)


@dataclass(frozen=True)
class Standing:
    """Something that does not move, and hides whoever passes behind it."""

    depth_y: float
    pixels: Patch

    def patch(self, t_s: float, inside: bool = True) -> Patch:
        return self.pixels


@dataclass(frozen=True)
class Scene:
    """Background, road users and standing objects; `frame` and `boxes` show them at any time."""

    view: View
    background: Float32[np.ndarray, "H W"]
    things: list[Actor | Standing]  # far to near

    def frame(self, t_s: float) -> UInt8[np.ndarray, "H W"]:
        """The picture at a time, in display luma."""
        frame = self.background.copy()
        for thing in self.things:
            patch = thing.patch(t_s)
            if patch is not None:
                patch.paste(frame)
        return frame.round().astype(np.uint8)

    def boxes(self, t_s: float) -> Iterator[tuple[Actor, tuple[int, int, int, int]]]:
        """Road users worth a label, with x, y, w, h: their whole extent behind what hides it, clipped to the frame."""
        hidden = np.zeros(self.view.frame_hw, bool)
        for thing in reversed(self.things):
            patch = thing.patch(t_s, inside=False)
            assert patch is not None, "only what lies outside is left out, and outside was asked for"
            rows, cols = patch.window(hidden.shape)
            solid = patch.alpha > 0.5
            inside = solid[rows.start - patch.y0 : rows.stop - patch.y0, cols.start - patch.x0 : cols.stop - patch.x0]
            visible = (inside & ~hidden[rows, cols]).sum() / solid.sum()
            hidden[rows, cols] |= inside
            if (
                isinstance(thing, Actor)
                and visible >= MIN_VISIBLE
                and thing.shift_px(t_s) >= MIN_SHIFT_PX * self.view.scale
            ):
                ys, xs = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
                width, height = int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)
                if min(width, height) >= MIN_SIDE * self.view.frame_hw[0] * self.view.scale:
                    yield thing, (cols.start + int(xs[0]), rows.start + int(ys[0]), width, height)
