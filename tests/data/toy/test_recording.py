from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.random import default_rng

from data.boxes import BOX_DTYPE
from data.toy.recording import simulate_events, write_recording
from data.toy.street import make_scene

SMALL = (120, 214)


def read_events(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {key: file["events"][key][()] for key in ("x", "y", "p", "t", "height", "width")}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, np.ndarray], np.ndarray]:
    folder = tmp_path_factory.mktemp("toy")
    count = write_recording(folder, "street", SMALL, 1.2, 1, (0, 0, 1))
    events = read_events(folder / "street_td.h5")
    assert count == len(events["t"]) > 10_000
    return events, np.load(folder / "street_bbox.npy")


def test_events_are_in_order_and_inside_the_sensor(recording: tuple) -> None:
    events, _ = recording
    assert (events["height"], events["width"]) == SMALL
    assert (np.diff(events["t"]) >= 0).all()
    assert 0 <= events["t"][0] < 100_000
    assert 1_150_000 < events["t"][-1] <= 1_200_000
    assert events["x"].max() < SMALL[1]
    assert events["y"].max() < SMALL[0]
    assert set(np.unique(events["p"])) == {0, 1}


def test_boxes_are_etrams_at_30_hz_and_inside_the_frame(recording: tuple) -> None:
    _, boxes = recording
    assert boxes.dtype == BOX_DTYPE
    ticks = boxes["t"] * 30 / 1e6
    assert np.abs(ticks - ticks.round()).max() < 1e-3
    assert boxes["t"].max() == 1_200_000
    assert (np.diff(boxes["t"]) >= 0).all()
    assert boxes["class_id"].max() < 8
    assert (boxes["x"] >= 0).all()
    assert (boxes["y"] >= 0).all()
    assert (boxes["x"] + boxes["w"] <= SMALL[1]).all()
    assert (boxes["y"] + boxes["h"] <= SMALL[0]).all()


def test_events_are_where_the_boxes_are(recording: tuple) -> None:
    """Some lie beside the boxes: shadows, noise, and road users that are too little seen to be labelled."""
    events, boxes = recording
    now = boxes[boxes["t"] == 600_000]
    near = np.zeros(SMALL, bool)
    for box in now:
        x, y = int(box["x"]), int(box["y"])
        near[max(y - 4, 0) : y + int(box["h"]) + 4, max(x - 4, 0) : x + int(box["w"]) + 4] = True
    window = (events["t"] > 570_000) & (events["t"] <= 600_000)
    counts = np.zeros(SMALL)
    np.add.at(counts, (events["y"][window], events["x"][window]), 1)
    assert counts[near].mean() > 10 * counts[~near].mean()


def test_equal_seeds_give_equal_recordings_and_others_do_not(tmp_path: Path) -> None:
    for name, seed in (("one", 4), ("same", 4), ("other", 5)):
        write_recording(tmp_path, name, SMALL, 1.0, 0, (seed, 0, 0))
    one, same, other = (read_events(tmp_path / f"{name}_td.h5") for name in ("one", "same", "other"))
    assert all(np.array_equal(one[key], same[key]) for key in one)
    assert np.array_equal(np.load(tmp_path / "one_bbox.npy"), np.load(tmp_path / "same_bbox.npy"))
    assert len(one["t"]) != len(other["t"])


def test_pieces_leave_no_gap() -> None:
    """A new piece forgets what a pixel had gathered since its last event, and no more."""
    scene = make_scene(SMALL, 0.6, 2, default_rng(1))
    whole, parts = (np.concatenate(list(simulate_events(scene, 0.6, 0, size))) for size in (1000, 20))
    assert len(parts) == pytest.approx(len(whole), rel=0.05)
    bins = np.arange(0, 600_001, 50_000)
    histograms = [np.histogram(events[:, 2], bins)[0] for events in (whole, parts)]
    assert histograms[1] == pytest.approx(histograms[0], rel=0.1)
