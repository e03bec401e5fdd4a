"""The checkpoint that `scripts/fuzz.py` damages, read as resume= and as weights= read it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from config.loading import load_train_config
from models.weights.file import _check_sums, nested_tensors
from models.weights.pretrained import Wanted, load_into
from modules.detection import DetectionModule
from modules.run.checkpoint_check import check_resumable
from modules.run.checkpoint_content import FIT_LOOP
from modules.run.checkpoint_file import AtomicCheckpointIO, read_checkpoint

_SMALL = (
    "model.backbone.embed_dim=8",
    "model.backbone.stage.attention.dim_head=8",
    "model.fpn.depth=0.33",
)


def write_checkpoint(folder: Path) -> tuple[Path, Callable[[], bytes]]:
    """A checkpoint of a small network after one step, and a digest of all that a run would take of it."""
    torch.set_num_threads(1)  # the threads of a process that has forked are not its child's
    config = load_train_config(["dataset=toy", "model=maxvit_yolox/default", *_SMALL, f"dataset.path={folder}"])
    module = DetectionModule(config)
    optimizer = module.configure_optimizers()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    path = folder / "last_epoch=000-step=1.ckpt"
    content = {
        "epoch": 0,
        "global_step": 1,
        "config": {"reproduce": {"seed_everything": 1}, "training": {}},
        "loops": {"fit_loop": FIT_LOOP},
        "callbacks": {"CheckpointWriter": {"best": [], "validation_pending": False, "epoch": 0}},
        "state_dict": module.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
    }
    torch.save(content, path)

    def read() -> bytes:
        _check_sums.cache_clear()  # it knows a file by its time of change, and several changes come within one tick
        read_checkpoint(path)
        check_resumable(path, module)
        resumed = _digest(AtomicCheckpointIO().load_checkpoint(path))
        load_into(module.detector, config.model, path, Wanted.of(config))
        return resumed + _digest(module.detector.state_dict())

    return path, read


def _digest(content: object) -> bytes:
    digest = hashlib.sha256(repr(_without_values(content)).encode())
    for tensor in nested_tensors(content):
        digest.update(tensor.numpy().tobytes())
    return digest.digest()


def _without_values(content: object) -> object:
    if isinstance(content, dict):
        return [(key, _without_values(part)) for key, part in content.items()]
    if isinstance(content, list | tuple):
        return [_without_values(part) for part in content]
    return (content.dtype, content.shape) if isinstance(content, Tensor) else content
