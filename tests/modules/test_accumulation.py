from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_lightning import seed_everything

from data.dataset import ChunkDataset
from modules.data import EventDataModule
from modules.detection import DetectionModule
from modules.optimizer import build_optimizer, rate_at, set_rate
from modules.run.checkpoint_file import read_checkpoint
from tests.runs import NETWORK, Start, losses, run_folder


def test_a_step_takes_the_mean_gradient_of_its_batches(start: Start, make_config, tmp_path: Path) -> None:
    """An epoch of 6 batches has a step of 4 and one of 2; the lanes' states go right through."""
    options = ("training.accumulate_grad_batches=4", "dataset.train.sampling=mixed", "training.max_steps=2")
    assert start(*options, "validation.limit_val_batches=0") == 0
    found = losses(run_folder(tmp_path))
    end = read_checkpoint(next((run_folder(tmp_path) / "checkpoints").glob("last_*")))

    config = make_config(*NETWORK, *options)
    seed_everything(1, verbose=False)
    data, module = EventDataModule(config), DetectionModule(config).train()
    optimizer = build_optimizer(module.parameters(), config.training)
    plan, dataset = data.training_plan(), ChunkDataset(data.index("train"), config.dataset)
    for step, window in enumerate([range(4), range(4, 6)]):
        mean = 0.0
        optimizer.zero_grad()
        for number in window:
            batch = dataset.__getitems__(plan.batch(0, number, 0))
            features, state = module.detector.encode(batch.frames, module.train_state.enter(batch.is_first, batch.lane))
            module.train_state.leave(state, batch.lane)
            selected = module.detector.select(features, batch.labelled_frames)
            loss = module.detector.loss(selected, batch.boxes, batch.box_image)["loss"] / len(window)
            loss.backward()
            mean += float(loss.detach())
        norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
        torch.nn.utils.clip_grad_value_(module.parameters(), config.training.gradient_clip_val)
        set_rate(optimizer, rate_at(step, config.training))
        optimizer.step()
        assert [float(text) for text in found[step]] == pytest.approx(
            [mean, float(norm), rate_at(step, config.training)]
        )
    for name, value in module.state_dict().items():
        torch.testing.assert_close(end["state_dict"][name], value, msg=name)
