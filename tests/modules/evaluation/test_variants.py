"""Behaviour of modules/evaluation/variants.py: one pass of the network under the thresholds of several protocols."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import EvaluationConfig, PostprocessConfig
from models.postprocess import postprocess
from modules.evaluation.evaluator import Evaluation
from modules.evaluation.results import read_predictions, write_results
from modules.evaluation.variants import (
    FILE,
    Variants,
    measure_protocols,
    protocols_dict,
    read_variants,
    thresholds_of,
)

OWN = PostprocessConfig(confidence_threshold=0.1, nms_threshold=0.45)
LOW = PostprocessConfig(confidence_threshold=0.001, nms_threshold=0.65)
DATASET = load_dataset_config(["dataset=gen4"])
SETTINGS = EvaluationConfig.model_validate(
    {
        "score": "product",
        "confusion_threshold": 0.25,
        "protocols": {
            "ours": {"score": "product", "confidence_threshold": 0.1, "nms_threshold": 0.45, "source": "x"},
            "low": {"score": "class", "confidence_threshold": 0.001, "nms_threshold": 0.65, "source": "y"},
            "agnostic": {
                "score": "class", "confidence_threshold": 0.001, "nms_threshold": 0.65, "source": "z",
                "class_agnostic": True, "box_filter": {"min_diagonal": 0, "min_side": 0, "skip_first_ms": 0},
            },
        },
    }
)  # fmt: skip


def network_output(frames: int = 6, anchors: int = 80) -> tuple[Tensor, Tensor]:
    """Decoded predictions that overlap, and boxes near some of them: class, centre, size."""
    draw = torch.Generator().manual_seed(1)
    boxes = torch.rand(frames, 5, generator=draw) * torch.tensor([7, 300, 200, 60, 60]) + torch.tensor(
        [0, 30, 30, 25, 25]
    )
    near = boxes.repeat_interleave(anchors // frames, 0)[None, :, 1:] + torch.randn(frames, 78, 4, generator=draw) * 4
    decoded = torch.cat([near, torch.rand(frames, 78, 9, generator=draw) ** 3], dim=2)
    return decoded, boxes


@pytest.fixture(scope="module")
def measured() -> tuple[Evaluation, Variants, dict[PostprocessConfig, Evaluation]]:
    """An evaluation with variants, and each pair of thresholds in an evaluation of its own."""
    decoded, boxes = network_output()
    alone = {pair: Evaluation(DATASET, SETTINGS, pair) for pair in (OWN, LOW)}
    evaluation, variants = Evaluation(DATASET, SETTINGS, OWN), Variants(DATASET, SETTINGS, OWN)
    for half in (slice(0, 3), slice(3, 6)):
        frames = {
            "sequence_names": ["a", "b", "a"], "t_us": torch.arange(6)[half] * 100_000 + 600_000,
            "boxes": boxes[half], "box_image": torch.arange(3), "event_count": torch.full((3,), 9),
        }  # fmt: skip

        def detect(pair: PostprocessConfig, half: slice = half) -> list[Tensor]:
            return postprocess(decoded[half], pair.confidence_threshold, pair.nms_threshold)

        evaluation.add(detections=detect(OWN), **frames)
        variants.add([detect(pair) for pair in variants.thresholds], **frames)
        for pair, each in alone.items():
            each.add(detections=detect(pair), **frames)
    return evaluation, variants, alone


def test_protocols_find_what_runs_of_their_own_would(measured, tmp_path: Path) -> None:
    evaluation, variants, alone = measured
    assert variants.thresholds == [LOW]
    frames = evaluation.gather()
    stored = variants.gather(len(frames))
    write_results(evaluation.result(), tmp_path, stored)
    again = read_predictions(tmp_path)
    read = {OWN: again, **read_variants(tmp_path, again)}
    results = measure_protocols(read, SETTINGS.protocols, DATASET, SETTINGS, "val")
    for name, result in results.items():
        protocol = SETTINGS.protocols[name]
        own = alone[thresholds_of(protocol)].gather()
        assert len(result.frames.predictions) == len(own.predictions)
        assert result.frames.predictions.xywh.tolist() == own.predictions.xywh.tolist()
        assert result.protocol["score"] == protocol.score
    assert results["low"].metrics == Evaluation.result(_with(alone[LOW], "class")).metrics
    assert results["ours"].metrics == evaluation.result().metrics
    assert results["low"].metrics["AP"] != results["ours"].metrics["AP"]
    assert results["ours"].protocol["protocols"] == ["ours"]
    told = protocols_dict(results, SETTINGS)
    assert told["agnostic"]["AP"] == results["agnostic"].metrics["AP_class_agnostic"]
    assert told["agnostic"]["protocol"]["box_filter_px"]["min_side"] == 0


def _with(evaluation: Evaluation, score: str) -> Evaluation:
    other = Evaluation(DATASET, SETTINGS.model_copy(update={"score": score}), LOW)
    other._parts = evaluation._parts
    return other


def test_thresholds_that_were_not_taken_are_refused(measured) -> None:
    frames = measured[0].gather()
    with pytest.raises(UserError, match=r"protocol low: no predictions at confidence 0.001, NMS 0.65.*Run validation"):
        measure_protocols({OWN: frames}, ["low"], DATASET, SETTINGS, "val")
    with pytest.raises(UserError, match=r"no protocol 'lwo'.*ours, low"):
        measure_protocols({OWN: frames}, ["lwo"], DATASET, SETTINGS, "val")


def test_stored_predictions_are_checked(measured, tmp_path: Path) -> None:
    evaluation, variants, _ = measured
    frames = evaluation.gather()
    assert read_variants(tmp_path, frames) == {}
    write_results(evaluation.result(), tmp_path, variants.gather(len(frames)))
    with pytest.raises(UserError, match=r"of 6 frames, frames.csv of 5"):
        read_variants(tmp_path, frames.take(np.arange(5)))
    with np.load(tmp_path / FILE) as file:
        arrays = dict(file)
    arrays["0_xywh"][0, 0] += 1
    np.savez(tmp_path / FILE, **arrays)
    with pytest.raises(UserError, match="checksum"):
        read_variants(tmp_path, frames)


def test_more_than_can_be_kept_is_none(measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.evaluation.variants.MOST_PREDICTIONS", 3)
    variants = Variants(DATASET, SETTINGS, OWN)
    for _ in range(2):
        variants.add(
            [[torch.rand(4, 7)]], sequence_names=["a"], t_us=torch.tensor([1]), boxes=torch.zeros(0, 5),
            box_image=torch.zeros(0, dtype=torch.int64), event_count=torch.tensor([1]),
        )  # fmt: skip
    assert variants.gather(1) == {}
    assert variants.too_many
