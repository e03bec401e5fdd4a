"""One pass of the network measured as several projects measure: predictions under each of their thresholds.

What suppression leaves under one pair of thresholds cannot be had from what it leaves under another, so predictions are
taken under each pair that a protocol names while the network runs, and stored: `other_thresholds.npz`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from config.errors import UserError
from config.schema import DatasetConfig, EvaluationConfig, PostprocessConfig, ProtocolConfig
from data.arrays import read_npz, reading
from modules.evaluation.evaluator import Evaluation, EvaluationResult, measure
from modules.evaluation.labelled_frames import LabelledFrames, Predictions

FILE = "other_thresholds.npz"
MOST_PREDICTIONS = 20_000_000  # of one process and pair, half a gigabyte: more only an untrained network gives
_AGAIN = "Run validation.py again"
_COLUMNS = ("class_id", "xywh", "objectness", "class_confidence")

Stored = Mapping[PostprocessConfig, LabelledFrames]


def thresholds_of(protocol: ProtocolConfig) -> PostprocessConfig:
    return PostprocessConfig(confidence_threshold=protocol.confidence_threshold, nms_threshold=protocol.nms_threshold)


class Variants:
    """Collects the frames of a validation once more for each pair of thresholds that is not the config's own."""

    def __init__(self, dataset: DatasetConfig, settings: EvaluationConfig, own: PostprocessConfig) -> None:
        pairs = dict.fromkeys(thresholds_of(protocol) for protocol in settings.protocols.values())
        self.thresholds = [pair for pair in pairs if pair != own]
        self._evaluations = [Evaluation(dataset, settings, pair) for pair in self.thresholds]
        self._count = [0] * len(self.thresholds)
        self.too_many = False

    def add(self, detections: Sequence[Sequence[Tensor]], **frames: Any) -> None:
        """`detections` of each pair; `frames` as `Evaluation.add` takes them."""
        for index, (evaluation, found) in enumerate(zip(self._evaluations, detections, strict=True)):
            self._count[index] += sum(map(len, found))
            if self._count[index] > MOST_PREDICTIONS:
                evaluation.reset()
            else:
                evaluation.add(detections=found, **frames)

    def gather(self, num_frames: int) -> Stored:
        """All ranks' frames by thresholds; none where a rank had too many predictions to keep."""
        frames = {pair: each.gather() for pair, each in zip(self.thresholds, self._evaluations, strict=True)}
        self.too_many = any(len(each) != num_frames for each in frames.values())
        return {} if self.too_many else frames


def measure_protocols(
    stored: Stored, names: Iterable[str], dataset: DatasetConfig, settings: EvaluationConfig, split: str
) -> dict[str, EvaluationResult]:
    """What each protocol finds on one pass of the network. Raises UserError where its thresholds were not taken."""
    results = {}
    for name in names:
        protocol = settings.protocols.get(name)
        if protocol is None:
            raise UserError(f"no protocol {name!r}. evaluation.protocols has: {', '.join(settings.protocols)}")
        pair = thresholds_of(protocol)
        if pair not in stored:
            raise UserError(
                f"protocol {name}: no predictions at confidence {pair.confidence_threshold:g}, NMS "
                f"{pair.nms_threshold:g} are stored. {_AGAIN}, which takes those of every protocol in its config"
            )
        under = settings.model_copy(update={"score": protocol.score})
        results[name] = measure(stored[pair], filtered_as(dataset, protocol), under, pair, split)
    return results


def filtered_as(dataset: DatasetConfig, protocol: ProtocolConfig) -> DatasetConfig:
    """The data set with the protocol's box filter, where it has one."""
    if protocol.box_filter is None:
        return dataset
    return dataset.model_copy(update={"eval": dataset.eval.model_copy(update={"box_filter": protocol.box_filter})})


def protocols_dict(results: Mapping[str, EvaluationResult], settings: EvaluationConfig) -> dict[str, Any]:
    """Plain JSON values: what is called AP there, all figures, and the whole protocol."""
    return {
        name: {
            **dict(zip(("AP", "AP_50"), headline(result, settings.protocols[name]), strict=True)),
            "source": settings.protocols[name].source,
            "metrics": result.metrics,
            "protocol": result.protocol,
        }
        for name, result in results.items()
    }


def headline(result: EvaluationResult, protocol: ProtocolConfig) -> tuple[float, float]:
    """AP and AP_50 as that protocol means them."""
    suffix = "_class_agnostic" if protocol.class_agnostic else ""
    return result.metrics[f"AP{suffix}"], result.metrics[f"AP_50{suffix}"]


def write_variants(stored: Stored, folder: Path) -> None:
    """Predictions of each pair as flat arrays, in the order of the frames of frames.csv, with a checksum."""
    if not stored:
        return
    arrays: dict[str, ndarray] = {"thresholds": _as_array(stored)}
    for number, frames in enumerate(stored.values()):
        found = frames.predictions
        arrays[f"{number}_count"] = np.bincount(found.frame, minlength=len(frames)).astype(np.uint32)
        arrays[f"{number}_class_id"] = found.class_id.astype(np.uint16)
        arrays |= {f"{number}_{name}": getattr(found, name) for name in _COLUMNS[1:]}
    arrays["digest"] = _digest(arrays)
    with (folder / FILE).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[bad-argument-type]  # names of arrays


def read_variants(folder: Path, frames: LabelledFrames) -> dict[PostprocessConfig, LabelledFrames]:
    """What `write_variants` stored beside `frames`; nothing where that file is not there."""
    path = folder / FILE
    if not path.is_file():
        return {}
    (thresholds,) = read_npz(path, ["thresholds"], _AGAIN)
    with reading(path, _AGAIN):
        if thresholds.ndim != 2 or thresholds.shape[1] != 2 or not len(thresholds) <= 64:
            raise ValueError(f"thresholds are {thresholds.shape}")
        names = [f"{number}_{name}" for number in range(len(thresholds)) for name in ("count", *_COLUMNS)]
        *values, digest = read_npz(path, [*names, "digest"], _AGAIN)
        arrays = {"thresholds": thresholds, **dict(zip(names, values, strict=True))}
        if not np.array_equal(digest, _digest(arrays)):
            raise ValueError("its checksum is wrong")
        found = {}
        for number, (confidence, nms) in enumerate(thresholds.tolist()):
            count, class_id, *others = (arrays[f"{number}_{name}"] for name in ("count", *_COLUMNS))
            if len(count) != len(frames) or len({int(count.sum()), len(class_id), *map(len, others)}) > 1:
                raise ValueError(f"it is of {len(count)} frames, frames.csv of {len(frames)}")
            frame = np.repeat(np.arange(len(frames), dtype=np.int32), count)
            predictions = Predictions(frame, class_id.astype(np.int32), *others)
            pair = PostprocessConfig(confidence_threshold=confidence, nms_threshold=nms)
            found[pair] = LabelledFrames(
                frames.sequence_names, frames.sequence, frames.t_us, frames.event_count, frames.truth, predictions
            )
    return found


def _as_array(stored: Stored) -> Float64[ndarray, "pairs 2"]:
    return np.array([[pair.confidence_threshold, pair.nms_threshold] for pair in stored])


def _digest(arrays: Mapping[str, ndarray]) -> UInt8[ndarray, "32"]:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return np.frombuffer(digest.digest(), np.uint8)
