import numpy as np
import pytest
from numpy.random import default_rng

from data.toy.sprites import ROAD_USERS, make_sprite


@pytest.mark.parametrize("name", ROAD_USERS)
def test_every_class_has_its_size_and_stands_on_the_ground(name: str) -> None:
    user, sprite = ROAD_USERS[name], make_sprite(name, 30.0, default_rng(5))
    solid = sprite.alpha.max(0) > 0.5
    rows, cols = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    assert user.height_m[0] - 0.1 <= (rows[-1] + 1 - rows[0]) / 30 <= user.height_m[1] + 0.15
    assert 0.8 * user.length_m[0] <= (cols[-1] + 1 - cols[0]) / 30 <= user.length_m[1] + 0.3
    assert abs(rows[-1] + 1 - sprite.anchor_px[1]) <= 3
    assert (sprite.luma <= 255 * sprite.alpha + 1e-3).all()


@pytest.mark.parametrize("name", ["pedestrian", "bicycle", "wheelchair", "car"])
def test_limbs_and_wheels_move_and_the_rest_keeps_its_looks(name: str) -> None:
    sprite = make_sprite(name, 30.0, default_rng(6))
    changes = np.abs(np.diff(sprite.luma, axis=0)).max(0) > 20
    assert changes.any()
    assert changes.mean() < 0.5
    assert sprite.phase_at(0.0) == sprite.phase_at(sprite.cycle_m) == 0
    assert sprite.phase_at(0.5 * sprite.cycle_m) == len(sprite.luma) // 2


def test_facing_left_is_the_mirror_image() -> None:
    right, left = (make_sprite("truck", 20.0, default_rng(7), faces_left) for faces_left in (False, True))
    assert np.array_equal(right.alpha[..., ::-1], left.alpha)
    assert left.anchor_px == (right.alpha.shape[-1] - right.anchor_px[0], right.anchor_px[1])
