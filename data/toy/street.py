"""Draws up random streets for the toy scene: a textured background, lanes, who uses them, and what stands in front."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32
from numpy.random import Generator
from PIL import Image, ImageDraw

from data.toy.scene import NEAR_PX_PER_M, Actor, Motion, Patch, Scene, Standing, View, make_motion
from data.toy.sprites import ROAD_USERS, Pen, make_sprite

CLASS_NAMES = tuple(ROAD_USERS)
TRAFFIC = (*CLASS_NAMES, "pedestrian", "car")  # a scene has all of these but three, which change from scene to scene
WALKERS, DRIVERS = ("pedestrian", "wheelchair"), ("car", "truck", "bus", "motorbike")
LANES = (  # far to near: depth in frame heights, and who uses the lane
    (0.46, WALKERS),
    (0.55, ("tram",)),
    (0.65, DRIVERS),
    (0.78, DRIVERS),
    (0.86, ("bicycle",)),
    (0.94, WALKERS),
)
KERBS = (0.505, 0.90)
DISTANT_TRAFFIC = (*CLASS_NAMES[:6], "car", "pedestrian", "bicycle", "pedestrian", "car", "pedestrian", "car")
DISTANT_PX_PER_M = 26  # at the lower edge, on a sensor of any size: pedestrians of 10 to 40 pixels, cars of 30 to 110
RARE_EVERY = 6  # scenes of a distant street with a tram, and with a wheelchair


def make_scene(
    frame_hw: tuple[int, int], duration_s: float, index: int, rng: Generator, distant: bool = False
) -> Scene:
    """The street number `index` of a set; the number decides which classes it has, so that small sets have all.

    `distant`: as eTraM's cameras see it, from afar and with more depth; many small road users, trams and wheelchairs
    in one scene of six each.
    """
    height, width = frame_hw
    convergence = rng.uniform(0.04, 0.13) * rng.choice([-1, 1]) / width
    if distant:
        scale = DISTANT_PX_PER_M / (NEAR_PX_PER_M * height)
        view = View(frame_hw, rng.uniform(0.15, 0.25) * height, convergence, scale)
        rare = {1: ["tram"], 4: ["wheelchair"]}.get(index % RARE_EVERY, [])
        classes = rng.permutation([*DISTANT_TRAFFIC, *rare])
    else:
        view = View(frame_hw, rng.uniform(-0.75, -0.5) * height, convergence)
        absent = {(3 * index + place) % len(TRAFFIC) for place in range(3)}
        classes = rng.permutation([name for place, name in enumerate(TRAFFIC) if place not in absent])
    things = [*place_road_users(classes, view, duration_s, rng), *place_standing(view, rng)]
    return Scene(view, paint_background(view, rng), sorted(things, key=lambda thing: thing.depth_y))


def place_road_users(classes: Iterable[str], view: View, duration_s: float, rng: Generator) -> list[Actor]:
    """Each passes some point of the frame at some time; drivers in a lane share its speed and keep their distance."""
    flows = {
        depth: make_motion(rng.uniform(5, 8) * rng.choice([-1, 1]), duration_s, halts=rng.random() < 0.15, rng=rng)
        for depth, users in LANES
        if users == DRIVERS
    }
    actors: list[Actor] = []
    for name in classes:
        for _ in range(20):  # a full lane: try again, then do without
            depth = rng.choice([depth for depth, users in LANES if name in users])
            motion = flows.get(depth)
            if motion is None:
                speed = rng.uniform(*ROAD_USERS[name].speed_m_s) * rng.choice([-1, 1])
                motion = make_motion(speed, duration_s, halts=False, rng=rng)
                depth += rng.uniform(-0.02, 0.02)
            actor = make_actor(name, len(actors) + 1, view, depth * view.frame_hw[0], motion, duration_s, rng)
            if all(other.motion is not motion or _apart(actor, other) for other in actors):
                actors.append(actor)
                break
    return actors


def make_actor(
    name: str, track_id: int, view: View, depth_y: float, motion: Motion, duration_s: float, rng: Generator
) -> Actor:
    sprite = make_sprite(name, view.px_per_m(depth_y), rng, faces_left=bool(motion.speed_m_s < 0))
    meeting_m = view.metres_at(depth_y, rng.uniform(0.1, 0.9) * view.frame_hw[1])
    start_m = meeting_m - motion.metres(rng.uniform(0, duration_s))
    return Actor(CLASS_NAMES.index(name), track_id, sprite, view, depth_y, start_m, motion)


def _apart(one: Actor, other: Actor) -> bool:
    return bool(abs(one.start_m - other.start_m) > (one.sprite.length_m + other.sprite.length_m) / 2 + 1)


def place_standing(view: View, rng: Generator) -> list[Standing]:
    """Lamp posts, trees and planters at the kerbs."""
    height, width = view.frame_hw
    things = []
    for _ in range(rng.integers(2, 5)):
        depth_y = rng.choice(KERBS) * height
        x = rng.uniform(0.05, 0.95) * width
        y = view.y_at(depth_y, x)
        pen = Pen(3.5, 6.0, view.px_per_m(y))
        draw = [draw_lamp_post, draw_tree, draw_planter][rng.integers(3)]
        draw(pen, rng)
        luma, alpha = pen.finish(rough_texture((round(7 * pen.px_per_m), round(5 * pen.px_per_m)), 0.1, rng))
        things.append(Standing(depth_y, Patch(round(x - pen.anchor_px[0]), round(y - pen.anchor_px[1]), luma, alpha)))
    return things


def draw_lamp_post(pen: Pen, rng: Generator) -> None:
    luma = rng.uniform(30, 60)
    pen.box(-0.07, 0, 0.07, 5.5, luma)
    pen.line([(0, 5.5), (1.1, 5.8)], 0.1, luma)
    pen.box(0.8, 5.65, 1.6, 5.85, 230)


def draw_tree(pen: Pen, rng: Generator) -> None:
    pen.box(-0.14, 0, 0.14, 4, 45)
    for _ in range(14):
        pen.disc(rng.normal(0, 0.5), rng.normal(4.6, 0.4), rng.uniform(0.3, 0.6), rng.uniform(45, 90))


def draw_planter(pen: Pen, rng: Generator) -> None:
    for x in rng.uniform(-0.9, 0.9, 16):
        pen.disc(x, rng.uniform(0.5, 0.75), 0.2, rng.uniform(45, 100))
    pen.box(-1.1, 0, 1.1, 0.5, rng.uniform(110, 160))


def rough_texture(hw: tuple[int, int], strength: float, rng: Generator) -> Float32[np.ndarray, "H W"]:
    """Factors around 1: noise of several grain sizes."""
    texture = np.ones(hw, np.float32)
    for grain in (1, 3, 9, 27):
        coarse = rng.normal(0, strength / 2, (hw[0] // grain + 2, hw[1] // grain + 2)).astype(np.float32)
        texture += np.asarray(Image.fromarray(coarse).resize((hw[1], hw[0]), Image.Resampling.BICUBIC))
    return texture


def paint_background(view: View, rng: Generator) -> Float32[np.ndarray, "H W"]:
    """Sky, house fronts, pavements, tracks and road, as display luma."""
    height, width = view.frame_hw
    image = Image.new("L", (width, height), int(rng.uniform(160, 210)))
    draw = ImageDraw.Draw(image)
    paint_houses(draw, view, rng)

    def stripe(start: float, stop: float, luma: float, left: float = 0.0, right: float = 1.0) -> None:
        """Fill the ground between two depths, in frame heights, from `left` to `right`, in frame widths."""
        corners = [(start, left), (start, right), (stop, right), (stop, left)]
        draw.polygon([(x * width, view.y_at(depth * height, x * width)) for depth, x in corners], fill=int(luma))

    asphalt, pavement = rng.uniform(85, 110), rng.uniform(115, 145)
    stripe(0.40, 1.2, asphalt)
    stripe(0.40, KERBS[0], pavement)
    stripe(KERBS[1], 1.2, pavement)
    for kerb in KERBS:
        stripe(kerb - 0.004, kerb + 0.004, pavement + 40)
    for rail in (0.545, 0.565):
        stripe(rail - 0.002, rail + 0.002, asphalt - 40)
    for dash in np.arange(rng.uniform(-0.1, 0), 1, 0.12):
        stripe(0.682, 0.688, 215, dash, dash + 0.06)
    stripe(0.80, 0.805, 200)
    return np.clip(np.asarray(image, np.float32) * rough_texture((height, width), 0.07, rng), 25, 250)


def paint_houses(draw: ImageDraw.ImageDraw, view: View, rng: Generator) -> None:
    height, width = view.frame_hw
    left = -rng.uniform(0, 0.1) * width
    while left < width:
        right = left + rng.uniform(0.12, 0.3) * width
        roof, wall = rng.uniform(0.02, 0.2) * height, rng.uniform(85, 170)
        draw.rectangle([left, roof, right, height], fill=int(wall))
        pitch = rng.uniform(0.04, 0.06) * width
        for x in np.arange(left + 0.3 * pitch, right - 0.7 * pitch, pitch):
            for y in np.arange(roof + 0.03 * height, 0.36 * height, 0.1 * height):
                draw.rectangle(
                    [x, y, x + 0.55 * pitch, y + 0.06 * height], fill=int(wall * rng.choice([0.5, 0.6, 1.3]))
                )
        left = right
