from __future__ import annotations

import numpy as np
import pytest

from config.schema import EventAugmentationConfig, RepresentationConfig
from data.dataset import ChunkDataset
from data.event_augmentation import Disturbance, draw_disturbance
from data.plan import ChunkRead
from modules.data import EventDataModule

REPRESENTATION = RepresentationConfig(window_ms=50, bins=3, count_cutoff=10)
NO_PIXELS = np.zeros((0, 3), dtype=np.int64)


def frames(number: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 11, (number, 6, 20, 30)).astype(np.uint8)


def test_polarities_change_places() -> None:
    before, after = frames(), frames()
    Disturbance((1,), REPRESENTATION, True, 0.0, NO_PIXELS).apply(after, 0)
    assert (after[:, :3] == before[:, 3:]).all()
    assert (after[:, 3:] == before[:, :3]).all()


def test_a_share_of_the_events_is_dropped_others_in_each_frame() -> None:
    before, together, apart = frames(), frames(), frames()
    drop = Disturbance((1,), REPRESENTATION, False, 0.3, NO_PIXELS)
    drop.apply(together, 7)
    assert (together <= before).all()
    assert together.sum() == pytest.approx(0.7 * before.sum(), rel=0.01)
    drop.apply(apart[:1], 7)  # however chunks are cut, frame by frame the same
    drop.apply(apart[1:], 8)
    assert (together == apart).all()
    alike = np.repeat(frames(1), 2, axis=0)
    drop.apply(alike, 0)
    assert (alike[0] != alike[1]).any()


def test_hot_pixels_fire_in_every_bin_of_their_polarity_and_nowhere_else() -> None:
    before, after = frames(), frames()
    Disturbance((1,), REPRESENTATION, False, 0.0, np.array([[2, 5, 1], [19, 29, 0]])).apply(after, 0)
    assert (after[:, 3:, 2, 5] == 10).all()
    assert (after[:, :3, 19, 29] == 10).all()
    before[:, 3:, 2, 5] = before[:, :3, 19, 29] = 10
    assert (after == before).all()


def test_draws_keep_to_their_probabilities() -> None:
    config = {"prob_polarity_flip": 0.25, "drop": {"prob": 0.5, "max_share": 0.4}, "hot_pixels": {"prob": 0.2}}
    events = EventAugmentationConfig.model_validate(config)
    drawn = [draw_disturbance((3, i), events, REPRESENTATION, (20, 30)) for i in range(2000)]
    some = [disturbance for disturbance in drawn if disturbance is not None]
    assert len(some) / 2000 == pytest.approx(1 - 0.75 * 0.5 * 0.8, abs=0.03)
    assert sum(each.flips_polarity for each in some) / 2000 == pytest.approx(0.25, abs=0.03)
    shares = [each.dropped_share for each in some if each.dropped_share]
    assert (len(shares) / 2000, np.mean(shares)) == pytest.approx((0.5, 0.2), abs=0.03)
    numbers = [len(each.hot_pixels) for each in some if len(each.hot_pixels)]
    assert (min(numbers), max(numbers), len(numbers) / 2000) == pytest.approx((1, 20, 0.2), abs=0.03)
    assert all((each.hot_pixels < (20, 30, 2)).all() for each in some)
    assert draw_disturbance((3, 1), EventAugmentationConfig(), REPRESENTATION, (20, 30)) is None


def test_a_stream_is_disturbed_alike_from_chunk_to_chunk_and_its_padding_is_not(make_config) -> None:
    events = "dataset.data_augmentation.stream.events"
    still = ("prob_hflip=0", "zoom.prob=0")
    options = [f"{events}.hot_pixels.prob=1", *(f"dataset.data_augmentation.stream.{each}" for each in still)]
    dataset = make_config(*options).dataset
    chunks = ChunkDataset(EventDataModule(make_config()).index("train"), dataset)
    seed = (5, 1, 0)
    first, last = (
        chunks[ChunkRead(2, start, stop, start == 0, 0, False, seed)].frames for start, stop in ((0, 3), (3, 5))
    )
    hot = [(frame == 10).flatten(1) for frame in (*first[:, 0], *last[:2, 0])]
    assert hot[0].any()
    assert all((mask == hot[0]).all() for mask in hot)
    assert (last[2] == 0).all()
    assert (
        chunks[ChunkRead(2, 0, 3, True, 0, True, seed)].frames != 10
    ).all()  # random chunks have settings of their own
