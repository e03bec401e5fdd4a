"""Evaluation results on disk: enough for anyone to check AP with a tool of their own, and to remake every figure.

    results.json                  metrics, classes, groups, confusion matrix, protocol
    predictions/NAME_bbox.npy     every prediction of a sequence, Prophesee box format, not filtered
    ground_truth/NAME_bbox.npy    every box of its labelled frames, in the same format
    frames.csv                    every labelled frame: sequence, t_us, event_count
    other_thresholds.npz          predictions under the thresholds of other protocols, `modules.evaluation.variants`
    coco/{predictions,ground_truth}.json   after the box filter, as COCO's tools expect them

`class_confidence` of stored predictions is the score that ranks them (`protocol.score`); `objectness` and
`class_probability` are the two factors.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import (
    IO,
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic asks for it before Python 3.12
)

import numpy as np
from numpy import ndarray
from pydantic import Field, FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from config.errors import UserError
from data.arrays import read_npy
from data.boxes import BOX_DTYPE, PREDICTION_DTYPE
from modules.evaluation.evaluator import ClassFigures, EvaluationResult, SequenceFigures
from modules.evaluation.labelled_frames import AnyBoxes, Boxes, LabelledFrames, Predictions
from modules.evaluation.protocol import apply_box_filter, box_filter_of
from modules.evaluation.variants import FILE, Stored, write_variants

_FOLDERS = ("predictions", "ground_truth", "coco")


def results_dict(result: EvaluationResult) -> dict[str, Any]:
    """What an evaluation found, as plain JSON values."""
    return {
        "metrics": result.metrics,
        "classes": [asdict(figures) for figures in result.classes],
        "groups": [asdict(figures) for figures in result.groups],
        "sequences": [asdict(figures) for figures in result.sequences],
        "confusion_matrix": {
            "labels": list(result.confusion.labels),
            "threshold": result.confusion.threshold,
            "counts": result.confusion.counts.tolist(),
        },
        "num_frames": result.num_frames,
        "protocol": result.protocol,
    }


def write_results(result: EvaluationResult, folder: Path, variants: Stored | None = None, **more: Any) -> None:
    """Write results.json with `more` keys, all predictions and those of `variants` to a folder, which is made.

    The figures first: an OSError, of a full disk, that comes later leaves them, and no piece of the predictions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, text = folder / "results.json", json.dumps({**more, **results_dict(result)}, indent=2) + "\n"
    try:
        path.write_text(text)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    try:
        write_predictions(result, folder)
        write_variants(variants or {}, folder)
    except OSError:
        for name in ("frames.csv", FILE):
            (folder / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
        raise


def write_predictions(result: EvaluationResult, folder: Path) -> None:
    """Write predictions, ground truth and frames: one file a sequence, and COCO's JSON."""
    frames, score = result.frames, result.protocol["score"]
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(frames.sequence_names):
        for kind, boxes in (("ground_truth", frames.truth), ("predictions", frames.predictions)):
            own = boxes.rows(frames.sequence[boxes.frame] == index)
            np.save(folder / kind / f"{name}_bbox.npy", _structured(own, frames.t_us, score))
    with (folder / "frames.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sequence", "t_us", "event_count"])
        names = (frames.sequence_names[index] for index in frames.sequence)
        writer.writerows(zip(names, frames.t_us.tolist(), frames.event_count.tolist(), strict=True))
    _write_coco(result, folder / "coco")


def _structured(boxes: Boxes, t_us: ndarray, score: str) -> ndarray:
    array = np.zeros(len(boxes), PREDICTION_DTYPE if isinstance(boxes, Predictions) else BOX_DTYPE)
    array["t"], array["class_id"], array["class_confidence"] = t_us[boxes.frame], boxes.class_id, 1
    array["x"], array["y"], array["w"], array["h"] = boxes.xywh.T
    if isinstance(boxes, Predictions):
        array["class_confidence"] = boxes.score(score)
        array["objectness"], array["class_probability"] = boxes.objectness, boxes.class_confidence
    return array


def _write_coco(result: EvaluationResult, folder: Path) -> None:
    """COCO's two files of the frames and boxes that AP is measured on; ids count from 1."""
    protocol = result.protocol
    kept = apply_box_filter(result.frames, box_filter_of(protocol))
    height, width = protocol["resolution_hw"]
    images = (
        {
            "id": number + 1,
            "file_name": f"{kept.sequence_names[kept.sequence[number]]}/{t_us}",
            "height": height,
            "width": width,
        }
        for number, t_us in enumerate(kept.t_us.tolist())
    )
    truth = (
        {**box, "id": number, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0}
        for number, box in enumerate(_coco_boxes(kept.truth), start=1)
    )
    scores = kept.predictions.score(protocol["score"]).tolist()
    found = ({**box, "score": score} for box, score in zip(_coco_boxes(kept.predictions), scores, strict=True))
    categories = [{"id": number, "name": name} for number, name in enumerate(protocol["classes"], start=1)]
    with (folder / "ground_truth.json").open("w") as file:
        file.write('{"categories": ' + json.dumps(categories) + ',\n"images": ')
        _write_list(file, images)
        file.write(',\n"annotations": ')
        _write_list(file, truth)
        file.write("}\n")
    with (folder / "predictions.json").open("w") as file:
        _write_list(file, found)


def _coco_boxes(boxes: Boxes) -> Iterable[dict[str, Any]]:
    for frame, class_id, xywh in zip(boxes.frame, boxes.class_id, boxes.xywh, strict=True):
        yield {"image_id": int(frame) + 1, "category_id": int(class_id) + 1, "bbox": xywh.tolist()}


def _write_list(file: IO[str], items: Iterable[dict[str, Any]]) -> None:
    """One item a line, never all of them in memory."""
    separator = "[\n"
    for item in items:
        file.write(separator + json.dumps(item))
        separator = ",\n"
    file.write("[]" if separator == "[\n" else "\n]")


Side = Annotated[int, Field(gt=0, lt=2**16)]


class StoredBoxFilter(TypedDict):
    min_diagonal: FiniteFloat
    min_side: FiniteFloat
    skip_first_ms: FiniteFloat


class StoredProtocol(TypedDict):
    """What is read of a results.json's protocol; `modules.evaluation.protocol` writes it."""

    dataset: str
    split: str
    classes: Annotated[list[str], Field(min_length=1)]
    window_ms: Annotated[int, Field(gt=0, lt=2**31)]
    resolution_hw: tuple[Side, Side]
    sensor_hw: NotRequired[tuple[Side, Side]]  # as the two below, not in results of older versions
    compares_with: NotRequired[str | None]
    protocols: NotRequired[list[str]]
    only: NotRequired[list[str]]  # sequences of the split; none: all
    box_filter_px: StoredBoxFilter
    score: Literal["product", "class"]
    confidence_threshold: float | None
    nms_threshold: float | None
    confusion_threshold: FiniteFloat
    labelled_frames: NonNegativeInt
    evaluated_frames: NonNegativeInt
    metrics: dict[str, str]


class StoredResults(TypedDict):
    """What is read of a validation's results.json, which may come from somebody else."""

    checkpoint: NotRequired[str]
    protocol: StoredProtocol
    checkpoint: NotRequired[str]
    weights_key: NotRequired[str | None]  # of several sets of weights in it
    metrics: dict[str, float]
    classes: list[ClassFigures]
    groups: list[ClassFigures]
    sequences: NotRequired[list[SequenceFigures]]


def read_results(folder: Path) -> StoredResults:
    """The content of results.json."""
    path = folder / "results.json"
    try:
        return TypeAdapter(StoredResults).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} not found. Give the folder of a validation, or run validation.py first") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        fault = f"{'.'.join(map(str, first['loc'])) or 'not JSON'}: {first['msg']}"
        raise UserError(f"{path} is not what validation.py writes ({fault}). Run validation.py again") from error


def read_predictions(folder: Path) -> LabelledFrames:
    """Frames, ground truth and predictions that `write_predictions` stored."""
    path = folder / "frames.csv"
    if not path.is_file():
        raise UserError(f"{path} not found: no stored predictions here. Run validation.py, which stores them")
    try:
        with path.open(newline="") as file:
            rows = [(row["sequence"], int(row["t_us"]), int(row["event_count"])) for row in csv.DictReader(file)]
        names = tuple(dict.fromkeys(name for name, _, _ in rows))
        strange = [name for name in names if Path(name).name != name]
        if strange:
            raise ValueError(f"{strange[0]!r} is no name of a sequence")
        numbers = {name: index for index, name in enumerate(names)}
        sequence = np.array([numbers[name] for name, _, _ in rows], np.int32)
        t_us = np.array([t for _, t, _ in rows], np.int64)
        event_count = np.array([count for _, _, count in rows], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error, OSError) as error:
        fault = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} cannot be read ({fault}). Run validation.py again") from error
    truth, predictions = [], []
    for index, name in enumerate(names):
        frames = np.flatnonzero(sequence == index)
        truth.append(_boxes(folder / "ground_truth" / f"{name}_bbox.npy", Boxes, frames, t_us))
        predictions.append(_boxes(folder / "predictions" / f"{name}_bbox.npy", Predictions, frames, t_us))
    return LabelledFrames(
        names, sequence, t_us, event_count, Boxes.concatenate(truth), Predictions.concatenate(predictions)
    )


def _boxes(path: Path, kind: type[AnyBoxes], frames: ndarray, t_us: ndarray) -> AnyBoxes:
    """Boxes of one sequence; `frames` are the indices of its frames, in the order of time."""
    array, dtype = read_npy(path, "Run validation.py again"), PREDICTION_DTYPE if kind is Predictions else BOX_DTYPE
    if array.dtype != dtype or array.ndim != 1:
        raise UserError(f"{path} holds {array.dtype} {array.shape}, not boxes. Run validation.py again")
    place = np.searchsorted(t_us[frames], array["t"])
    if not np.array_equal(t_us[frames][np.minimum(place, len(frames) - 1)], array["t"]):
        raise UserError(f"{path} has boxes of times that frames.csv does not have. Run validation.py again")
    xywh = np.column_stack([array[name] for name in "xywh"])
    confidences = {}
    if kind is Predictions:
        confidences = {"objectness": array["objectness"], "class_confidence": array["class_probability"]}
    return kind(frames[place].astype(np.int32), array["class_id"].astype(np.int32), xywh, **confidences)
