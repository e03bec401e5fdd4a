"""The small network whose weights and outputs the reference arrays hold, and shorthands to look at them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from config.loading import load_train_config
from config.schema import ModelConfig
from models.detector import Detector, Features
from models.weights.published_names import rename

GOLDEN = Path(__file__).parent / "golden"
NUM_CLASSES = 8
PARTITION_SIZE = (2, 4)


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def golden_tensor(name: str, key: str) -> Tensor:
    return torch.from_numpy(golden(name)[key].copy())


def model_config(*overrides: str) -> ModelConfig:
    """The reference arrays' model: 64 x 128 pixels, 16 channels."""
    small = ["embed_dim=16", "partition_split_32=1", "stage.attention.dim_head=8"]
    settings = [*(f"model.backbone.{item}" for item in small), "model.fpn.depth=0.33", *overrides]
    return load_train_config(["dataset=toy", "model=maxvit_yolox/plain_lstm", *settings]).model


def their_weights() -> dict[str, Tensor]:
    """In RVT's names."""
    return {key: golden_tensor("model_state_dict", key) for key in golden("model_state_dict")}


def golden_weights() -> dict[str, Tensor]:
    """In our names."""
    return {rename(key): value for key, value in their_weights().items()}


def golden_detector(*overrides: str, **options) -> Detector:
    detector = Detector(model_config(*overrides), NUM_CLASSES, PARTITION_SIZE, **options)
    detector.load_state_dict(golden_weights())
    return detector


def frames_of_call(number: int) -> Tensor:
    return golden_tensor("model_inputs", f"events_call{number}")


def frame_indices(selection: np.ndarray, num_lanes: int = 2) -> Tensor:
    """(t, b) pairs to l * B + b."""
    return torch.tensor([t * num_lanes + b for t, b in selection])


def training_boxes() -> tuple[Tensor, Tensor]:
    """Flat boxes and their images, from the reference's zero-padded targets."""
    targets = golden_tensor("model_train", "targets")
    used = targets.sum(dim=2) > 0
    return targets[used], used.nonzero()[:, 0]


def training_features(detector: Detector) -> Features:
    features, _ = detector.encode(frames_of_call(1), None)
    return detector.select(features, frame_indices(golden("model_train")["train_sel"]))


def largest_difference(actual: Tensor, expected: Tensor | np.ndarray) -> float:
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape
    return (actual.detach().double() - expected.double()).abs().max().item()
