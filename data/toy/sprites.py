"""Side views of the eight traffic classes of the toy scene, drawn in metres and animated by distance travelled.

Each drawing function gets a `Pen`, the length and height in metres, the phase of its cycle in [0, 1) and a generator
that is seeded alike for every phase, so that one road user keeps its looks while wheels turn and legs walk. All face
right (+x); y points up from the ground.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, cos, pi, sin

import numpy as np
from jaxtyping import Float32
from numpy.random import Generator, default_rng

from data.toy.pen import RUBBER, Pen, Point, glass, paint, spoked_wheel, wheel, window_row

SKIN = 150


def head(pen: Pen, x: float, y: float, rng: Generator, helmet: float = 0.0) -> None:
    """Head of 0.12 m radius around (x, y); `helmet` is its luma, 0: hair."""
    pen.disc(x, y, 0.12, SKIN + 40)
    cap = helmet or rng.choice([25.0, 60.0, 215.0])
    pen.polygon(
        [(x - 0.14, y - 0.02), (x - 0.12, y + 0.1), (x, y + 0.15), (x + 0.12, y + 0.09), (x + 0.13, y + 0.02)], cap
    )


def draw_pedestrian(pen: Pen, length: float, height: float, phase: float, rng: Generator) -> None:
    coat, trousers, sleeve = paint(rng), rng.uniform(15, 45), rng.uniform(60, 90)
    hip, shoulder = (0.0, 0.5 * height), (0.02, 0.8 * height)
    pen.shadow(0.5)
    for half, tone in ((0.5, 1.5), (0.0, 1.0)):  # the far limbs first
        swing = sin(2 * pi * (phase + half))
        bend = 0.15 + 0.65 * max(0.0, cos(2 * pi * (phase + half)))
        foot = pen.limb(hip, (0.5 * swing, 0.5 * swing - bend), (0.25 * height, 0.24 * height), 0.15, trousers * tone)
        pen.line([(foot[0] - 0.05, foot[1]), (foot[0] + 0.16, foot[1])], 0.08, RUBBER)
        if half:
            pen.limb(shoulder, (-0.55 * swing, -0.55 * swing + 0.3), (0.17 * height, 0.16 * height), 0.1, sleeve)
    pen.box(-0.17, 0.46 * height, 0.19, 0.84 * height, coat, 0.1)
    if rng.random() < 0.4:
        pen.box(-0.32, 0.58 * height, -0.14, 0.82 * height, rng.uniform(30, 200), 0.05)
    near = sin(2 * pi * phase)
    pen.limb(shoulder, (-0.55 * near, -0.55 * near + 0.35), (0.17 * height, 0.16 * height), 0.11, sleeve)
    head(pen, 0.05, height - 0.13, rng)


def draw_wheelchair(pen: Pen, length: float, height: float, phase: float, rng: Generator) -> None:
    shirt, trousers, frame = paint(rng), rng.uniform(20, 60), rng.uniform(190, 230)
    turn = 2 * pi * phase
    pen.shadow(0.9 * length)
    pen.line([(-0.5, 1.0), (-0.34, 0.95), (-0.28, 0.42), (0.3, 0.42), (0.45, 0.12), (0.6, 0.12)], 0.05, frame)
    spoked_wheel(pen, 0.32, 0.11, turn, 0.05)
    pen.limb((-0.15, 0.56), (1.45, 0.15, pi / 2), (0.48, 0.4, 0.2), 0.16, trousers)
    pen.polygon([(-0.33, 0.48), (-0.05, 0.48), (0.0, 1.08), (-0.1, 1.14), (-0.3, 1.1)], shirt)
    head(pen, -0.1, height - 0.14, rng)
    push = 0.35 * sin(turn)
    pen.limb((-0.12, 1.04), (-0.25 + push, 0.55 + push), (0.27, 0.27), 0.1, SKIN)
    spoked_wheel(pen, -0.2, 0.31, turn, 0.06)
    pen.ring(-0.2, 0.31, 0.24, 0.025, 215)


def draw_rider(pen: Pen, hip: Point, hand: Point, lean: float, coat: float, helmet: float, rng: Generator) -> None:
    """Trunk, head and arm of somebody astride; `lean` in radians forwards."""
    shoulder = (hip[0] + 0.52 * sin(lean), hip[1] + 0.52 * cos(lean))
    pen.line([hip, shoulder], 0.28, coat)
    elbow = ((shoulder[0] + hand[0]) / 2 - 0.03, (shoulder[1] + hand[1]) / 2 - 0.07)
    head(pen, shoulder[0] + 0.1, shoulder[1] + 0.2, rng, helmet)
    pen.line([shoulder, elbow, hand], 0.1, 0.75 * coat)


def draw_bicycle(pen: Pen, length: float, height: float, phase: float, rng: Generator) -> None:
    coat, trousers, tubes = paint(rng), rng.uniform(20, 60), rng.uniform(170, 235)
    radius, reach = 0.35, length / 2 - 0.35
    hub, saddle, stem = (-0.08, 0.32), (-0.25, 0.92), (0.38, 0.9)
    pen.shadow(0.8 * length)
    for x in (-reach, reach):
        spoked_wheel(pen, x, radius, 4 * pi * phase, 0.05)
    turns = [2 * pi * phase + pi, 2 * pi * phase]
    pedals = [(hub[0] + 0.17 * sin(turn), hub[1] + 0.17 * cos(turn)) for turn in turns]
    hip = (saddle[0] + 0.02, saddle[1] + 0.06)
    for pedal, tone in zip(pedals, (1.4, 1.0), strict=True):
        if tone == 1.0:
            pen.line([(-reach, radius), saddle, stem, hub, (-reach, radius), hub, saddle], 0.045, tubes)
            pen.line([(reach, radius), (stem[0] - 0.02, stem[1] + 0.12), (stem[0] + 0.1, stem[1] + 0.16)], 0.045, tubes)
        middle = ((hip[0] + pedal[0]) / 2, (hip[1] + pedal[1]) / 2)
        pen.line([hip, (middle[0] + 0.27, middle[1] + 0.1), pedal], 0.13, trousers * tone)
    draw_rider(pen, hip, (stem[0] + 0.08, stem[1] + 0.14), rng.uniform(0.4, 0.65), coat, rng.choice([0.0, 225.0]), rng)


def draw_motorbike(pen: Pen, length: float, height: float, phase: float, rng: Generator) -> None:
    body, suit, helmet = paint(rng), rng.uniform(20, 60), rng.choice([25.0, 235.0])
    radius = 0.32
    rear, front = -length / 2 + radius, length / 2 - radius
    pen.shadow(0.95 * length)
    for x in (rear, front):
        wheel(pen, x, radius, 2 * pi / 5 * phase)
    pen.line([(front, radius), (front - 0.3, 0.95)], 0.08, 200)
    pen.polygon([(rear + 0.2, 0.3), (front - 0.35, 0.26), (front - 0.3, 0.55), (rear + 0.3, 0.55)], 70)
    seat = [(front - 0.7, 0.98), (rear + 0.65, 0.78), (rear + 0.1, 0.82), (rear - 0.3, 0.82), (rear + 0.1, 0.6)]
    pen.polygon([*seat, (front - 0.5, 0.5), (front - 0.1, 0.75), (front - 0.25, 1.0)], body)
    pen.line([(rear - 0.25, 0.35), (rear + 0.5, 0.3)], 0.12, 210)
    pen.polygon([(front - 0.3, 0.95), (front - 0.12, 0.85), (front - 0.36, 1.22)], 150)
    hip = (rear + 0.42, 0.84)
    pen.line([hip, (hip[0] + 0.42, 0.72), (hip[0] + 0.18, 0.34), (hip[0] + 0.34, 0.3)], 0.17, suit)
    draw_rider(pen, hip, (front - 0.36, 0.98), rng.uniform(0.35, 0.6), suit + 15, helmet, rng)


def draw_car(pen: Pen, length: float, height: float, phase: float, rng: Generator) -> None:
    body, waist = paint(rng), 0.6 * height
    tail, nose = -length / 2, length / 2
    boot = rng.choice([0.0, 0.16, 0.2]) * length  # estate or hatchback, or a saloon's boot
    bonnet = rng.uniform(0.22, 0.28) * length
    pen.shadow(length)
    roof = [(tail + boot, waist), (tail + boot + 0.35, height), (nose - bonnet - 0.85, height), (nose - bonnet, waist)]
    pen.polygon(roof, body)
    back = [(tail + 0.2, 0.2), (tail, 0.3), (tail + 0.02, 0.9 * waist), (tail + 0.15, waist + 0.02)]
    front = [(nose - bonnet, waist + 0.02), (nose - 0.15, 0.82 * waist), (nose, 0.6 * waist), (nose, 0.28)]
    pen.polygon([*back, *front, (nose - 0.2, 0.2)], body)
    post = (tail + boot + nose - bonnet - 0.85) / 2 + 0.1
    sill, lintel = waist + 0.04, height - 0.1
    rear = [(tail + boot + 0.2, sill), (tail + boot + 0.42, lintel), (post - 0.06, lintel), (post - 0.06, sill)]
    windscreen = [(nose - bonnet - 0.9, lintel), (nose - bonnet - 0.2, sill)]
    pen.polygon(rear, glass(body))
    pen.polygon([(post + 0.06, sill), (post + 0.06, lintel), *windscreen], glass(body))
    pen.line([(post, 0.3), (post, waist)], 0.04, 90)
    pen.box(nose - 0.22, 0.62 * waist, nose - 0.02, 0.76 * waist, 250 if body < 100 else 60)
    pen.box(tail, 0.66 * waist, tail + 0.16, 0.82 * waist, 70 if body > 100 else 180)
    for x in (tail + 0.19 * length, nose - 0.18 * length):
        pen.disc(x, 0.39, 0.39, 30)
        wheel(pen, x, 0.32, 2 * pi / 5 * phase)


def draw_bus(pen: Pen, length: float, height: float, phase: float, rng: Generator) -> None:
    body, stripe = paint(rng), rng.uniform(20, 240)
    tail, nose = -length / 2, length / 2
    pen.shadow(length)
    pen.box(tail, 0.3, nose, height, body, 0.2)
    pen.box(tail + 0.02, 0.85, nose - 0.02, 1.1, stripe)
    window_row(pen, tail + 0.3, nose - 1.5, 1.4, height - 0.5, round(length / 1.5), glass(body), rng)
    pen.box(nose - 0.75, 1.15, nose, height - 0.55, glass(body))
    pen.box(nose - 0.75, height - 0.42, nose - 0.1, height - 0.15, 235 if body < 100 else 30)  # destination sign
    for door in (nose - 1.45, tail + 0.45 * length):
        pen.box(door, 0.38, door + 0.6, height - 0.5, 90)
        pen.box(door + 0.06, 0.6, door + 0.27, height - 0.6, glass(body))
        pen.box(door + 0.33, 0.6, door + 0.54, height - 0.6, glass(body))
    for x in (tail + 0.24 * length, nose - 0.22 * length - 0.5):
        pen.disc(x, 0.55, 0.55, 35)
        wheel(pen, x, 0.46, 2 * pi / 5 * phase)


def draw_truck(pen: Pen, length: float, height: float, phase: float, rng: Generator) -> None:
    cab = paint(rng)
    tail, nose, top = -length / 2, length / 2, 0.8 * height
    pen.shadow(length)
    pen.box(tail, 0.62, nose - 0.4, 1.0, 45)
    draw_load(pen, tail, nose - 2.25, height, rng)
    pen.polygon([(nose - 1.9, 0.4), (nose - 1.9, top), (nose - 0.5, top), (nose, 0.55 * top), (nose, 0.35)], cab)
    upper, lower = 0.9 * top, 0.58 * top
    pen.polygon([(nose - 1.15, lower), (nose - 1.15, upper), (nose - 0.55, upper), (nose - 0.15, lower)], glass(cab))
    pen.line([(nose - 1.25, 0.5), (nose - 1.25, 0.95 * top)], 0.05, 90)
    for x in (tail + 0.7, tail + 1.8, nose - 0.95):
        wheel(pen, x, 0.5, 2 * pi / 5 * phase)


def draw_load(pen: Pen, tail: float, end: float, height: float, rng: Generator) -> None:
    """What a truck carries between `tail` and `end`: a box with a sign, a tank, or a heap in a tipper."""
    luma, deck, rim = paint(rng), 1.0, 0.82 * height
    kind = rng.choice(["box", "tank", "tipper"], p=[0.5, 0.25, 0.25])
    if kind == "tank":
        pen.box(tail, deck, end, height - 0.2, luma, (height - deck) / 2.4)
        for x in np.linspace(tail + 0.8, end - 0.8, 4):
            pen.line([(x, deck), (x, height - 0.25)], 0.07, 90)
    elif kind == "tipper":
        pen.polygon([(tail + 0.3, rim), (tail + 1.6, height), (end - 1.0, height - 0.1), (end, rim)], 75)
        pen.polygon([(tail - 0.1, rim), (tail + 0.3, deck), (end, deck), (end, rim)], luma)
        for x in np.linspace(tail + 0.8, end - 0.4, 5):
            pen.line([(x, deck), (x, rim)], 0.09, 100)
    else:
        pen.box(tail, deck, end, height, luma)
        sign, width = tail + rng.uniform(0.25, 0.45) * (end - tail), 0.4 * (end - tail)
        pen.box(sign, deck + 0.6, sign + width, height - 0.6, 255 - luma, 0.2)


def draw_tram(pen: Pen, length: float, height: float, phase: float, rng: Generator) -> None:
    body, skirt, roof, carriages = paint(rng), rng.uniform(20, 60), height - 0.75, 3
    pen.shadow(length)
    pen.box(-length / 2 + 1.0, 0.05, length / 2 - 1.0, roof - 0.3, 30)  # bellows and bogies show between carriages
    for index in range(carriages):
        left = (index / carriages - 0.5) * length + 0.14
        right = left + length / carriages - 0.28
        roof_left, roof_right = left + 0.9 * (index == 0), right - 0.9 * (index == carriages - 1)
        pen.polygon([(left, 0.3), (left, 1.1), (roof_left, roof), (roof_right, roof), (right, 1.1), (right, 0.3)], body)
        pen.box(left, 0.3, right, 0.75, skirt)
        window_row(pen, roof_left + 0.25, roof_right - 0.25, 1.25, roof - 0.4, 3, glass(body), rng)
        pen.box((left + right) / 2 - 1.0, roof, (left + right) / 2 + 1.0, roof + 0.22, 120)
    for side in (-1, 1):  # drivers' windows
        corners = [(0.3, 1.2), (0.78, roof - 0.3), (1.3, roof - 0.3), (1.3, 1.2)]
        pen.polygon([(side * (length / 2 - x), y) for x, y in corners], glass(body))
    pen.line([(-0.5, roof + 0.2), (0.35, roof + 0.48), (-0.3, height - 0.04)], 0.06, 205)  # pantograph
    pen.line([(-0.75, height - 0.04), (0.15, height - 0.04)], 0.08, 205)


@dataclass(frozen=True)
class RoadUser:
    """Sizes, speeds and drawing of one class. The sprite has `phases` pictures per `cycle_m` of distance."""

    draw: Callable[[Pen, float, float, float, Generator], None]
    length_m: tuple[float, float]
    height_m: tuple[float, float]
    speed_m_s: tuple[float, float]
    cycle_m: float
    phases: int


ROAD_USERS: dict[str, RoadUser] = {  # in the order of class ids
    "pedestrian": RoadUser(draw_pedestrian, (1.0, 1.0), (1.6, 1.9), (1.0, 2.0), 1.4, 32),
    "car": RoadUser(draw_car, (3.9, 4.7), (1.45, 1.7), (5.0, 10.0), 2 * pi * 0.32 / 5, 6),
    "bicycle": RoadUser(draw_bicycle, (1.75, 1.85), (1.75, 1.75), (3.0, 5.5), 4 * pi * 0.35, 48),
    "bus": RoadUser(draw_bus, (8.5, 10.0), (3.0, 3.2), (4.5, 7.5), 2 * pi * 0.46 / 5, 6),
    "motorbike": RoadUser(draw_motorbike, (2.1, 2.3), (1.65, 1.65), (5.0, 10.0), 2 * pi * 0.32 / 5, 6),
    "truck": RoadUser(draw_truck, (6.5, 8.0), (3.0, 3.5), (4.5, 8.0), 2 * pi * 0.5 / 5, 6),
    "tram": RoadUser(draw_tram, (14.0, 16.0), (3.9, 4.1), (4.0, 7.0), 1.0, 1),
    "wheelchair": RoadUser(draw_wheelchair, (1.25, 1.25), (1.35, 1.45), (0.9, 1.6), 2 * pi * 0.31, 32),
}


@dataclass(frozen=True)
class Sprite:
    """One road user's pictures. The anchor is the ground point under its middle, in sprite pixels (x, y)."""

    luma: Float32[np.ndarray, "phases h w"]  # premultiplied by opacity, 0..255
    alpha: Float32[np.ndarray, "phases h w"]
    anchor_px: Point
    px_per_m: float
    length_m: float
    cycle_m: float

    def phase_at(self, distance_m: float) -> int:
        return int(distance_m / self.cycle_m * len(self.luma)) % len(self.luma)


def make_sprite(class_name: str, px_per_m: float, rng: Generator, faces_left: bool = False) -> Sprite:
    """A road user of random size and looks, with all phases of its movement."""
    user = ROAD_USERS[class_name]
    length_m, height_m = rng.uniform(*user.length_m), rng.uniform(*user.height_m)
    seed = int(rng.integers(2**32))
    grain_hw = ceil(px_per_m * (height_m + 1)), ceil(px_per_m * (length_m + 1)) + 2
    grain = rng.normal(1.0, 0.03, grain_hw).astype(np.float32)
    pens = [Pen(length_m, height_m, px_per_m) for _ in range(user.phases)]
    for phase, pen in enumerate(pens):
        user.draw(pen, length_m, height_m, phase / user.phases, default_rng(seed))
    luma, alpha = (np.stack(planes) for planes in zip(*(pen.finish(grain) for pen in pens), strict=True))
    x, y = pens[-1].anchor_px
    if faces_left:
        luma, alpha, x = luma[..., ::-1].copy(), alpha[..., ::-1].copy(), alpha.shape[-1] - x
    return Sprite(luma, alpha, (x, y), px_per_m, length_m, user.cycle_m)
