from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.random import default_rng

from data.toy.scene import Actor
from data.toy.street import CLASS_NAMES, make_scene

SMALL = (120, 214)


def road_users(index: int, seed: int = 0) -> list[Actor]:
    scene = make_scene(SMALL, 3.0, index, default_rng((seed, index)))
    return [thing for thing in scene.things if isinstance(thing, Actor)]


def test_class_ids_are_those_of_etram() -> None:
    etram = yaml.safe_load((Path(__file__).parents[3] / "config/dataset/gen4.yaml").read_text())
    assert list(CLASS_NAMES) == etram["classes"]


@pytest.mark.parametrize("seed", [0, 1])
def test_four_scenes_have_all_classes(seed: int) -> None:
    seen = {actor.class_id for index in range(4) for actor in road_users(index, seed)}
    assert seen == set(range(8))


def test_road_users_meet_the_frame_and_face_where_they_go() -> None:
    for index in range(3):
        for actor in road_users(index):
            columns = [actor.x_at(t) for t in np.linspace(0, 3, 31)]
            assert any(0 <= x <= SMALL[1] for x in columns)
        tracks = [actor.track_id for actor in road_users(index)]
        assert sorted(tracks) == list(range(1, len(tracks) + 1))


def test_drivers_of_one_lane_never_touch() -> None:
    for index in range(6):
        actors = road_users(index)
        for one in actors:
            for other in actors:
                if one is not other and one.motion is other.motion:
                    gap = abs(one.start_m - other.start_m) - (one.sprite.length_m + other.sprite.length_m) / 2
                    assert gap >= 1


def test_backgrounds_are_textured_and_differ_between_scenes() -> None:
    first, second = (make_scene(SMALL, 3.0, 0, default_rng(seed)).background for seed in (1, 2))
    assert first.std() > 10
    assert np.abs(first - second).mean() > 5
