"""Behaviour of scripts/report.py."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from config.errors import UserError
from modules.evaluation.results import write_results
from scripts.report import find_validation, write_report
from tests.evaluations import CAR, ELSEWHERE, HIT, boxes_of, found, result_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two validations, the second one newer."""
    folder = tmp_path_factory.mktemp("run")
    result = result_of(("a", 600_000, boxes_of(CAR, (0, 300, 200, 40, 80)), found(HIT, ELSEWHERE)))
    write_results(result, folder / "validation_val")
    shutil.copytree(folder / "validation_val", folder / "validation_test")
    os.utime(folder / "validation_val" / "frames.csv", (1, 1))
    return folder


def test_newest_validation_of_a_run_is_taken(run: Path) -> None:
    assert find_validation(run) == run / "validation_test"
    assert find_validation(run / "validation_val") == run / "validation_val"


def test_report_has_tables_and_figures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(run / "validation_val")
    report = run / "validation_val" / "report"
    text = (report / "report.md").read_text()
    for title in ("Metrics", "Classes", "Class groups", "Recall by box size", "AP by time", "AP by event rate"):
        assert f"### {title}" in text
        assert title in capsys.readouterr().out or title != "Metrics"
    assert "side ≥ 10 px, diagonal ≥ 30 px, later than 500 ms, at 640 x 360" in text
    assert "| wheelchair |" in text
    assert (report / "report.png").stat().st_size > 10_000
    assert (report / "precision_recall.csv").read_text().startswith("recall,pedestrian,car\n")


def test_report_of_a_run_with_stages_has_their_lines(run: Path, tmp_path: Path) -> None:
    staged = shutil.copytree(run, tmp_path / "staged")
    ended = {"stage": 1, "first_step": 0, "last_step": 60, "frame_hw": [180, 320], "checkpoint": "s.ckpt", "AP": 0.2}
    ended |= {"at_last_stage": {"AP": 0.1}, "last_stage_frame_hw": [360, 640]}
    (staged / "results.json").write_text(json.dumps({"stages": [ended]}))
    (staged / "config.yaml").touch()
    write_report(staged / "validation_val")
    text = (staged / "validation_val" / "report" / "report.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("|     1 |"))
    assert [cell.strip() for cell in line.split("|")[2:-1]] == [
        "0 to 60", "180 x 320", "0.2000", "0.1000", "360 x 640", "s.ckpt",
    ]  # fmt: skip
    assert "at 640 x 360, in pixels of these frames; the sensor has 1280 x 720" in text
    assert "side in px of the frame" in text


def test_report_without_ground_truth(tmp_path: Path) -> None:
    write_results(result_of(("a", 600_000, boxes_of(), found(HIT))), tmp_path)
    write_report(tmp_path)
    assert (tmp_path / "report" / "report.png").is_file()


def test_folder_without_predictions_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no stored predictions"):
        find_validation(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        find_validation(tmp_path / "nowhere")


def test_what_lies_in_the_way_is_replaced_and_no_link_is_followed(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "validation"
    shutil.copytree(run / "validation_val", folder)
    shutil.rmtree(folder / "report", ignore_errors=True)
    (folder / "report").symlink_to(tmp_path)
    with pytest.raises(UserError, match="is a link"):
        write_report(folder)
    (folder / "report").unlink()
    (folder / "report").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(folder)
    (folder / "report").unlink()
    (folder / "report").mkdir()
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (folder / "report" / "report.md").symlink_to(precious)
    os.link(precious, folder / "report" / "report.png")
    os.mkfifo(folder / "report" / "metrics.csv")
    write_report(folder)
    assert precious.read_text() == "kept"
    assert (folder / "report" / "metrics.csv").is_file()
