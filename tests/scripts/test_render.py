"""Behaviour of scripts/render.py."""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from config.errors import UserError
from config.loading import load_dataset_config, load_train_config
from modules.evaluation.results import write_results
from modules.pictures.film_file import FilmFile
from scripts.render import main, parse, render, render_worst, write_film
from tests.conftest import FRAME_HW, write_sequence
from tests.evaluations import CAR, HIT, boxes_of, found, result_of
from tests.modules.pictures.test_film import write_recording
from tests.network import golden_weights
from tests.runs import checkpoint_content

SENSOR = f"dataset.resolution_hw=[{FRAME_HW[0] * 2},{FRAME_HW[1] * 2}]"

NO_FILTER = "dataset.eval.box_filter={min_diagonal:0,min_side:0,skip_first_ms:0}"


def film(*arguments: object) -> int:
    return render(parse([str(argument) for argument in arguments]))


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    return write_sequence(tmp_path / "street", 6, {1: [(1, 4, 2, 10, 8)], 3: [(1, 4, 2, 10, 8)]})


def test_sequence_becomes_a_film_in_real_time(sequence: Path, tmp_path: Path) -> None:
    out = tmp_path / "films" / "street.mp4"
    assert film(sequence, out, "dataset=gen4", SENSOR) == 6
    with imageio.get_reader(out) as reader:
        assert reader.get_meta_data()["fps"] == 20
        assert reader.count_frames() == 6


def test_gif_of_a_part(sequence: Path, tmp_path: Path) -> None:
    out = tmp_path / "street.gif"
    assert film(sequence, out, "dataset=gen4", SENSOR, "start_s=0.1", "seconds=0.1", "speed=0.5") == 2
    with Image.open(out) as picture:
        assert (picture.n_frames, picture.info["duration"]) == (2, 100)


def test_recording_needs_nothing_else(tmp_path: Path) -> None:
    recording = write_recording(tmp_path / "a_td.h5", [(3, 5, 1, 0), (3, 6, 0, 120_000)])
    assert film(recording, tmp_path / "a.mp4") == 3


def test_predictions_of_a_validation_bring_their_data_set(sequence: Path, tmp_path: Path) -> None:
    validation = tmp_path / "validation"
    write_results(result_of(("street", 150_000, boxes_of(CAR), found(HIT))), validation)
    dataset = load_dataset_config(["dataset=gen4", SENSOR]).model_dump(mode="json")
    (validation / "config.yaml").write_text(yaml.safe_dump({"dataset": dataset}))
    assert film(sequence, tmp_path / "a.gif", f"predictions={validation}") == 6


@pytest.mark.parametrize("own", [True, False], ids=["a run's checkpoint", "weights of another project"])
def test_network_runs_along_a_recording(tmp_path: Path, own: bool) -> None:
    """A checkpoint of ours brings its config; for other weights the command tells it."""
    small = [
        "dataset=toy", "dataset.resolution_hw=[64,128]", "dataset.downsample_by_factor_2=false",
        "model=maxvit_yolox/plain_lstm", "model.backbone.embed_dim=16", "model.backbone.partition_split_32=1",
        "model.backbone.stage.attention.dim_head=8", "model.fpn.depth=0.33",
    ]  # fmt: skip
    content: dict[str, Any] = {"state_dict": golden_weights()}
    if own:
        config = load_train_config([*small, "dataset.path=."]).model_dump(mode="json")
        content = checkpoint_content(config=config, **content)
    torch.save(content, tmp_path / "last.ckpt")
    recording = write_recording(tmp_path / "a_td.h5", [(3, 5, 1, 0), (3, 6, 0, 70_000)], sensor_hw=(64, 128))
    checkpoint = f"checkpoint={tmp_path / 'last.ckpt'}"
    assert film(recording, tmp_path / "a.gif", checkpoint, *([] if own else small), "threshold=0") == 2


def test_weights_of_another_project_need_a_config(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    recording = write_recording(tmp_path / "a_td.h5", [(3, 5, 1, 0)])
    with pytest.raises(UserError, match=r"add model=NAME dataset=NAME"):
        film(recording, tmp_path / "a.gif", f"checkpoint={tmp_path / 'other.pth'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "give SOURCE and OUT"),
        (["a", "b.avi"], r"\.mp4 or \.gif"),
        (["a", "b.mp4", "speed=fast"], "speed"),
        (["a", "b.mp4", "speed=0"], "larger than 0"),
        (["a", "b.mp4", "threshold=25"], "threshold=25: give a number from 0 to 1"),
        (["a", "b.mp4", "seconds=nan"], "seconds=nan"),
        (["a", "b.mp4", "predictions=x", "checkpoint=y"], "contradict"),
        (["nowhere", "b.mp4"], "nowhere not found"),
    ],
)
def test_mistakes_are_reported(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        film(*arguments)


def test_folder_without_a_data_set_is_reported(sequence: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add dataset=NAME"):
        film(sequence, tmp_path / "a.mp4")
    with pytest.raises(UserError, match="lacks event_representations_v2"):
        film(tmp_path, tmp_path / "a.mp4")


def test_empty_part_leaves_no_file(sequence: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no frame"):
        film(sequence, tmp_path / "a.mp4", "dataset=gen4", SENSOR, "start_s=10")
    assert not (tmp_path / "a.mp4").exists()


def test_command_line_ends_with_2_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/render.py", "nowhere", "a.mp4"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "nowhere not found" in capsys.readouterr().err


def test_a_film_that_cannot_be_written_is_no_traceback_and_leaves_no_piece(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sequence: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.gif").write_text("the film of before")

    def fail(*_: object) -> None:
        raise ValueError("an odd value")

    for error, words in (
        (None, "cannot be written"),
        (fail, "street: ValueError: an odd value (test_render.py, line "),
    ):
        out = tmp_path / ("a.gif" if error else "a.gif/deeper.gif")
        arguments = ["render.py", str(sequence), str(out), "dataset=gen4", SENSOR]
        monkeypatch.setattr(sys, "argv", arguments)
        if error:
            monkeypatch.setattr("modules.pictures.film_file.draw_frame", error)
        with pytest.raises(SystemExit, match="2"):
            main()
        assert words in capsys.readouterr().err
    assert (tmp_path / "a.gif").read_text() == "the film of before"
    assert list(tmp_path.glob(".*")) == []


def test_a_checkpoint_by_itself_imports_no_code(sequence: Path, tmp_path: Path) -> None:
    chosen = ["dataset=gen4", "model=maxvit_yolox/default", "dataset.path=."]
    overrides = [*chosen, "model.backbone.stage.cell=theirs:Cell"]
    config = load_train_config(overrides).model_dump(mode="json")
    torch.save(checkpoint_content(config=config, state_dict={}), tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"names code, model\.backbone\.stage\.cell=theirs:Cell.*--config-dir FOLDER"):
        film(sequence, tmp_path / "a.mp4", f"checkpoint={tmp_path / 'last.ckpt'}")


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files cannot grow beyond 2 kB, for other programs too: what a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_film_that_the_disk_has_no_room_for_is_no_film(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(UserError, match="cannot be written"):
        write_film(FilmFile(tmp_path / name, 20), map(Image.fromarray, noise))
    assert list(tmp_path.iterdir()) == []


def test_the_worst_frames_of_a_validation_become_pictures(sequence: Path, tmp_path: Path) -> None:
    """At 150 ms one box is missed and one invented, at 200 ms one is invented, at 250 ms all is right."""
    validation = tmp_path / "validation_val_epoch=000-val_AP=0.25"
    car, hit = (1, 6, 4, 4, 4), (4, 2, 8, 6, 0.9, 0.9, 1)
    wrong, unsure = (0, 0, 3, 3, 0.9, 0.9, 1), (0, 0, 3, 3, 0.4, 0.4, 1)
    write_results(
        result_of(
            ("street", 150_000, boxes_of(car), found(wrong)),
            ("street", 200_000, boxes_of(car), found(hit, wrong)),
            ("street", 250_000, boxes_of(car), found(hit, unsure)),
            more=f"{SENSOR} {NO_FILTER}",
        ),
        validation,
    )
    data = tmp_path / "data"
    (data / "val").mkdir(parents=True)
    shutil.copytree(sequence, data / "val" / "street")
    dataset = load_dataset_config(["dataset=gen4", SENSOR]).model_dump(mode="json")
    (validation / "config.yaml").write_text(yaml.safe_dump({"dataset": dataset}))
    arguments = [str(validation), str(tmp_path / "worst"), "worst=5"]
    with pytest.raises(UserError, match=r"dataset.path=FOLDER says where"):
        render_worst(arguments)
    assert render_worst([*arguments, f"dataset.path={data}"]) == 2
    assert sorted(path.name for path in (tmp_path / "worst").iterdir()) == [
        "001_missed=1_false=1_street_150000us.png", "002_missed=0_false=1_street_200000us.png",
    ]  # fmt: skip
    with pytest.raises(UserError, match="not empty"):
        render_worst([*arguments, f"dataset.path={data}"])
