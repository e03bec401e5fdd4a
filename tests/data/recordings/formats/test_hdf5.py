"""HDF5 in all its layouts, types and shapes; what holds no events is refused by what it holds."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from config.errors import UserError
from data.recordings.cleaning import LEAPS, OUTSIDE
from data.recordings.formats.common import Reading
from tests.event_files import compound, make_events, read_events, write_hdf5, write_metavision

EVENTS = make_events(3000, 2_000_000)
X, Y, P, T = EVENTS.T
Contents = dict[str, np.ndarray]


def write(path: Path, contents: Contents, **attributes: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in contents.items():
            file[name] = values
        file.attrs.update(attributes)
    return path


def group(name: str = "events", keys: str | list[str] = "xypt", **changed: np.ndarray) -> Contents:
    columns = {"x": X, "y": Y, "p": P, "t": T, **changed}
    return {f"{name}/{key}".strip("/"): columns[short] for key, short in zip(keys, "xypt", strict=True)}


LAYOUTS = {
    "xs, ys, ps, ts": group(keys=["xs", "ys", "ps", "ts"]),
    "at the root": group(""),
    "another group": group("davis/left"),
    "long names": group(keys=["x_coordinates", "y_coordinates", "polarities", "timestamps"]),
    "compound": {"events": compound(EVENTS, [("t", "<u4"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])},
    "compound, elsewhere": {"cam/data": compound(EVENTS, [("x", "<i2"), ("y", "<i2"), ("p", "?"), ("t", "<u8")])},
    "t x y p": {"events": EVENTS[:, [3, 0, 1, 2]]},
    "x y t p": {"events": EVENTS[:, [0, 1, 3, 2]]},
    "x y p t": {"events": EVENTS},
    "t x y p, floating-point": {"events": EVENTS[:, [3, 0, 1, 2]].astype(float)},
    "four rows": {"events": EVENTS[:, [3, 0, 1, 2]].T},
    "big-endian": group(x=X.astype(">u2"), y=Y.astype(">i4"), p=P.astype(">i2"), t=T.astype(">i8")),
    "columns": group(x=X[:, None], y=Y[:, None], p=P[:, None], t=T[:, None]),
    "rows": group(x=X[None], y=Y[None], p=P[None], t=T[None]),
    "whole floats": group(x=X.astype(np.float32), y=Y.astype(float), p=P.astype(float), t=T.astype(float)),
    "polarity -1, 1": group(p=2 * P - 1),
    "polarity 0, 255": group(p=P.astype(np.uint8) * np.uint8(255)),
    "polarity bool": group(p=P.astype(bool)),
    "with frames beside": {**group(), "frames/images": np.zeros((3, 8, 8)), "frames/t": np.zeros(3)},
}


@pytest.mark.parametrize("contents", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts_give_the_same_events(tmp_path: Path, contents: Contents) -> None:
    rows, recording = read_events(write(tmp_path / "a.h5", contents))
    assert np.array_equal(rows, EVENTS)
    assert recording.faults == {}
    assert recording.last_t_us == EVENTS[-1, 3]


@pytest.mark.parametrize(
    ("unit", "columns"),
    [("s", T / 1e6), ("ms", T / 1e3), ("ns", T * 1000), ("s", T // 10**6), ("us", T.astype(float))],
)
def test_times_in_other_units(tmp_path: Path, unit: str, columns: np.ndarray) -> None:
    path = write(tmp_path / "a.h5", group(t=columns))
    rows, recording = read_events(path, Reading(time_unit=unit))
    expected = T // 10**6 * 10**6 if columns.dtype.kind == "i" and unit == "s" else T
    assert np.array_equal(rows[:, 3], expected)
    assert recording.last_t_us == expected[-1]


@pytest.mark.parametrize(("name", "unit"), [("t_ns", None), ("t", "ns")])
def test_a_unit_that_the_file_tells_is_taken_and_said(tmp_path: Path, name: str, unit: str | None) -> None:
    path = write(tmp_path / "a.h5", group(keys=["x", "y", "p", name], t=T * 1000))
    if unit:
        with h5py.File(path, "r+") as file:
            file["events/t"].attrs["unit"] = unit
    rows, recording = read_events(path)
    assert np.array_equal(rows, EVENTS)
    assert recording.notes == ("times are in ns, as the file says",)
    with pytest.raises(UserError, match=r"a.h5 says that .* is in ns, but dataset.preprocessing.time_unit is ms"):
        read_events(path, Reading(time_unit="ms"))


@pytest.mark.parametrize("num_bits", [31, 32])
@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.uint64, np.uint32])
def test_counters_that_start_again_go_on_whatever_their_type(tmp_path: Path, num_bits: int, dtype: type) -> None:
    events = EVENTS + np.array([0, 0, 0, 2**num_bits - 1_000_000])
    write(tmp_path / "a.h5", group(t=(events[:, 3] % 2**num_bits).astype(dtype)))
    rows, recording = read_events(tmp_path / "a.h5")
    assert np.array_equal(rows, events)
    assert recording.last_t_us == events[-1, 3]


def test_times_in_seconds_tell_the_order_of_columns_too(tmp_path: Path) -> None:
    """As in MVSEC's files: x y t p, with t in s."""
    path = write(tmp_path / "a.h5", {"davis/left/events": EVENTS[:, [0, 1, 3, 2]] / np.array([1, 1, 1e6, 1])})
    rows, recording = read_events(path, Reading(time_unit="s"))
    assert np.array_equal(rows, EVENTS)
    assert recording.notes == ("columns are x y t p, as their values say",)
    with pytest.raises(UserError, match=r"column 2 of davis/left/events has fractions.*time_unit=s"):
        read_events(path)


def test_a_signed_counter_goes_on_below_zero(tmp_path: Path) -> None:
    events = EVENTS + np.array([0, 0, 0, 2**31 - 1_000_000])
    for name, dtype in (("a.h5", np.int32), ("b.h5", np.int64)):
        write(tmp_path / name, group(t=events[:, 3].astype(np.int32).astype(dtype)))
        assert np.array_equal(read_events(tmp_path / name)[0], events)


def test_what_is_no_pixel_or_no_time_is_left_out_and_counted(tmp_path: Path) -> None:
    x, y, t = X.astype(float), Y.astype(np.int64), T.astype(float)
    x[[10, 11, 12]] = np.nan, np.inf, 1e30
    y[[20, 21, 22]] = -1, 2**16 + 5, 2**32 + 5
    t[[30, 31]] = np.nan, -np.inf
    rows, recording = read_events(write(tmp_path / "a.h5", group(x=x, y=y, t=t)))
    assert np.array_equal(rows, np.delete(EVENTS, [10, 11, 12, 20, 21, 22, 30, 31], axis=0))
    assert recording.faults == {OUTSIDE: 6, LEAPS: 2}


def late(values: np.ndarray, value: float) -> np.ndarray:
    return np.where(np.arange(len(values)) == 2900, value, values)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (group(p=P + 1), r"polarities 1, 2\. They are to be"),
        (group(p=late(P, 7)), r"polarities 0, 1, 7"),
        (group(p=late(2 * P - 1, 0)), r"polarities -1, 0, 1"),
        (group(p=(2 * P - 1).astype(np.uint8)), r"polarities 1, 255"),
        (group(p=late(P, np.nan)), r"events/p has polarities that are no numbers"),
        (group(x=X + 0.25), r"events/x has fractions, such as .*\.25.*rectified"),
        (group(t=T / 1e6), r"events/t has fractions, such as .*dataset.preprocessing.time_unit=s"),
        (group(t=T.astype("S8")), r"events/t is \|S8"),
        (group(t=np.where(np.arange(3000) < 1500, T, T - T[1500]) * 9), r"goes back from .* to .* and stays there"),
        ({**group("left"), **group("right")}, r"events in several places: left, right"),
        ({"frames": np.zeros((3, 8, 8), np.uint8)}, r"no events/x.*It holds frames \(3, 8, 8\) uint8"),
        ({"events": EVENTS[:, [0, 1, 2, 2]]}, r"no events/x.*It holds events \(3000, 4\) int64"),
        ({}, r"It holds nothing"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, contents: Contents, message: str) -> None:
    with pytest.raises(UserError, match=f"a.h5.*{message}"):
        read_events(write(tmp_path / "a.h5", contents))


def claim_more_events(file: h5py.File) -> None:
    del file["events"]
    for key in "xypt":
        file.create_dataset(f"events/{key}", (2**40,), np.int64, chunks=(2**16,))


def point_to_another_file(file: h5py.File) -> None:
    del file["events/t"]
    file["events/t"] = h5py.ExternalLink("other.h5", "events/t")


def point_through_another_file(file: h5py.File) -> None:
    del file["events/t"]
    file["there"] = h5py.ExternalLink("other.h5", "/events")
    file["events/t"] = h5py.SoftLink("/there/t")


def take_bytes_of_another_file(file: h5py.File) -> None:
    del file["events"]
    file.create_dataset("events", (100, 4), np.uint8, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def take_rows_of_another_file(file: h5py.File) -> None:
    del file["events/t"]
    layout = h5py.VirtualLayout((3000,), np.int64)
    layout[:] = h5py.VirtualSource("missing.h5", "t", (3000,))
    file.create_virtual_dataset("events/t", layout)


def point_to_another_sensor(file: h5py.File) -> None:
    for key in ("height", "width"):
        file.pop(f"events/{key}", None)
        file[f"events/{key}"] = h5py.ExternalLink("other.h5", "events/t")


def have_one_huge_chunk(file: h5py.File) -> None:
    del file["events/t"]
    file.create_dataset("events/t", (2**30,), np.int64, chunks=(2**30,), compression="gzip")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (claim_more_events, "claims 1,099,511,627,776 values, of which not all are stored"),
        (point_to_another_file, "events/t stands in another file"),
        (point_through_another_file, "events/t stands in another file"),
        (take_bytes_of_another_file, "events stands in another file"),
        (take_rows_of_another_file, "events/t stands in another file"),
        (point_to_another_sensor, "events/height stands in another file"),
        (have_one_huge_chunk, "chunks of .* too large|differ in length"),
    ],
)
def test_claims_are_compared_with_the_file_before_anything_is_read(
    tmp_path: Path, damage: Callable[[h5py.File], None], message: str
) -> None:
    write_hdf5(tmp_path / "other.h5", EVENTS)
    write_hdf5(tmp_path / "a.h5", EVENTS)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        damage(file)
    with pytest.raises(UserError, match=f"a.h5.*{message}"):
        read_events(tmp_path / "a.h5")


def test_links_within_the_file_are_followed(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", EVENTS)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.move("events/t", "t")
        file["events/t"] = h5py.SoftLink("/t")
    np.testing.assert_array_equal(read_events(tmp_path / "a.h5")[0], EVENTS)


def test_metavisions_files_tell_their_sensor(tmp_path: Path) -> None:
    write_metavision(tmp_path / "a.hdf5", EVENTS)
    assert read_events(tmp_path / "a.hdf5")[1].sensor_hw_of_file == (480, 640)
    with pytest.raises(UserError, match=r"a.hdf5 is from a sensor of \(480, 640\)"):
        read_events(tmp_path / "a.hdf5", sensor_hw=(720, 1280))


@pytest.mark.parametrize(("chunk", "hides"), [(1, False), (2, True), (4, True), (5, False)])
def test_a_chunk_that_damage_hides_is_no_zeros(tmp_path: Path, chunk: int, hides: bool) -> None:
    """The key of a chunk in libhdf5's tree: 4 bytes of size, 4 of filters, then the first row and a 0, 8 bytes each."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for key, column in zip("xypt", EVENTS.T, strict=True):
            file.create_dataset(f"events/{key}", data=column, chunks=(500,))
    content = bytearray(path.read_bytes())
    tree = content.index(b"TREE\x01\x00\x06")
    content[tree + 24 + 32 * chunk + 17] = 0x20
    path.write_bytes(content)
    if hides:
        with pytest.raises(
            UserError, match=r"a\.h5 is damaged or cut short: events/x: the values from [\d,]+ on are no"
        ):
            read_events(path)
    else:
        assert np.array_equal(read_events(path)[0], EVENTS)


def test_a_size_in_a_string_of_fixed_length_is_read(tmp_path: Path) -> None:
    write_metavision(tmp_path / "a.h5", EVENTS)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["geometry"] = np.bytes_("640x480")
    assert read_events(tmp_path / "a.h5")[1].sensor_hw_of_file == (480, 640)
