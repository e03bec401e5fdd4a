"""COCO AP of many predictions, by pycocotools and by ours; both must give the same figure to the last digit."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from modules.evaluation.coco import accumulate
from modules.evaluation.intervals import resample_weights
from modules.evaluation.labelled_frames import Boxes, Predictions
from modules.evaluation.matching import Matches, match
from modules.evaluation.weighted import WeightedAp, mean_over_classes
from scripts.benchmarks.measuring import Measure, Remote, Row, alternate, peak_mb

NUM_CLASSES, BOXES_PER_FRAME, PREDICTIONS_PER_FRAME = 8, 8, 200


def evaluate(rounds: int, num_frames: int) -> list[Row]:
    """Seconds and memory from boxes in arrays to AP."""
    note = f"{num_frames:,} frames of {PREDICTIONS_PER_FRAME} predictions"
    truth, found = make_boxes(num_frames)
    assert ours(truth, found, num_frames) == pycocotools(truth, found, num_frames)
    ways = {"ours": ours, "plain": pycocotools}
    seconds = alternate({name: _timed(way, truth, found, num_frames) for name, way in ways.items()}, rounds)
    megabytes = {}
    for name, way in ways.items():
        remote = Remote(megabytes_of, way, num_frames)
        megabytes[name] = [remote()]
        remote.close()
    return [
        Row("evaluation", "s", seconds["ours"], seconds["plain"], target=">= 3 x", note=note),
        Row("evaluation, memory", "MB", megabytes["ours"], megabytes["plain"]),
        resampling(rounds, 5_000 * num_frames // 2_000),
    ]


def resampling(rounds: int, num_frames: int) -> Row:
    """Seconds of AP over 1,000 resamples of 50 sequences, matching included."""
    truth, found = make_boxes(num_frames)
    sequence = np.arange(num_frames) * 50 // num_frames

    def measure() -> float:
        started = time.perf_counter()
        weighted = WeightedAp.of(_matches(truth, found), sequence, 50)
        mean_over_classes(weighted(resample_weights(50)))
        return time.perf_counter() - started

    note = f"{num_frames:,} frames of {PREDICTIONS_PER_FRAME} predictions"
    return Row("AP of 1,000 resamples", "s", [measure() for _ in range(rounds)], target="< 60 s", note=note)


def make_boxes(num_frames: int) -> tuple[Boxes, Predictions]:
    """Random boxes; a fifth of the predictions lie near one of them."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 500, (num_frames, BOXES_PER_FRAME, 4))
    truth[..., 2:] = rng.uniform(15, 120, truth[..., 2:].shape)
    truth_class = rng.integers(0, NUM_CLASSES, (num_frames, BOXES_PER_FRAME))
    found = rng.uniform(0, 500, (num_frames, PREDICTIONS_PER_FRAME, 4))
    found[..., 2:] = rng.uniform(15, 120, found[..., 2:].shape)
    found_class = rng.integers(0, NUM_CLASSES, (num_frames, PREDICTIONS_PER_FRAME))
    near = np.arange(PREDICTIONS_PER_FRAME // 5) % BOXES_PER_FRAME
    found[:, : len(near)] = np.maximum(truth[:, near] + rng.normal(0, 6, (num_frames, len(near), 4)), 1)
    found_class[:, : len(near)] = truth_class[:, near]

    def arrays(xywh: np.ndarray, class_id: np.ndarray) -> dict[str, np.ndarray]:
        frame = np.repeat(np.arange(num_frames, dtype=np.int32), class_id.shape[1])
        flat = xywh.reshape(-1, 4).astype(np.float32)
        return {"frame": frame, "class_id": class_id.ravel().astype(np.int32), "xywh": flat}

    objectness, confidence = rng.random((2, num_frames * PREDICTIONS_PER_FRAME), dtype=np.float32)
    return Boxes(**arrays(truth, truth_class)), Predictions(
        **arrays(found, found_class), objectness=objectness, class_confidence=confidence
    )


def ours(truth: Boxes, found: Predictions, num_frames: int) -> float:
    return accumulate(_matches(truth, found)).summary()["AP"]


def _matches(truth: Boxes, found: Predictions) -> Matches:
    return match(
        truth.frame,
        truth.class_id,
        truth.xywh,
        found.frame,
        found.class_id,
        found.xywh,
        found.score("product"),
        NUM_CLASSES,
    )


def pycocotools(truth: Boxes, found: Predictions, num_frames: int) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def dicts(boxes: Boxes) -> list[dict[str, Any]]:
        rows = zip(boxes.frame.tolist(), boxes.class_id.tolist(), boxes.xywh.tolist(), strict=True)
        return [{"image_id": frame, "category_id": class_id, "bbox": xywh} for frame, class_id, xywh in rows]

    annotations = [
        {**box, "id": number, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0}
        for number, box in enumerate(dicts(truth), start=1)
    ]
    scored = [{**box, "score": s} for box, s in zip(dicts(found), found.score("product").tolist(), strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        dataset: Any = {
            "images": [{"id": number} for number in range(num_frames)],
            "categories": [{"id": number} for number in range(NUM_CLASSES)],
            "annotations": annotations,
        }
        coco.dataset = dataset
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(scored), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def megabytes_of(way: Callable[[Boxes, Predictions, int], float], num_frames: int) -> Measure:
    """In a process of its own."""
    truth, found = make_boxes(num_frames)
    way(*make_boxes(2), 2)  # imports and compiles
    return lambda: peak_mb(lambda: way(truth, found, num_frames))


def _timed(way: Callable[[Boxes, Predictions, int], float], *arguments: Any) -> Measure:
    def measure() -> float:
        started = time.perf_counter()
        way(*arguments)
        return time.perf_counter() - started

    return measure
