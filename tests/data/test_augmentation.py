"""Augmentation against the reference implementation's results, and what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import InterpolationMode, rotate

from config.schema import AugmentationConfig, FactorRange, RotateConfig, ZoomConfig, ZoomDirectionConfig
from data.augmentation import Augmentation, Move, Zoom, window_at, window_size

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "augmentation.npz")
CASES = [name.removesuffix("__ev_out") for name in GOLDEN.files if name.endswith("__ev_out")]
HW = (36, 64)
BOXES = np.array([[0, 10, 5, 8, 6], [2, 40, 20, 10, 10]], dtype=np.float32)


def move_of(case: str) -> Move:
    size, name = case.split("__")
    frame_hw = tuple(map(int, size.removeprefix("s").split("x")))
    kind, *values = name.split("_")
    if kind == "combined":
        return Move(frame_hw, hflip=True, angle_deg=5.0, zoom=Zoom(zoom_in=False, factor=1.1, x0=2, y0=1))
    if kind == "hflip":
        return Move(frame_hw, hflip=True)
    if kind == "rotate":
        return Move(frame_hw, angle_deg=float(values[0]))
    return Move(frame_hw, zoom=Zoom(kind == "zoomin", float(values[0]), int(values[1]), int(values[2])))


def rows_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (class, x, y, w, h) and time step of each, without those of no size."""
    rows, offsets = GOLDEN[name], GOLDEN[f"{name}_offsets"]
    step = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return rows[:, [5, 1, 2, 3, 4]], step


@pytest.mark.parametrize("case", CASES)
def test_frames_and_boxes_move_as_in_the_reference(case: str) -> None:
    move, size = move_of(case), case.split("__")[0]
    frames = GOLDEN[f"{size}__ev_in"]
    moved = np.empty_like(frames)
    for frame, target in zip(frames, moved, strict=True):
        move.pixel_map().gather(frame, target)
    np.testing.assert_array_equal(moved, GOLDEN[f"{case}__ev_out"])

    boxes, step = rows_of(f"{size}__labels_in")
    boxes = move.boxes(boxes)
    seen = (boxes[:, 3] > 0) & (boxes[:, 4] > 0)
    expected, expected_step = rows_of(f"{case}__labels_out")
    np.testing.assert_array_equal(step[seen], expected_step)
    np.testing.assert_allclose(boxes[seen], expected, rtol=0, atol=1e-5)  # one ulp of a zoom out's division


@pytest.mark.parametrize("frame_hw", [(45, 76), (61, 99), (240, 304), (260, 346), (375, 641)])
@pytest.mark.parametrize("angle_deg", [-5.9, -3.3, 2.0, 4.7])
def test_a_rotated_frame_is_the_one_that_torchvision_gives(frame_hw: tuple[int, int], angle_deg: float) -> None:
    """RVT hands it frames of uint8, which it rotates in float32."""
    frame = np.random.default_rng(0).integers(0, 256, (2, *frame_hw)).astype(np.uint8)
    moved = np.empty_like(frame)
    Move(frame_hw, angle_deg=angle_deg).pixel_map().gather(frame, moved)
    expected = rotate(torch.from_numpy(frame), angle_deg, interpolation=InterpolationMode.NEAREST)
    np.testing.assert_array_equal(moved, expected.numpy())


def test_window_of_a_zoom_in_is_chosen_as_in_the_reference() -> None:
    for row in GOLDEN["zoomin_window_sampling"]:
        frame_hw, factor, window_hw = (int(row[0]), int(row[1])), row[2], (int(row[3]), int(row[4]))
        assert window_size(frame_hw, factor) == window_hw
        for i, u in enumerate((0.0, 0.5, 1.0)):
            expected = tuple(row[9 + 2 * i : 11 + 2 * i].astype(int))
            assert window_at(row[5:9], frame_hw, window_hw, np.array([u, u])) == expected


def augmentation(
    hflip: float = 0, rotate: float = 0, zoom: float = 0, inwards: float | None = None, outwards: float = 1
) -> Augmentation:
    """`inwards` and `outwards` are the weights of the two zooms."""
    directions = {"zoom_out": ZoomDirectionConfig(weight=outwards, factor=FactorRange(min=1, max=1.2))}
    if inwards is not None:
        directions["zoom_in"] = ZoomDirectionConfig(weight=inwards, factor=FactorRange(min=1, max=1.5))
    return Augmentation(
        AugmentationConfig(
            prob_hflip=hflip,
            rotate=RotateConfig(prob=rotate, min_angle_deg=2, max_angle_deg=6),
            zoom=ZoomConfig(prob=zoom, **directions),
        ),
        HW,
    )


def test_equal_seeds_draw_equal_moves() -> None:
    drawn = [augmentation(0.5, 0.5, 0.5, 8, 2).draw((3, seed), BOXES) for seed in range(50)]
    assert drawn == [augmentation(0.5, 0.5, 0.5, 8, 2).draw((3, seed), BOXES) for seed in range(50)]
    assert len(set(drawn)) > 40


def test_probabilities_and_ranges_are_those_of_the_config() -> None:
    moves = [augmentation(0.5, 0.25, 0.8, 8, 2).draw((seed,), BOXES) for seed in range(2000)]
    zooms = [move.zoom for move in moves if move.zoom is not None]
    angles = np.array([move.angle_deg for move in moves if move.angle_deg])
    assert np.mean([move.hflip for move in moves]) == pytest.approx(0.5, abs=0.05)
    assert len(angles) / len(moves) == pytest.approx(0.25, abs=0.05)
    assert ((np.abs(angles) >= 2) & (np.abs(angles) <= 6)).all()
    assert np.mean(angles > 0) == pytest.approx(0.5, abs=0.1)
    assert len(zooms) / len(moves) == pytest.approx(0.8, abs=0.05)
    assert np.mean([zoom.zoom_in for zoom in zooms]) == pytest.approx(0.8, abs=0.05)
    assert all(1 <= zoom.factor <= (1.5 if zoom.zoom_in else 1.2) for zoom in zooms)


def test_a_move_without_zoom_in_does_not_depend_on_boxes() -> None:
    """So that it stays the same over all chunks of a stream."""
    stream = augmentation(0.5, 0.5, 1)
    none = np.zeros((0, 5), dtype=np.float32)
    assert [stream.draw((seed,), BOXES) for seed in range(50)] == [stream.draw((seed,), none) for seed in range(50)]


def test_zoom_in_aims_at_any_box_and_shows_it() -> None:
    boxes = np.array([[0, 2, 2, 4, 4], [0, 55, 28, 6, 5], [0, 0, 28, 5, 5]], dtype=np.float32)
    inwards = augmentation(zoom=1, inwards=1, outwards=0)
    whole = np.zeros(3, dtype=int)
    for seed in range(200):
        move = inwards.draw((seed,), boxes)
        moved = move.boxes(boxes)
        # the window's bounds are whole pixels, and boxes are clamped to the one before its end
        complete = (moved[:, 3:] >= (boxes[:, 3:] - 2.5) * move.zoom.factor).all(axis=1)
        assert complete.any()
        whole += complete
    assert (whole > 20).all()


def test_zoom_in_without_boxes_stays_in_the_frame() -> None:
    for seed in range(50):
        zoom = augmentation(zoom=1, inwards=1, outwards=0).draw((seed,), np.zeros((0, 5), np.float32)).zoom
        height, width = window_size(HW, zoom.factor)
        assert 0 <= zoom.x0 <= HW[1] - width
        assert 0 <= zoom.y0 <= HW[0] - height


def test_nothing_drawn_moves_nothing() -> None:
    move = augmentation().draw((0,), BOXES)
    assert move.pixel_map() is None
    np.testing.assert_array_equal(move.boxes(BOXES), BOXES)
