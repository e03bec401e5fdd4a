"""Behaviour of modules/reports/significance.py and of what scripts/compare_runs.py and report.py say with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from models.weights.search import LAST_STEP
from modules.evaluation.evaluator import EvaluationResult
from modules.evaluation.results import write_results
from modules.reports.run_table import read_run
from modules.reports.significance import compare_groups, difference_rows, group_runs, group_table
from scripts.compare_runs import differences
from scripts.report import write_report
from tests.evaluations import boxes_of, found, result_of
from tests.modules.reports.test_run_table import results, write_run

NAMES = [f"street_{number}" for number in range(8)]


def validation(share: float, seed: int = 0, names: list[str] = NAMES) -> EvaluationResult:
    """Frames of cars of which a share is found, and as many false detections of low score."""
    rng = np.random.default_rng(seed)
    frames = []
    for name in names:
        for number in range(6):
            hit = (60, 60, 140, 140, 0.9, rng.uniform(0.5, 1), 1)
            false = (300, 200, 380, 280, 0.5, rng.uniform(0.1, 0.4), 1)
            seen = found(false, hit) if rng.random() < share else found(false)
            frames.append((name, 600_000 + number * 100_000, boxes_of((1, 100, 100, 80, 80)), seen))
    return result_of(*frames)


def run_of(folder: Path, share: float, seed: int, **config: object):
    tree = {"reproduce": {"seed_everything": seed}, "hardware": {"gpus": seed}, **config}
    path = write_run(folder, tree, results(share))
    write_results(validation(share, seed), path / "validation_val_last")
    return read_run(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list:
    folder = tmp_path_factory.mktemp("runs") / "p"
    bad = [run_of(folder / f"bad{seed}", 0.3, seed, model={"size": 1}) for seed in (1, 2, 3)]
    good = [run_of(folder / f"good{seed}", 0.9, seed, model={"size": 2}) for seed in (4, 5)]
    also = [run_of(folder / "also", 0.9, 6, model={"size": 3})]
    return [*bad, *good, *also]


def test_runs_that_differ_in_the_seed_are_one_row(runs) -> None:
    groups, notes = group_runs(runs)
    assert notes == []
    rows = group_table(groups).rows
    assert [(row[3], row[4]) for row in rows] == [(3, "1, 2, 3"), (2, "4, 5"), (1, "6")]
    first = [validation(0.3, seed).metrics["AP"] for seed in (1, 2, 3)]
    assert rows[0][1] == pytest.approx(np.mean(first))
    assert rows[0][2] == pytest.approx(np.std(first, ddof=1))
    assert rows[2][2] is None


def test_an_interval_does_not_depend_on_the_order_of_the_folders(runs) -> None:
    bad, good = runs[:3], runs[3:5]
    assert compare_groups(*group_runs([*bad, *good])[0]) == compare_groups(*group_runs([*bad[::-1], *good[::-1]])[0])


def test_a_real_difference_is_told_and_another_is_not(runs) -> None:
    text = differences(runs, None, "val", "text")
    lines = [line for line in text.splitlines() if "AP (95 %" in line]
    assert len(lines) == 3
    assert "is worse than" in lines[0]
    assert "is worse than" in lines[1]
    assert "not distinguishable with this data" in lines[2]
    assert "One seed of" in lines[2]
    assert "One seed of" not in lines[0]
    assert "3 comparisons" in text
    against = difference_rows(group_runs(runs)[0], "p/also")
    assert len([line for line in against if "95 % interval" in line]) == 2
    with pytest.raises(UserError, match=r"--baseline other: no such config or run"):
        difference_rows(group_runs(runs)[0], "other")


def test_what_cannot_be_compared_says_why(runs, tmp_path: Path) -> None:
    path = write_run(tmp_path / "p" / "elsewhere", {"model": {"size": 4}}, results(0.5))
    bare = read_run(path)
    (none,), notes = group_runs([bare])
    assert "no stored predictions of the val split" in notes[0]
    groups, _ = group_runs(runs)
    assert compare_groups(none, groups[0]) == "no stored predictions of all runs"
    write_results(validation(0.5, names=NAMES[:3]), path / "validation_val_x")
    assert compare_groups(group_runs([bare])[0][0], groups[0]) == "measured on other sequences"
    write_results(validation(0.5, names=NAMES[:1]), path / "validation_val_x")
    (single,), _ = group_runs([bare])
    assert "no interval can be had" in str(compare_groups(single, single))


def stated(run, **protocol: object) -> None:
    """Change what a run's stored validation says of itself."""
    path = next(run.folder.glob("*/results.json"))
    content = json.loads(path.read_text())
    content["protocol"] |= protocol
    path.write_text(json.dumps(content))


def test_figures_of_other_boxes_are_not_compared(runs, tmp_path: Path) -> None:
    one, other = (run_of(tmp_path / "p" / name, 0.3, 1, model={"size": name}) for name in "ab")

    def told() -> str:
        return str(compare_groups(*group_runs([one, other])[0]))

    assert compare_groups(*group_runs([one, other])[0]).p_value == 1  # the same predictions
    stated(other, box_filter_px={"min_diagonal": 3, "min_side": 3, "skip_first_ms": 500})
    assert "dataset.eval.box_filter.min_diagonal=60 and 6" in told()
    stated(other, box_filter_px={"min_diagonal": 30, "min_side": 10, "skip_first_ms": 500})
    assert not isinstance(compare_groups(*group_runs([one, other])[0]), str)
    for path in other.folder.glob("*/ground_truth/*.npy"):  # as many boxes, of another class
        boxes = np.load(path)
        boxes["class_id"] = 3
        np.save(path, boxes)
    assert told() == "measured on other ground truth"
    larger = {"min_diagonal": 45, "min_side": 15, "skip_first_ms": 500}
    stated(other, resolution_hw=[540, 960], box_filter_px=larger)  # where boxes are rounded otherwise
    assert told() == "measured on other ground truth"


def test_a_mean_is_of_what_belongs_together(tmp_path: Path) -> None:
    one, copy, again, other = (
        run_of(tmp_path / "p" / name, 0.3, seed) for name, seed in (("a", 1), ("copy", 1), ("again", 1), ("b", 2))
    )
    write_results(validation(0.3, 9), next(again.folder.glob("*/results.json")).parent)
    (group,), notes = group_runs([one, copy, again, other])
    assert [run.name for run in group.runs] == ["p/a", "p/again", "p/b"]
    assert any("p/copy repeats p/a" in note for note in notes)
    (_, alone), _ = group_runs([run_of(tmp_path / "p" / "c", 0.5, 1, model={"size": 9}), one, again])
    assert "One seed of" in difference_rows([group, alone], None)[0]
    stated(other, score="class")
    (group,), notes = group_runs([one, other])
    assert group.measured == []
    assert "p/a, p/b are of one config, but measured with evaluation.score" in notes[0]
    broken = write_run(tmp_path / "p" / "broken", {"model": {"size": 5}}, {**results(0.1), "status": "CUDA error"})
    write_results(validation(0.3, 3), broken / "validation_val")
    assert group_runs([read_run(broken)])[1] == ["p/broken: no finished run (CUDA error), of 1000 steps"]


def test_a_report_has_the_interval_of_each_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(validation(0.5), tmp_path / "many")
    write_report(tmp_path / "many")
    told = capsys.readouterr().out
    assert "95 % intervals over 8 sequences" in told
    lines = (tmp_path / "many" / "report" / "intervals.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["all", "car"]
    estimate, low, high = map(float, lines[1].split(",")[2:5])
    assert low < estimate < high
    write_results(validation(0.5, names=NAMES[:1]), tmp_path / "one")
    write_report(tmp_path / "one")
    assert "fewer than two sequences with ground truth: no interval can be had" in capsys.readouterr().out


def test_figures_under_other_thresholds_are_not_compared(runs, tmp_path: Path) -> None:
    """Their differences, of points, are not those of the networks."""
    other = read_run(write_run(tmp_path / "p" / "other", {"model": {"size": 4}}, results(0.9)))
    result = validation(0.9)
    result.protocol["confidence_threshold"] = 0.1
    write_results(result, other.folder / "validation_val_last")
    groups, notes = group_runs([runs[-1], other])
    assert notes == []
    said = str(compare_groups(*groups))
    assert "model.postprocess.confidence_threshold=None and 0.1" in said
    result.protocol["confidence_threshold"] = None
    write_results(result, other.folder / "validation_val_last")
    assert not isinstance(compare_groups(*group_runs([runs[-1], other])[0]), str)


def test_seeds_under_other_thresholds_are_no_mean(tmp_path: Path) -> None:
    members = [run_of(tmp_path / "p" / str(seed), 0.9, seed, model={"size": 1}) for seed in (1, 2)]
    result = validation(0.9)
    result.protocol["nms_threshold"] = 0.65
    write_results(result, members[0].folder / "validation_val_last")
    (group,), notes = group_runs(members)
    assert "p/1, p/2 are of one config, but measured with model.postprocess.nms_threshold=0.65 and None" in notes[0]
    assert group_table([group]).rows[0][-1] == "best in training"


def test_which_weights_and_checkpoints_were_measured_is_told(tmp_path: Path) -> None:
    for name, checkpoint, key in (("a", "epoch=001-step=9-val_AP=0.30.ckpt", None), ("b", "last_x.ckpt", LAST_STEP)):
        path = write_run(tmp_path / "p" / name, {"experiment": {"name": name}, "model": {"size": name}}, results(0.9))
        write_results(validation(0.9), path / "validation_val_x", checkpoint=checkpoint, weights_key=key)
    text = differences([read_run(tmp_path / "p" / name) for name in "ab"], None, "val", "text")
    assert "stored, 8 sequences, best checkpoint\n" in text
    assert f"a: best checkpoint; b: last checkpoint, weights_key={LAST_STEP}, which may be all of it" in text
