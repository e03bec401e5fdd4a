"""Weights written once as safetensors give what the original gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from config.errors import UserError
from config.loading import load_validation_config
from models.detector import Detector
from models.weights.file import read_file
from models.weights.pretrained import load_into
from modules.run.config_in_file import config_in_file
from scripts.convert_checkpoint import convert, main
from tests.network import NUM_CLASSES, PARTITION_SIZE, frames_of_call, model_config, their_weights

MODEL = (
    "dataset=toy",
    "model=maxvit_yolox/plain_lstm",
    "model.backbone.embed_dim=16",
    "model.backbone.stage.attention.dim_head=8",
    "model.fpn.depth=0.33",
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    torch.save({"state_dict": {f"mdl.{key}": value for key, value in their_weights().items()}}, folder / "rvt.ckpt")
    assert main([str(folder / "rvt.ckpt"), str(folder / "rvt.safetensors"), *MODEL]) == 0
    return folder / "rvt.safetensors"


@torch.no_grad()
def detections(path: Path) -> list[torch.Tensor]:
    detector = Detector(model_config(), NUM_CLASSES, PARTITION_SIZE).eval()
    load_into(detector, model_config(), path)
    features, _ = detector.encode(frames_of_call(1), None)
    return detector.detect(detector.select(features, torch.arange(2)))


def test_the_original_and_the_converted_file_give_the_same_detections(converted: Path) -> None:
    original, same = detections(converted.with_name("rvt.ckpt")), detections(converted)
    assert sum(map(len, original)) > 0
    assert all(torch.equal(a, b) for a, b in zip(original, same, strict=True))


def test_config_and_classes_go_with_it_and_folders_do_not(converted: Path) -> None:
    config = config_in_file(converted)
    expected = load_validation_config([*MODEL, "dataset.path=.", "checkpoint=x"])
    assert (config.dataset.classes, config.model) == (expected.dataset.classes, expected.model)
    assert str(config.dataset.path) == "."


def test_a_file_without_a_config_asks_for_one(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rvt\.ckpt tells no config: add model=NAME dataset=NAME"):
        convert(converted.with_name("rvt.ckpt"), tmp_path / "a.safetensors", [], [])


def test_one_changed_byte_of_a_converted_file_is_found_wherever_it_is(converted: Path, tmp_path: Path) -> None:
    """As safetensors it has no checksum: ours is in the header."""
    whole = converted.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    places = [*range(0, header, header // 30), *range(header, len(whole), len(whole) // 30), len(whole) - 1]
    path = tmp_path / "a.safetensors"
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError) as caught:
            read_file(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", [b"", b"{", b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'])
def test_a_header_that_lies_gives_one_line(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((len(header)).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match=r"a\.safetensors cannot be read as safetensors"):
        read_file(path)
