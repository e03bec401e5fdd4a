"""Behaviour of modules/reports/experiment.py: what of a run may be committed."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from config.errors import UserError
from modules.evaluation.results import write_results
from modules.reports.experiment import check_leaks, export, without_places
from tests.modules.reports.test_run_table import results, write_run
from tests.modules.reports.test_significance import validation


@pytest.fixture
def run(tmp_path: Path) -> Path:
    config = {
        "experiment": {"name": "four scales", "hypothesis": "small boxes gain by stride 4"},
        "notes": {"target": "30 AP"},
        "dataset": {"name": "gen4", "path": str(tmp_path / "data" / "etram")},
        "model": {"size": 2},
    }
    command = f"python {tmp_path}/train.py dataset.path={tmp_path}/data/etram model=a/b --config-dir='{tmp_path}/c'\n"
    path = write_run(tmp_path / "p" / "ours", config, results(0.9, best_checkpoint="best.ckpt"), command)
    (path / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    (path / "environment.json").write_text(
        json.dumps({"host": "gpu-box", "git_commit": "abc", "git_uncommitted_changes": True, "f": str(tmp_path)})
    )
    (path / "uncommitted.patch").write_text("+1\n+2\n")
    (path / "confusion_matrix").mkdir()
    (path / "confusion_matrix" / "counts.csv").write_text("a,b\n1,2\n")
    write_results(validation(0.9), path / "validation_val_best", checkpoint=str(tmp_path / "best.ckpt"))
    return path


def test_what_people_commit_tells_all_and_no_place(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "p" / "base", {"dataset": {"name": "gen4"}, "model": {"size": 1}}, results(0.3))
    write_results(validation(0.3, 1), other / "validation_val_best")
    out = tmp_path / "out"
    export(run, out, other, "https://example.org/best.ckpt", "val")
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "command.txt", "config.yaml", "confusion_matrix", "environment.json", "results.json",
        "validation.json",
    ]  # fmt: skip
    text = (out / "README.md").read_text()
    for told in (
        "# four scales", "**Hypothesis:** small boxes gain by stride 4", "- target: 30 AP", "commit abc, with",
        "2 lines", "95 % intervals over 8 sequences", "is better than", "| model.size ", "https://example.org/best.ckpt",
        "7 bytes, sha256", "dataset.path=<local>/etram model=a/b",
    ):  # fmt: skip
        assert told in text, told
    for path in out.rglob("*"):
        if path.is_file():
            assert not [word for word in (str(tmp_path), "gpu-box") if word in path.read_text()]
    assert json.loads((out / "validation.json").read_text())["checkpoint"] == "<local>/best.ckpt"
    with pytest.raises(UserError, match="not empty"):
        export(run, out, None, None, "val")


@pytest.mark.parametrize("text", ["[]", "{", "3"])
def test_a_damaged_environment_is_told(run: Path, tmp_path: Path, text: str) -> None:
    """And what the message says mends it."""
    (run / "environment.json").write_text(text)
    with pytest.raises(UserError, match=r"environment\.json is not what a run writes: .*Move it away"):
        export(run, tmp_path / "out", None, None, "val")
    (run / "environment.json").unlink()
    export(run, tmp_path / "out", None, None, "val")


def test_a_secret_ends_the_export_before_anything_is_written(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "0123456789abcdef")
    (run / "command.txt").write_text("python train.py notes.x=0123456789abcdef\n")
    with pytest.raises(UserError, match=r"would hold the secret MY_API_KEY"):
        export(run, tmp_path / "out", None, None, "val")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(platform, "node", lambda: "gpu-box")
    check_leaks("x", "on gpu-boxes")
    with pytest.raises(UserError, match="machine's name"):
        check_leaks("x", "on gpu-box.")
    with pytest.raises(UserError, match="is no run's folder"):
        export(tmp_path, tmp_path / "out", None, None, "val")


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("path=/a/b/c", "path=<local>/c"),
        ("['/a/b', \"/c\"]", "['<local>/b', \"<local>/c\"]"),
        ("file:///a/b", "<local>/b"),
        ("https://host/a/b and AP/car, 1/2, steps/s, a / b", "https://host/a/b and AP/car, 1/2, steps/s, a / b"),
        ("experiment/gen4=small ./runs ~/x", "experiment/gen4=small ./runs ~/x"),
    ],
)
def test_absolute_paths_are_cut_and_nothing_else(text: str, without: str) -> None:
    assert without_places({"a": [text], "host": "x"}) == {"a": [without]}
