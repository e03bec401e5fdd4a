"""Behaviour of scripts/export.py, and of what it exports."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from config.errors import UserError
from modules.deployment.checkpoint import config_of_checkpoint, load_detector
from modules.deployment.comparison import Difference, compare, frames_of
from modules.deployment.export import quantized
from modules.deployment.network import postprocess
from modules.deployment.onnx_network import OnnxNetwork, Session
from modules.deployment.onnx_suppression import append_suppression
from scripts import detect
from scripts.export import parse, run
from tests.deployment import moving_square, write_checkpoint
from tests.event_files import write_npz
from tests.models.test_inference import S5, trained

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "tests/data/davis346/train/traffic_td.h5"
CLIP_HW = "dataset.resolution_hw=[260,346]"
HALF = "dataset.downsample_by_factor_2=true"


def export(*arguments: object) -> str:
    return run(parse([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for the clip's sensor, exported as clip.onnx, and with its suppression inside as nms.onnx."""
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = write_checkpoint(folder / "last.ckpt", CLIP_HW, HALF)
    told = export(f"checkpoint={checkpoint}", folder / "clip.onnx", f"recording={CLIP}")
    assert f"on the first 20 windows of {CLIP}: scores within" in told  # and not refused: within 1e-4 and 0.01 px
    model = onnx.load(folder / "clip.onnx")  # as export does; tracing it again would take seconds
    append_suppression(model, Session(folder / "clip.onnx").description)
    onnx.save(model, folder / "nms.onnx")
    detector = load_detector(config_of_checkpoint(checkpoint, []), checkpoint)
    description = Session(folder / "clip.onnx").description
    compare(folder / "nms.onnx", detector, description, frames_of(CLIP, description)[:4]).check(checkpoint)
    return folder


def boxes_of(path: Path) -> list[list[tuple[float, ...]]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    names = ("x", "y", "w", "h", "class_id", "score")
    return [[tuple(box[name] for name in names) for box in line["boxes"]] for line in lines]


def assert_alike(one: Sequence[Sequence[tuple[float, ...]]], other: Sequence[Sequence[tuple[float, ...]]]) -> None:
    """Up to the few boxes of which rounding decides: this network tells some classes apart by the last digit only."""
    alike = []
    for ours, theirs in zip(one, other, strict=True):
        gaps = np.abs(np.array(ours).reshape(-1, 1, 6) - np.array(theirs).reshape(1, -1, 6)).max(axis=2)
        alike += (gaps.min(axis=1, initial=1) < 0.03).tolist()
        assert abs(len(ours) - len(theirs)) <= 2
    assert np.mean(alike) > 0.98
    assert len(alike) > 20


def test_exported_networks_find_what_the_checkpoint_finds_without_torch(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "no_torch.py").write_text(
        "import runpy, sys\nsys.modules['torch'] = None\nsys.argv[:] = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    for name, out in (("checkpoint=last.ckpt", "own"), ("model=clip.onnx", "clip"), ("model=nms.onnx", "nms")):
        key, _, file = name.partition("=")
        arguments = [str(CLIP), f"{key}={folder / file}", f"out={tmp_path / out}.jsonl", "threshold=0.1"]
        if out == "clip":
            command = [sys.executable, str(tmp_path / "no_torch.py"), str(ROOT / "scripts/detect.py"), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            assert done.returncode == 0, done.stderr
        else:
            detect.run(detect.parse(arguments))
    own, clip, nms = (boxes_of(tmp_path / f"{name}.jsonl") for name in ("own", "clip", "nms"))
    assert_alike(clip, own)
    assert_alike(nms, own)


def test_a_file_says_what_it_needs_to_be_run(folder: Path) -> None:
    model = onnx.load(folder / "clip.onnx")
    assert [item.version for item in model.opset_import if item.domain == ""] == [18]
    about = json.loads({entry.key: entry.value for entry in model.metadata_props}["streamrvt"])
    assert (about["sensor_hw"], about["frame_hw"]) == ([260, 346], [130, 173])
    assert (about["window_ms"], about["bins"], about["count_cutoff"]) == (50, 10, 10)
    assert (about["confidence_threshold"], about["nms_threshold"], len(about["classes"])) == (0.02, 0.45, 8)
    names = [value.name for value in model.graph.input]
    assert names[0] == "frames"
    assert [value.name for value in model.graph.output] == ["predictions", *(f"{name}_after" for name in names[1:])]


def test_lanes_of_a_batch_do_not_see_each_other(folder: Path) -> None:
    session = Session(folder / "clip.onnx")
    frames = np.random.default_rng(0).integers(0, 3, (3, 20, 130, 173), np.uint8)
    together, _ = session.run(frames, session.first_state(3))
    alone, _ = session.run(frames[2:], session.first_state())
    assert together[2] == pytest.approx(alone[0], abs=1e-3)


@pytest.mark.slow
def test_states_of_s5_cells_and_four_scales(tmp_path: Path) -> None:
    """Two frames: the second sees the first one's state."""
    changes = ("model.backbone.stage.cell=s5", "model.fpn.in_stages=[1,2,3,4]")
    weights = trained(S5, changes[1]).state_dict()
    checkpoint = write_checkpoint(tmp_path / "s5.ckpt", *changes, weights=weights)
    assert "scores within" in export(f"checkpoint={checkpoint}", tmp_path / "s5.onnx", "lanes=2")


def test_weights_are_rounded_to_8_bits(folder: Path, tmp_path: Path) -> None:
    onnx.save(quantized(onnx.load(folder / "clip.onnx")), tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.95 * (folder / "clip.onnx").stat().st_size
    frame = np.random.default_rng(0).integers(0, 3, (1, 20, 130, 173), np.uint8)
    sessions = [Session(path) for path in (tmp_path / "int8.onnx", folder / "clip.onnx")]
    rounded, exact = (session.run(frame, session.first_state())[0] for session in sessions)
    assert 0 < np.abs(rounded - exact)[..., 4:].mean() < 0.03


def test_the_example_that_needs_only_onnxruntime_and_numpy(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = moving_square(0.3)
    write_npz(tmp_path / "square.npz", events)
    out = tmp_path / "square.jsonl"
    arguments = [str(tmp_path / "square.npz"), f"model={folder / 'nms.onnx'}", f"out={out}"]
    detect.run(detect.parse(arguments))
    monkeypatch.setattr(sys, "argv", ["onnx_stream.py", str(folder / "nms.onnx"), str(tmp_path / "square.npz")])
    runpy.run_path(str(ROOT / "docs/examples/onnx_stream.py"), run_name="__main__")
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    expected = [
        (line["t_us"], box["class"], *(box[name] for name in ("score", "x", "y", "w", "h")))
        for line in lines
        for box in line["boxes"]
    ]
    assert [(int(row[0]), row[1]) for row in rows] == [row[:2] for row in expected]
    numbers = [[float(value) for value in row[2:]] for row in rows]
    assert np.array(numbers) == pytest.approx(np.array([row[2:] for row in expected]), abs=0.06)
    assert len(rows) > 10


def test_a_threshold_below_the_exported_one_is_refused(folder: Path) -> None:
    assert OnnxNetwork(folder / "clip.onnx", 0.001).description.confidence_threshold == 0.001
    with pytest.raises(UserError, match=r"threshold=0\.001: .* from 0\.02 on"):
        OnnxNetwork(folder / "nms.onnx", 0.001)


def test_files_that_are_none_of_ours(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with pytest.raises(UserError, match="cannot be read as ONNX"):
        OnnxNetwork(tmp_path / "noise.onnx")
    with pytest.raises(UserError, match="not found"):
        OnnxNetwork(tmp_path / "nowhere.onnx")
    model = onnx.load(folder / "clip.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"not made by scripts/export\.py"):
        OnnxNetwork(tmp_path / "other.onnx")


def test_suppression_without_torch_is_that_of_torch() -> None:
    import torch

    from models.postprocess import postprocess as of_torch

    rng = np.random.default_rng(0)
    decoded = np.concatenate([rng.uniform(0, 60, (300, 4)), rng.uniform(0, 1, (300, 9))], axis=1).astype(np.float32)
    decoded[7, 0], decoded[8, 4] = np.inf, np.nan
    expected = of_torch(torch.from_numpy(decoded)[None], 0.2, 0.45)[0]
    assert np.array_equal(postprocess(decoded, 0.2, 0.45), expected.numpy())


def test_a_difference_that_is_no_rounding_is_refused() -> None:
    Difference(score=1e-5, px=1e-3).check(Path("a.ckpt"))
    for difference in (Difference(score=1e-3), Difference(px=0.1), Difference(px=float("nan")), Difference(others=1)):
        with pytest.raises(UserError, match="so no file was written"):
            difference.check(Path("a.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.onnx"], "give checkpoint=FILE and OUT.onnx"),
        (["checkpoint=a", "b.pt"], "give checkpoint=FILE and OUT.onnx"),
        (["checkpoint=a", "b.onnx", "lanes=0"], "lanes=0"),
        (["checkpoint=a", "b.onnx", "precision=16"], "float32, float16, int8"),
        (["checkpoint=a", "b.onnx", "nms=1"], "nms=1: give true or false"),
        (["checkpoint=a", "b.onnx", "threshold=2"], "threshold=2"),
    ],
)
def test_mistakes_of_the_command(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(arguments)
