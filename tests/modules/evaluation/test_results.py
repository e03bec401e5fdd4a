"""Behaviour of modules/evaluation/results.py: what a validation leaves on disk."""

from __future__ import annotations

import contextlib
import errno
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from config.errors import UserError
from config.loading import load_dataset_config
from modules.evaluation.evaluator import EvaluationResult, measure
from modules.evaluation.results import read_predictions, read_results, write_results
from tests.evaluations import CAR, ELSEWHERE, HIT, SETTINGS, boxes_of, found, result_of


@pytest.fixture
def result() -> EvaluationResult:
    shifted = (65, 60, 140, 143, 0.8, 0.7, 1)
    return result_of(
        ("street", 600_000, boxes_of(CAR, (0, 300, 200, 40, 80)), found(HIT, ELSEWHERE)),
        ("street", 16_777_217, boxes_of(CAR), found(shifted, ELSEWHERE)),
        ("empty", 600_000, boxes_of(), found()),
        ("early", 100_000, boxes_of(CAR), found(HIT)),
    )


def test_results_json_has_figures_and_protocol(result: EvaluationResult, tmp_path: Path) -> None:
    write_results(result, tmp_path / "validation", checkpoint="last.ckpt")
    stored = json.loads((tmp_path / "validation" / "results.json").read_text())
    assert stored["checkpoint"] == "last.ckpt"
    assert stored["metrics"] == result.metrics
    assert stored["num_frames"] == 2
    assert stored["protocol"]["box_filter_px"]["min_side"] == 10
    car = stored["classes"][1]
    assert (car["name"], car["boxes"], car["missed"], car["false"]) == ("car", 2, 0, 2)
    assert car["AP"] == result.classes[1].AP
    assert [group["name"] for group in stored["groups"]] == ["small", "medium", "large"]
    assert stored["confusion_matrix"]["counts"][1][1] == 2


def test_stored_predictions_give_the_same_figures(result: EvaluationResult, tmp_path: Path) -> None:
    write_results(result, tmp_path)
    dataset = load_dataset_config(["dataset=gen4"])
    again = measure(read_predictions(tmp_path), dataset, SETTINGS, None, "val")
    assert again.metrics == result.metrics
    assert again.confusion.counts.tolist() == result.confusion.counts.tolist()
    assert again.protocol == result.protocol


def test_boxes_are_in_prophesee_s_format(result: EvaluationResult, tmp_path: Path) -> None:
    write_results(result, tmp_path)
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == {
        "street_bbox.npy", "empty_bbox.npy", "early_bbox.npy",
    }  # fmt: skip
    predictions = np.load(tmp_path / "predictions" / "street_bbox.npy")
    assert predictions.dtype.names[:8] == ("t", "x", "y", "w", "h", "class_id", "track_id", "class_confidence")
    assert predictions["t"].tolist() == [600_000, 600_000, 16_777_217, 16_777_217]
    assert [predictions[name][0] for name in "xywh"] == [60, 60, 80, 80]
    assert predictions["class_confidence"][0] == np.float32(0.9) * np.float32(0.9)
    assert predictions["class_probability"][1] == np.float32(0.95)
    truth = np.load(tmp_path / "ground_truth" / "street_bbox.npy")
    assert truth["class_id"].tolist() == [1, 0, 1]
    assert len(np.load(tmp_path / "predictions" / "early_bbox.npy")) == 1  # nothing is filtered


def test_coco_files_give_ap_in_pycocotools(result: EvaluationResult, tmp_path: Path) -> None:
    write_results(result, tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "coco" / "ground_truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "coco" / "predictions.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 0 < result.metrics["AP"] < 1
    assert evaluation.stats[0] == result.metrics["AP"]


def test_nothing_to_store_is_stored(tmp_path: Path) -> None:
    write_results(result_of(("a", 600_000, boxes_of(), found())), tmp_path)
    assert json.loads((tmp_path / "coco" / "predictions.json").read_text()) == []
    assert json.loads((tmp_path / "coco" / "ground_truth.json").read_text())["annotations"] == []
    assert len(read_predictions(tmp_path)) == 1


def test_a_full_disk_leaves_the_figures_and_no_piece(
    result: EvaluationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("modules.evaluation.results._write_coco", fail)
    with pytest.raises(OSError, match="No space"):
        write_results(result, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert read_results(tmp_path)["metrics"]["AP"] == result.metrics["AP"]


def test_missing_and_damaged_files_are_named(result: EvaluationResult, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results\.json not found"):
        read_results(tmp_path)
    with pytest.raises(UserError, match=r"frames\.csv not found"):
        read_predictions(tmp_path)
    write_results(result, tmp_path)
    (tmp_path / "predictions" / "street_bbox.npy").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"street_bbox\.npy is missing or damaged"):
        read_predictions(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json is not what validation.py writes"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("results.json", b'{"protocol": []}', "protocol"),
        ("results.json", b"[1]", "results.json"),
        ("results.json", b"\xff\xfe", "results.json"),
        ("results.json", b"[" * 100_000, "results.json"),
        ("frames.csv", b"a,b\n1,2\n", "no column 'sequence'"),
        ("frames.csv", b"sequence,t_us,event_count\nstreet,1e5,x\n", "frames.csv"),
        ("frames.csv", b"sequence,t_us,event_count\nstreet\n", "frames.csv"),
        ("frames.csv", b"sequence,t_us,event_count\n../../secret,1,1\n", "no name of a sequence"),
        ("frames.csv", b"sequence,t_us,event_count\nstreet,1,1\n", "boxes of times that frames.csv does not have"),
        ("frames.csv", b"\xff\xfe\0", "frames.csv"),
    ],
)
def test_other_peoples_results_are_checked(
    result: EvaluationResult, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    write_results(result, tmp_path)
    (tmp_path / name).write_bytes(content)
    read = read_results if name == "results.json" else read_predictions
    with pytest.raises(UserError, match=said):
        read(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("window_ms", 0), ("classes", []), ("resolution_hw", [0, 4]), ("confusion_threshold", 1e999)]
)
def test_a_protocol_that_cannot_be_is_refused(
    result: EvaluationResult, tmp_path: Path, key: str, value: object
) -> None:
    write_results(result, tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    content["protocol"][key] = value
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"protocol.{key}"):
        read_results(tmp_path)
