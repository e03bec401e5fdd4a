import numpy as np
import pytest
from numpy.random import default_rng

from data.toy.scene import Actor, Patch, Scene, Standing, View, make_motion
from data.toy.sprites import make_sprite

VIEW = View((180, 320), vanishing_y=-90.0, convergence=3e-4)


def actor(depth_y: float, start_x: float, speed_m_s: float = 4.0, name: str = "car", track_id: int = 1) -> Actor:
    motion = make_motion(speed_m_s, duration_s=4.0, halts=False, rng=default_rng(0))
    sprite = make_sprite(name, VIEW.px_per_m(depth_y), default_rng(track_id))
    return Actor(1, track_id, sprite, VIEW, depth_y, VIEW.metres_at(depth_y, start_x), motion)


def scene(*things: Actor | Standing) -> Scene:
    background = np.full(VIEW.frame_hw, 100, np.float32)
    return Scene(VIEW, background, sorted(things, key=lambda thing: thing.depth_y))


def board(x0: int, width: int, depth_y: float = 170.0) -> Standing:
    alpha = np.ones((180, width), np.float32)
    return Standing(depth_y, Patch(x0, 0, 60 * alpha, alpha))


def test_columns_and_metres_along_a_lane_are_inverse_and_nearer_is_larger() -> None:
    for x in (-50.0, 0.0, 160.0, 310.0):
        assert VIEW.x_at(120.0, VIEW.metres_at(120.0, x)) == pytest.approx(x)
    assert VIEW.px_per_m(150.0) > VIEW.px_per_m(100.0)
    assert VIEW.y_at(120.0, 320.0) > VIEW.y_at(120.0, 160.0) == 120.0 > VIEW.y_at(120.0, 0.0)


def test_box_encloses_the_pixels_that_a_road_user_changes() -> None:
    street = scene(actor(120.0, 100.0))
    [(_, (x, y, w, h))] = street.boxes(1.0)
    changed = np.abs(street.frame(1.0).astype(int) - 100) > 60  # its shadow is fainter
    rows, cols = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert (x, y) == pytest.approx((cols[0], rows[0]), abs=1)
    assert (x + w, y + h) == pytest.approx((cols[-1] + 1, rows[-1] + 1), abs=1)


def test_a_road_user_moves_at_its_speed() -> None:
    car = actor(120.0, 160.0, speed_m_s=-4.0)
    assert car.x_at(0.0) == pytest.approx(160.0)
    assert 160.0 - car.x_at(0.1) == pytest.approx(0.4 * VIEW.px_per_m(120.0), rel=0.01)


def test_nearer_road_users_hide_farther_ones_whose_boxes_stay_whole() -> None:
    far, near = actor(110.0, 100.0, track_id=1), actor(140.0, 130.0, track_id=2)
    alone, both = dict(by_track(scene(far))), dict(by_track(scene(near, far)))
    assert both[1] == alone[1]
    assert np.array_equal(scene(far, near).frame(0.5)[120:135, 130:150], scene(near).frame(0.5)[120:135, 130:150])


def by_track(street: Scene, t_s: float = 0.5) -> list[tuple[int, tuple[int, int, int, int]]]:
    return [(road_user.track_id, box) for road_user, box in street.boxes(t_s)]


def test_boxes_are_clipped_to_the_frame() -> None:
    street = scene(actor(120.0, 310.0, speed_m_s=4.0))
    [(_, (x, _, w, _))] = street.boxes(0.1)
    assert x + w == 320
    assert w < 0.75 * 4.2 * VIEW.px_per_m(120.0)  # of a car of some 4.2 m, more than a quarter is outside


def test_who_is_hidden_outside_or_at_rest_gets_no_box() -> None:
    car = actor(120.0, 100.0)
    assert by_track(scene(car, board(0, 320))) == []
    assert by_track(scene(car, board(150, 20))) == by_track(scene(car))
    assert by_track(scene(actor(120.0, 345.0))) == []
    assert by_track(scene(actor(120.0, 100.0, speed_m_s=0.01))) == []


def test_a_halt_at_a_light_ends_and_costs_time() -> None:
    halting = make_motion(5.0, 10.0, halts=True, rng=default_rng(3))
    travelled = [halting.metres(t) for t in np.arange(0, 10.01, 0.1)]
    steps = np.diff(travelled)
    assert steps.min() == pytest.approx(0.0, abs=1e-9)
    assert steps[0] == pytest.approx(steps[-1]) == pytest.approx(0.5)
    assert travelled[-1] == pytest.approx(5.0 * (10.0 - 1.2))
