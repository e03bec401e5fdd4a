"""Tiny evaluations for tests: frames of 360 x 640 pixels with eTraM's classes."""

from __future__ import annotations

import torch

from config.loading import load_dataset_config
from config.schema import EvaluationConfig
from modules.evaluation.evaluator import Evaluation, EvaluationResult

SETTINGS = EvaluationConfig(score="product", confusion_threshold=0.25)


def boxes_of(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)


def found(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 7)


CAR = (1, 100, 100, 80, 80)  # class, centre, size
HIT = (60, 60, 140, 140, 0.9, 0.9, 1)  # the same box as a detection
ELSEWHERE = (300, 200, 380, 280, 0.5, 0.95, 1)


def result_of(
    *frames: tuple[str, int, torch.Tensor, torch.Tensor], settings: EvaluationConfig = SETTINGS, more: str = ""
) -> EvaluationResult:
    """Frames are (sequence, t_us, boxes, detections), added in one batch; eTraM's classes at half resolution."""
    evaluation = Evaluation(load_dataset_config(["dataset=gen4", *more.split()]), settings)
    add(evaluation, *frames)
    return evaluation.result()


def add(evaluation: Evaluation, *frames: tuple[str, int, torch.Tensor, torch.Tensor]) -> None:
    evaluation.add(
        sequence_names=[frame[0] for frame in frames],
        t_us=torch.tensor([frame[1] for frame in frames]),
        detections=[frame[3] for frame in frames],
        boxes=torch.cat([frame[2] for frame in frames]),
        box_image=torch.cat([torch.full((len(frame[2]),), index) for index, frame in enumerate(frames)]),
        event_count=torch.full((len(frames),), 1000),
    )
