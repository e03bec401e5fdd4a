from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from tests.event_files import compound, make_events, read_events

EVENTS = make_events(3000, 2_000_000)
X, Y, P, T = EVENTS.T
DTYPE = [("x", "<u2"), ("y", "<u2"), ("t", "<u8"), ("p", "?")]


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": X, "y": Y, "p": P, "t": T},
        {"x_coord": X[:, None], "y_coord": Y[:, None], "polarity": P.astype(bool), "timestamp": T.astype(">u4")},
        {"event_data": compound(EVENTS, DTYPE)},
        {"arr_0": EVENTS[:, [3, 0, 1, 2]]},
        {"events": EVENTS[:, [0, 1, 3, 2]].astype(float)},
        {"x": X, "y": Y, "p": 2 * P - 1, "t": T, "images": np.zeros((3, 8, 8)), "height": 480, "width": 640},
    ],
)
def test_layouts_give_the_same_events(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        rows, recording = read_events(tmp_path / "a.npz")
        assert np.array_equal(rows, EVENTS)
        assert recording.last_t_us == EVENTS[-1, 3]
        assert recording.sensor_hw_of_file == ((480, 640) if "height" in arrays else None)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((3, 8, 8))}, r"It holds images \(3, 8, 8\) float64"),
        ({"x": X, "y": Y[:-1], "p": P, "t": T}, "differ in length"),
        ({"x": X, "y": Y, "p": P + 1, "t": T}, "polarities 1, 2"),
        ({"x": X, "y": Y, "p": P, "t": np.array([{}] * 3000)}, "t holds Python objects"),
        ({"x": X, "y": Y, "p": P, "t": T / 1e6}, "t has fractions.*time_unit"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=f"a.npz.*{message}"):
        read_events(tmp_path / "a.npz")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_damage_is_told(tmp_path: Path, part: float) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=X, y=Y, p=P, t=T)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    (tmp_path / "a.npz").write_bytes(data[: int(part * len(data))])
    with pytest.raises(UserError, match=r"a.npz is damaged or cut short"):
        read_events(tmp_path / "a.npz")
    data[int(part * len(data))] ^= 255
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"a.npz is damaged or cut short"):
        read_events(tmp_path / "a.npz")
