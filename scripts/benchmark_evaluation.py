"""Time and memory of the evaluation against pycocotools: 5,000 frames of 200 predictions, 8 classes.

    python scripts/benchmark_evaluation.py [--frames 5000] [--predictions 200]

Each runs in a process of its own; AP must come out equal to the last digit.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from modules.coco import accumulate
from modules.frames import Boxes, Predictions
from modules.matching import match

NUM_CLASSES, BOXES_PER_FRAME = 8, 8


def make_boxes(num_frames: int, num_predictions: int) -> tuple[Boxes, Predictions]:
    """Random boxes; a fifth of the predictions lie near one of them."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 500, (num_frames, BOXES_PER_FRAME, 4))
    truth[..., 2:] = rng.uniform(15, 120, truth[..., 2:].shape)
    truth_class = rng.integers(0, NUM_CLASSES, (num_frames, BOXES_PER_FRAME))
    found = rng.uniform(0, 500, (num_frames, num_predictions, 4))
    found[..., 2:] = rng.uniform(15, 120, found[..., 2:].shape)
    found_class = rng.integers(0, NUM_CLASSES, (num_frames, num_predictions))
    near = np.arange(num_predictions // 5) % BOXES_PER_FRAME
    found[:, : len(near)] = np.maximum(truth[:, near] + rng.normal(0, 6, (num_frames, len(near), 4)), 1)
    found_class[:, : len(near)] = truth_class[:, near]

    def arrays(xywh: np.ndarray, class_id: np.ndarray) -> dict[str, np.ndarray]:
        frame = np.repeat(np.arange(num_frames, dtype=np.int32), class_id.shape[1])
        flat = xywh.reshape(-1, 4).astype(np.float32)
        return {"frame": frame, "class_id": class_id.ravel().astype(np.int32), "xywh": flat}

    objectness, confidence = rng.random((2, num_frames * num_predictions), dtype=np.float32)
    return Boxes(**arrays(truth, truth_class)), Predictions(
        **arrays(found, found_class), objectness=objectness, class_confidence=confidence
    )


def ours(truth: Boxes, found: Predictions, num_frames: int) -> float:
    matches = match(
        truth.frame,
        truth.class_id,
        truth.xywh,
        found.frame,
        found.class_id,
        found.xywh,
        found.score("product"),
        NUM_CLASSES,
    )
    return accumulate(matches).summary()["AP"]


def pycocotools(truth: Boxes, found: Predictions, num_frames: int) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def dicts(boxes: Boxes) -> list[dict]:
        rows = zip(boxes.frame.tolist(), boxes.class_id.tolist(), boxes.xywh.tolist(), strict=True)
        return [{"image_id": frame, "category_id": class_id, "bbox": xywh} for frame, class_id, xywh in rows]

    annotations = [
        {**box, "id": number, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0}
        for number, box in enumerate(dicts(truth), start=1)
    ]
    scored = [{**box, "score": s} for box, s in zip(dicts(found), found.score("product").tolist(), strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number} for number in range(num_frames)],
            "categories": [{"id": number} for number in range(NUM_CLASSES)],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(scored), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def measure(function: Callable[[Boxes, Predictions, int], float], num_frames: int, num_predictions: int) -> None:
    truth, found = make_boxes(num_frames, num_predictions)
    ours(*make_boxes(2, 2), 2)  # compiles
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    ap = function(truth, found, num_frames)
    seconds = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{function.__name__:<12}{seconds:8.2f} s   peak {peak_mb:6.0f} MB (+{peak_mb - before_mb:.0f})   AP {ap!r}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--predictions", type=int, default=200)
    arguments = parser.parse_args()
    for function in (ours, pycocotools):
        process = multiprocessing.get_context("spawn").Process(
            target=measure, args=(function, arguments.frames, arguments.predictions)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
