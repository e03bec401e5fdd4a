"""The plain way must do the same work as ours: what is measured against another result says nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from config.errors import UserError
from config.loading import load_dataset_config
from config.schema import TrainConfig
from data.dataset import ChunkDataset
from data.layout import frames_file_name
from data.recordings.preprocessing import preprocess_recording
from data.sampling import make_training_plan
from models.assignment import assign_anchors
from modules.data import EventDataModule
from scripts import benchmark
from scripts.benchmarks import evaluation, plain_data, plain_network, roofline, savings
from scripts.benchmarks.measuring import Remote, Row, alternate, markdown
from scripts.benchmarks.network import CHECK_SIZE, OURS, PLAIN, Case, Steps, Way
from scripts.benchmarks.recordings import Scene
from scripts.benchmarks.scale import exposed_share
from tests.models.test_assignment import boxes_for, predictions_for
from tests.network import golden_detector, training_boxes, training_features
from tests.runs import tell_environment

CASE = Case("cpu", CHECK_SIZE, batch_size=2, length=3)


def test_plain_training_gives_our_losses() -> None:
    plain, ours = Steps(CASE, PLAIN), Steps(CASE, replace(OURS, keep_memory=False))
    for _ in range(3):
        assert plain.train().item() == pytest.approx(ours.train().item(), rel=1e-5)


def test_the_roofline_is_above_what_a_step_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "REPEATS", 5)
    found = roofline.roofline(CASE, replace(OURS, keep_memory=False))
    assert 0 < found.least_seconds < found.seconds_of_products < found.seconds


def test_each_saving_of_inference_keeps_the_predictions() -> None:
    """Over two frames, so that states count."""
    found = {name: (step(), step())[1] for name, step in savings.ladder(replace(CASE, batch_size=1, length=1)).items()}
    plain = found["plain way, autograd recording"]
    assert plain.requires_grad
    for name, predictions in found.items():
        assert torch.allclose(predictions, plain, atol=1e-3, rtol=1e-4), name


def test_plain_assignment_is_ours_on_the_reference_arrays() -> None:
    detector = golden_detector()
    predictions = detector.predict(training_features(detector))
    boxes, box_image = training_boxes()
    expected = assign_anchors(predictions, boxes, box_image)
    assert (expected < len(boxes)).any()
    assert torch.equal(plain_network.assign_anchors(predictions, boxes, box_image), expected)


def test_plain_assignment_is_ours_where_boxes_compete_or_have_no_candidates() -> None:
    predictions, (boxes, box_image) = predictions_for(3), boxes_for([12, 0, 9])
    expected = assign_anchors(predictions, boxes, box_image)
    assert torch.equal(plain_network.assign_anchors(predictions, boxes, box_image), expected)


def test_plain_batches_hold_our_frames(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config("dataset.train.sampling=mixed")
    index = EventDataModule(config).index("train")
    plan = make_training_plan(config, index, world_size=1)
    steps = [plan.batch(0, step) for step in range(plan.steps_per_epoch)]
    dataset = ChunkDataset(index, config.dataset)
    for reads, plain in zip(steps, plain_data.batches(index, config.dataset, steps), strict=True):
        assert torch.equal(torch.stack(plain), dataset.__getitems__(reads).frames)


def test_plain_preprocessing_writes_our_frames(tmp_path: Path) -> None:
    scene = Scene((128, 256), num_windows=4, events_per_window=5_000)
    dataset, files = load_dataset_config(scene.overrides), scene.record(tmp_path / "recording")
    preprocess_recording(tmp_path / "ours", dataset, files, layout="rvt")
    ours = next((tmp_path / "ours").rglob(frames_file_name(dataset)))
    end_us = np.load(ours.with_name("timestamps_us.npy")).tolist()
    plain_data.preprocess(files.events, tmp_path / "plain.h5", dataset, end_us)
    assert _frames(ours).any()
    assert np.array_equal(_frames(ours), _frames(tmp_path / "plain.h5"))


def test_both_evaluations_give_the_same_figure() -> None:
    truth, found = evaluation.make_boxes(20)
    ap = evaluation.ours(truth, found, 20)
    assert 0 < ap < 1
    assert ap == evaluation.pycocotools(truth, found, 20)


def test_measures_take_turns() -> None:
    order = []
    costs = alternate({"a": lambda: order.append("a") or 1.0, "b": lambda: order.append("b") or 2.0}, rounds=3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert costs == {"a": [1.0, 1.0, 1.0], "b": [2.0, 2.0, 2.0]}


def test_row_tells_ratio_of_medians_and_spread_of_rounds() -> None:
    row = Row("step", "s", ours=[1.0, 2.0, 1.0], plain=[3.0, 4.0, 4.0], target=">= 2 x")
    assert (row.ratio, row.spread) == (4.0, (2.0, 4.0))
    line = markdown([row]).splitlines()[2]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["step", "4 s", "1 s", "4.00 x", "2.00 .. 4.00", ">= 2 x"]


def test_a_process_of_its_own_gets_its_environment() -> None:
    remote = Remote(tell_environment, environment={"STREAMRVT_TEST": "7"})
    assert remote() == 7.0
    remote.close()
    assert "STREAMRVT_TEST" not in os.environ


def test_all_parts_run_and_are_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    parts = [*benchmark.PARTS, "sizes", "growth", "scale"]
    assert benchmark.main([*parts, "--check", "--rounds", "1", "--json", str(path)]) == 0
    figures, table = json.loads(path.read_text()), capfd.readouterr().out
    assert {"machine", "chosen_kernels", "command", *parts} == set(figures)
    for part in benchmark.PARTS:
        for row in figures[part]:
            assert {"name", "unit", "ours", "plain", "ratio", "spread", "target"} <= set(row)
            assert f"| {row['name']}" in table
    assert [row["model"] for row in figures["sizes"]["networks"]] == ["tiny", "tiny"]
    assert figures["sizes"]["loader"]["frames_per_s"] > 0


def test_share_of_an_all_reduce() -> None:
    """100 M parameters over 1 GB/s: two processes send 0.4 GB each, of which a backward pass of 0.2 s hides a half."""
    seconds, share = exposed_share(100_000_000, 2, 1e9, step_s=0.3)
    assert (seconds, share) == (pytest.approx(0.4), pytest.approx(0.2 / 0.5))
    assert exposed_share(100_000_000, 1, 1e9) == (0, 0)


def test_latency_is_told_by_phases_also_without_onnx(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking() -> None:
        raise UserError("export needs onnx")

    monkeypatch.setattr("modules.deployment.export._packages", lacking)
    assert benchmark.main(["latency", "--check"]) == 0
    told = capsys.readouterr().out
    assert "note: without ONNX Runtime: export needs onnx" in told
    for name in ("plain way", "float32"):
        phases = r"counting .*\ncopying .*\nnetwork .*\nNMS .*\nevents -> boxes( +[\d.]+){3}\n"
        assert re.search(rf"{name}, on the clock on the wall\nms +p50 +p90 +p99\n{phases}", told)
    assert "| events -> boxes, float32 (tiny at 64 x 128" in told


def test_lanes_and_frames_that_are_typed_are_those_that_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setitem(benchmark.RUN, "train", lambda case, _: asked.append((case.batch_size, case.length)))
    assert benchmark.main(["train", "batch_size.train=3", "dataset.sequence_length=7"]) == 0
    assert benchmark.main(["train"]) == 0
    assert asked == [(3, 7), (6, 5)]


def test_bfloat16_is_left_out_and_said_where_it_would_be_emulated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[Way] = []

    def profiled(case: Case, way: Way) -> roofline.Roofline:
        measured.append(way)
        return roofline.Roofline(1, 1, 1, 1, [])

    def timed(make: object, case: Case, ways: dict[str, Way], *_: object, **__: object) -> dict[str, list[float]]:
        measured.extend(ways.values())
        return {name: [1.0] for name in ways}

    monkeypatch.setattr("config.processor.bfloat16_units", tuple)
    monkeypatch.setattr(roofline, "roofline", profiled)
    monkeypatch.setattr(benchmark, "_alternate", timed)
    assert benchmark.main(["roofline", "train", "infer", "measures", "kernels", "--check"]) == 0
    assert len(measured) > 10
    assert not any(way.bfloat16 for way in measured)
    assert "bfloat16: left out of all parts, no hardware for it" in capsys.readouterr().out


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["trian"])


def _frames(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["data"][:]
