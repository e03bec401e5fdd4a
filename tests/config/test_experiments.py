"""The files of config/experiment: what each is made of, and that it trains."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from config.loading import load_train_config
from config.schema import ModelConfig, TrainConfig
from models.detector import Detector

# name: frames, stages of the pyramid, stem, weight by size, weight by class, focal gamma
EXPERIMENTS = {
    "3scale_baseline_100k": ((360, 640), 3, 4, None, None, 0),
    "3scale_sizeaware_100k": ((360, 640), 3, 4, "exponential", None, 0),
    "4scale_enhanced_100k": ((360, 640), 4, 4, None, None, 0),
    "4scale_sizeaware_100k": ((360, 640), 4, 4, "exponential", None, 0),
    "patch2_4scale_sizeaware_200k": ((360, 640), 4, 2, "exponential", None, 0),
    "patch2_sizeaware_100k": ((360, 640), 3, 2, "exponential", None, 0),
    "plain_lstm_1280x720": ((720, 1280), 3, 4, None, None, 0),
    "plain_lstm_4scale_640x360": ((360, 640), 4, 4, None, None, 0),
    "plain_lstm_4scale_sizeaware_960x540": ((540, 960), 4, 4, "exponential", None, 0),
    "plain_lstm_640x360_baseline": ((360, 640), 3, 4, None, None, 0),
    "plain_lstm_960x540": ((540, 960), 3, 4, None, None, 0),
    "plain_lstm_classbalanced_100k": ((360, 640), 3, 4, None, "effective_number", 2),
    "plain_lstm_classbalanced_640x360": ((360, 640), 3, 4, None, "effective_number", 0),
    "plain_lstm_patch2_640x360": ((360, 640), 3, 2, None, None, 0),
    "plain_lstm_simple_classbalanced_100k": ((360, 640), 3, 4, None, "inverse_frequency", 0),
    "plain_lstm_sizeaware_640x360": ((360, 640), 3, 4, "exponential", None, 0),
    "plain_lstm_sizeaware_960x540": ((540, 960), 3, 4, "exponential", None, 0),
    "recommended": ((360, 640), 3, 4, None, None, 0),
}


@cache
def config_of(name: str, *overrides: str) -> TrainConfig:
    return load_train_config(["dataset=gen4", "dataset.path=.", f"+experiment/gen4={name}", *overrides])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_what_its_name_says(name: str) -> None:
    """Windows of 6 x 10 cells at every resolution; six lanes' gradients in a step, at the rate for six."""
    config, (frame_hw, scales, stem, by_size, by_class, gamma) = config_of(name), EXPERIMENTS[name]
    model = config.model
    found = (model.backbone.stem.patch_size, model.loss.size_weight.kind, model.loss.class_weight.kind)
    assert (config.dataset.loaded_hw, config.partition_size) == (frame_hw, (6, 10))
    assert model.fpn.in_stages == tuple(range(5 - scales, 5))
    assert (*found, model.loss.focal.gamma) == (stem, by_size, by_class, gamma)
    assert config.training.max_steps == (200_000 if name.endswith("200k") else 100_000)
    assert config.batch_size.train * config.training.accumulate_grad_batches == 6


@pytest.mark.parametrize("name", ["gen4", "toy"])
def test_the_recommended_experiment_is_what_the_laboratory_measured(name: str) -> None:
    config = load_train_config([f"dataset={name}", "dataset.path=.", f"+experiment/{name}=recommended"])
    augmentation = config.dataset.data_augmentation
    assert config.dataset.train.repeat_threshold == 0.5
    assert (augmentation.stream.copy_paste.prob, augmentation.stream.copy_paste.frames) == (0.7, 40)
    assert config.dataset.train.sampling == "stream"
    assert config.training.ema_decay is not None


def test_an_experiment_changes_the_network_that_is_chosen_beside_it() -> None:
    model = config_of("4scale_sizeaware_100k", "model=maxvit_yolox/s5").model
    assert (model.backbone.stage.cell, len(model.fpn.in_stages)) == ("s5", 4)


def networks() -> dict[str, ModelConfig]:
    """Small copies of the networks and losses that the experiments are made of, each once."""
    found: dict[str, ModelConfig] = {}
    for name in EXPERIMENTS:
        model = config_of(name).model
        stage = model.backbone.stage
        attention = stage.attention.model_copy(update={"dim_head": 8})
        small = {"embed_dim": 8, "partition_split_32": 1, "stage": stage.model_copy(update={"attention": attention})}
        model = model.model_copy(update={"backbone": model.backbone.model_copy(update=small)})
        if model not in found.values():
            found[name] = model
    return found


def test_the_network_of_each_experiment_trains() -> None:
    assert len(networks()) == 10
    for name, model in networks().items():
        detector = Detector(model, num_classes=8, partition_size=(1, 1)).train()
        if model.loss.class_weight.kind is not None:
            detector.head.weigh_classes(np.array([9, 0, 100, 5, 5, 5, 5, 5]))
        features, _ = detector.encode(torch.randint(0, 10, (1, 2, 20, 40, 60), dtype=torch.uint8), None)
        selected = detector.select(features, torch.tensor([0, 1]))
        boxes = torch.tensor([[0.0, 12, 10, 14, 12], [2, 40, 30, 1, 1]])
        detector.loss(selected, boxes, torch.tensor([0, 1]))["loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters()), name
