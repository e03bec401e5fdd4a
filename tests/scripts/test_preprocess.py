"""scripts/preprocess.py from the command line to the summary, on the real clip of tests/data/davis346."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from scripts.preprocess import find_recordings, main
from tests.recordings import COMPACT, FULL, REPRESENTATION, read_frames

DAVIS = Path(__file__).parents[1] / "data" / "davis346"
SEQUENCE = Path("train/traffic")
FRAMES = SEQUENCE / REPRESENTATION / COMPACT


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("davis346")
    assert main([str(DAVIS), str(out), "dataset=davis346", "workers=2"]) == 0
    return out


def test_events_lie_where_the_boxes_are(out: Path) -> None:
    """Boxes that are shifted, scaled or late would lie on empty road."""
    events = read_frames(out / SEQUENCE, FULL).sum(axis=1, dtype=int)
    content = np.load(out / SEQUENCE / "labels_v2" / "labels.npz")
    frame_of_label = np.load((out / FRAMES).with_name("objframe_idx_2_repr_idx.npy"))
    boxes_per_frame = np.diff(np.append(content["objframe_idx_2_label_idx"], len(content["labels"])))
    inside = np.zeros(events.shape, bool)
    for box, frame in zip(content["labels"], np.repeat(frame_of_label, boxes_per_frame), strict=True):
        x, y, w, h = (int(box[name]) for name in "xywh")
        inside[frame, y : y + h, x : x + w] = True
    events, inside = events[frame_of_label], inside[frame_of_label]
    assert inside.mean() < 0.02
    assert events[inside].mean() > 50 * events[~inside].mean()


def test_a_second_run_changes_nothing_and_still_tells_the_sums(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (out / FRAMES).stat().st_mtime_ns
    assert main([str(DAVIS), str(out), "dataset=davis346"]) == 0
    assert (out / FRAMES).stat().st_mtime_ns == before
    assert sorted(path.name for path in out.iterdir()) == ["train", "val"]
    table = {
        line.split("│")[1].strip(): line.split("│")[2:6] for line in capsys.readouterr().out.splitlines() if "│" in line
    }
    numbers = {key: [int(cell.replace(",", "")) for cell in cells] for key, cells in table.items() if cells[0].strip()}
    assert numbers["sequences"] == [1, 1, 0, 2]
    assert numbers["of these finished before"] == [1, 1, 0, 2]
    assert numbers["frames"] == [44, 44, 0, 88]
    assert numbers["events read"] == [78830, 78830, 0, 157660]
    assert numbers["boxes: car"] == [53, 53, 0, 106]


def test_a_faulty_recording_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(DAVIS, tmp_path / "in")
    (tmp_path / "in" / "train" / "broken_td.h5").write_bytes(b"nothing")
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "dataset=davis346"]) == 2
    assert "broken_td.h5 is damaged" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out" / "train").iterdir()) == ["traffic"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([".", "dataset=davis346"], "has no recordings"),
        ([str(DAVIS), "dataset=davis347"], "davis346"),
        ([str(DAVIS), "dataset=davis346", "workers=none"], "workers=none"),
        ([str(DAVIS), "dataset=davis346", "dataset.binss=3"], "binss"),
    ],
)
def test_a_mistake_is_reported_without_a_traceback(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, *overrides = arguments
    assert main([str(tmp_path / source), str(tmp_path / "out"), *overrides]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_the_short_name_of_the_gen1_spacing_reaches_the_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(DAVIS), str(tmp_path), "dataset=davis346", "reference_gen1_spacing=perhaps"]) == 2
    assert "dataset.preprocessing.reference_gen1_spacing" in capsys.readouterr().err


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_recordings_are_found_under_all_their_names(tmp_path: Path) -> None:
    names = ["a_td.h5", "b_td.dat.h5", "c_td.dat", "cam0.2024-05-01_td.h5", "d.raw", "e_td.aedat4"]
    touch(tmp_path / "val", *names, "a_bbox.npy", "readme.txt", "._a_td.h5", "cam0_bbox.npy")
    found = find_recordings(tmp_path)
    assert [files.events.name for files in found.recordings] == names
    assert [files.name for files in found.recordings] == ["a", "b", "c", "cam0.2024-05-01", "d", "e"]
    assert [files.boxes.name for files in found.recordings[1:4]] == [
        "b_bbox.npy", "c_bbox.npy", "cam0.2024-05-01_bbox.npy"
    ]  # fmt: skip
    assert found.faults == []
    assert found.notes == [f"{tmp_path}/val/cam0_bbox.npy: no recording lies beside it"]


def test_what_is_not_read_is_told_among_what_is(tmp_path: Path) -> None:
    names = ["a_td.h5", "a_td.dat", "b_td.bag", "c.2024.zip", "d.txt"]
    touch(tmp_path / "val", *names, *(f"{name}_bbox.npy" for name in ("a", "b", "c.2024", "d")))
    found = find_recordings(tmp_path)
    assert [files.events.name for files in found.recordings] == ["a_td.dat", "d.txt"]
    words = ["a_td.h5 and", "b_td.bag is not read, though boxes lie beside it", "c.2024.zip is not read"]
    assert len(found.faults) == len(words)
    assert all(word in str(fault) for fault, word in zip(found.faults, words, strict=True))


def test_folders_with_recordings_where_none_are_looked_for_are_told(tmp_path: Path) -> None:
    touch(tmp_path / "train", "a_td.h5", "a_bbox.npy")
    touch(tmp_path / "train" / "night", "b_td.h5", "b_bbox.npy")
    touch(tmp_path / "validation", "c_td.h5", "c_bbox.npy")
    touch(tmp_path / "tools", "readme.txt")
    found = find_recordings(tmp_path)
    assert [files.name for files in found.recordings] == ["a"]
    (beside, below) = map(str, found.faults)
    assert beside.startswith(f"{tmp_path}/validation holds c_bbox.npy and is not read")
    assert below.startswith(f"{tmp_path}/train/night holds b_bbox.npy and is not read")
