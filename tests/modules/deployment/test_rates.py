"""AP at other rates, beside the frames and figures of preprocessing and validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from config.errors import UserError
from config.schema import Config
from data.boxes import BOX_DTYPE
from data.recordings.preprocessing import preprocess_recording
from data.sequence import Sequence
from models.cells.s5 import StateSpaceModel
from modules.deployment.checkpoint import config_of_checkpoint, load_detector
from modules.deployment.labelled import Labelled, find_labelled
from modules.deployment.rates import Rate, RateMeasure, scale_steps
from modules.evaluation.evaluator import Evaluation
from scripts.rates import parse, run
from tests.deployment import SENSOR_HW, moving_square, write_checkpoint
from tests.event_files import write_hdf5
from tests.network import model_config

SECONDS = 1.2
LABELS_US = np.arange(1, 24) * 50_000
FEW = "dataset.eval.box_filter.skip_first_ms=0"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "last.ckpt", FEW)


@pytest.fixture(scope="module")
def config(checkpoint: Path) -> Config:
    return config_of_checkpoint(checkpoint, [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with two boxes every 50 ms, one of them around the square."""
    folder = tmp_path_factory.mktemp("raw")
    height, width = SENSOR_HW
    write_hdf5(folder / "street_td.h5", moving_square(SECONDS), height=height, width=width)
    boxes = np.zeros(2 * len(LABELS_US), BOX_DTYPE)
    boxes["t"], boxes["w"], boxes["h"], boxes["y"] = np.repeat(LABELS_US, 2), 26, 24, 20
    boxes["x"] = np.where(np.arange(len(boxes)) % 2, 60, 10 + boxes["t"] // 20_000)
    np.save(folder / "street_bbox.npy", boxes)
    return folder


def measure_of(folder: Path, checkpoint: Path, config: Config) -> RateMeasure:
    recordings = [Labelled.of(files, config.dataset) for files in find_labelled([folder])]
    return RateMeasure(load_detector(config, checkpoint), config, recordings)


def test_at_the_trained_rate_it_is_validation_of_the_preprocessed_recording(
    folder: Path, checkpoint: Path, config: Config, tmp_path: Path
) -> None:
    found = measure_of(folder, checkpoint, config)(Rate(20, "trained"))
    (files,) = find_labelled([folder])
    preprocess_recording(tmp_path, config.dataset, files)
    sequence = Sequence(tmp_path / "val" / "street", config.dataset)
    frames, labels = sequence.frames(0, len(sequence)), sequence.labels(0, len(sequence))
    boxes = labels.boxes.copy()
    boxes[:, 1:3] += boxes[:, 3:] / 2
    detector = load_detector(config, checkpoint)
    with torch.inference_mode():
        features, _ = detector.encode(torch.from_numpy(frames)[:, None], None)
        detections = detector.detect(detector.select(features, torch.from_numpy(labels.frames)))
    evaluation = Evaluation(config.dataset, config.evaluation, config.model.postprocess)
    evaluation.add(
        ["street"] * len(labels.frames),
        torch.from_numpy(sequence.t_us(0, len(sequence))[labels.frames]),
        detections,
        torch.from_numpy(boxes),
        torch.from_numpy(labels.box_image),
        torch.from_numpy(frames[labels.frames].sum(axis=(1, 2, 3), dtype=np.int64)),
    )
    expected = evaluation.result("recordings")
    assert expected.metrics["AP_50"] > 0
    assert found.result.metrics == pytest.approx(expected.metrics, abs=1e-6)
    assert found.result.protocol == expected.protocol
    assert np.array_equal(found.result.frames.event_count, expected.frames.event_count)
    assert np.allclose(found.result.frames.truth.xywh, expected.frames.truth.xywh)
    assert found.num_frames == len(frames)


@pytest.mark.parametrize(("hz", "length", "window_us"), [(40, "trained", 50_000), (100, "rate", 10_000)])
def test_other_rates_have_the_same_labelled_frames_of_other_windows(
    folder: Path, checkpoint: Path, config: Config, hz: float, length: str, window_us: int
) -> None:
    measure = measure_of(folder, checkpoint, config)
    found = measure(Rate(hz, length))  # type: ignore[bad-argument-type]
    frames = found.result.frames
    assert frames.t_us.tolist() == list(range(100_000, 1_200_000, 100_000))
    assert (found.num_frames, found.window_us) == (round(1.1 * hz), window_us)
    t = moving_square(SECONDS)[:, 3]
    x = moving_square(SECONDS)[:, 0]
    inside = [int(((t >= end - window_us) & (t <= end) & (x < SENSOR_HW[1])).sum()) for end in frames.t_us]
    capped = frames.event_count / np.array(inside)
    assert ((capped > 0.9) & (capped <= 1)).all()  # some cells have more than are counted
    assert sum(found.left_out.values()) + len(frames) == len(LABELS_US)


def test_what_does_not_fit_is_refused(folder: Path, checkpoint: Path, config: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"at 33 windows a second .* 30 would fit"):
        measure_of(folder, checkpoint, config)(Rate(33, "trained"))
    with pytest.raises(UserError, match="one name"):
        find_labelled([folder, folder / "street_td.h5"])
    with pytest.raises(UserError, match="no recording with boxes"):
        find_labelled([tmp_path])


def test_two_steps_of_half_the_length_are_one_step() -> None:
    """Of an input that stays: so zero-order hold is defined."""
    config = model_config("model.backbone.stage.cell=s5", "model.backbone.stage.s5.discretization=zoh")
    assert config.backbone.stage.s5 is not None
    ssm = StateSpaceModel(8, config.backbone.stage.s5).double()
    u = torch.rand(3, 1, 1, 8, dtype=torch.float64)
    expected, _ = ssm(u, 1, None)
    assert scale_steps(ssm, 0.5) == 0.5
    found, _ = ssm(u.repeat_interleave(2, dim=0), 1, None)
    assert torch.allclose(found[1::2], expected, atol=1e-8)
    assert scale_steps(torch.nn.Linear(1, 1), 0.5) is None


def test_the_script_writes_table_and_figure(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = [str(folder), f"checkpoint={checkpoint}", f"out={tmp_path / 'out'}", "rates=[20,40]", "threshold=0.01"]
    told = run(parse(words))
    assert "from 0.01 on" in told
    assert "11 label times left out: at no multiple of 100 ms" in told
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"rates.json", "rates.csv", "rates.png"}
    rows = (tmp_path / "out" / "rates.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["20", "50"], ["40", "50"], ["20", "50"], ["40", "25"]]
    assert rows[1] == rows[3]
