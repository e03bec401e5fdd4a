from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.schema import EarlyStoppingConfig
from modules.early_stopping import reason_to_stop
from modules.evaluation.evaluator import Evaluation, EvaluationResult
from tests.runs import Start, run_folder


@pytest.mark.parametrize(
    ("values", "min_delta", "stops"),
    [
        ([0.1, 0.2, 0.2, 0.1], 0.0, True),
        ([0.1, 0.2, 0.2, 0.21], 0.0, False),
        ([0.1, 0.2, 0.2, 0.21], 0.02, True),
        ([0.2, 0.3, 0.1], 0.0, False),
        ([0.2, -1.0, -1.0, 0.1], 0.0, False),  # -1: no labelled boxes
        ([-1.0, -1.0, -1.0], 0.0, False),
        ([0.0, 0.0, 0.0], 0.0, True),
        ([], 0.0, False),
    ],
)
def test_two_validations_without_a_gain_end_the_run(values: list[float], min_delta: float, stops: bool) -> None:
    history = [{"step": 10 * number, "AP": 0.5, "AP_50": value} for number, value in enumerate(values)]
    config = EarlyStoppingConfig(patience=2, min_delta=min_delta, metric="AP_50")
    assert (reason_to_stop(history, config) is not None) == stops
    assert reason_to_stop(history, config.model_copy(update={"patience": None})) is None


def test_a_run_stops_early_also_after_a_resume(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Validations at steps 2, 4, 6 with AP 0.5, 0.4, 0.3: the third is the second without a gain."""
    figures, original = iter([0.5, 0.4, 0.3, 0.2, 0.1]), Evaluation.result

    def result(self: Evaluation, split: str) -> EvaluationResult:
        found = original(self, split)
        found.metrics["AP"] = next(figures)
        return found

    monkeypatch.setattr(Evaluation, "result", result)
    options = ("validation.val_check_interval=2", "training.early_stopping.patience=2")
    assert start(*options, "training.max_steps=4", "training.lr_scheduler.total_steps=100") == 0
    assert start(*options, "training.max_steps=100", "resume=latest") == 0
    results = json.loads((run_folder(tmp_path) / "results.json").read_text())
    assert (results["status"], results["steps"]) == ("finished early", 6)
    printed = capsys.readouterr().out
    assert "Finished early:   val/AP has not risen for 2 validations, since 0.5000 at step 2" in printed

    assert start(*options, "training.max_steps=100", "resume=latest") == 0
    assert "training.early_stopping.patience=null" in capsys.readouterr().out
    longer = ("validation.val_check_interval=2", "training.early_stopping.patience=3", "training.max_steps=100")
    assert start(*longer, "resume=latest") == 0
    assert json.loads((run_folder(tmp_path) / "results.json").read_text())["steps"] == 8
