import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/make_toy_dataset.py"
TINY = ["--size", "120x160", "--seconds", "1", "--train", "2", "--val", "1", "--test", "1"]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sets") / "toy set"
    done = make(str(out), *TINY)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 recordings" in done.stdout
    return out


def test_the_set_has_pairs_of_events_and_boxes_per_split_and_nothing_else(toy: Path) -> None:
    files = sorted(str(path.relative_to(toy)) for path in toy.rglob("*") if path.is_file())
    names = ["test/street_test_000", "train/street_train_000", "train/street_train_001", "val/street_val_000"]
    assert files == sorted([f"{name}{end}" for name in names for end in ("_bbox.npy", "_td.h5")] + ["toy_dataset.json"])
    assert [path.name for path in toy.parent.iterdir()] == [toy.name]


def test_splits_have_different_scenes(toy: Path) -> None:
    boxes = [np.load(path) for path in (toy / "train/street_train_000_bbox.npy", toy / "val/street_val_000_bbox.npy")]
    assert not np.array_equal(*boxes)


def test_a_complete_set_is_left_alone(toy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in toy.rglob("*")}
    done = make(str(toy), *TINY)
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in toy.rglob("*")} == before


def test_a_folder_with_anything_else_is_refused(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for out, options in ((toy, [*TINY, "--seed", "1"]), (tmp_path, TINY)):
        done = make(str(out), *options)
        assert done.returncode == 2
        assert str(out) in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("options", [["--size", "640"], ["--full", "--size", "360x640"], ["--seconds", "0"]])
def test_wrong_options_end_with_a_message(tmp_path: Path, options: list[str]) -> None:
    done = make(str(tmp_path / "toy"), *options)
    assert done.returncode == 2
    assert options[0] in done.stderr
