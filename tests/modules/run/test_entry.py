"""Whole runs on a tiny data set: what they leave, and that a stop loses nothing."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Trainer

from callbacks.checkpoint import CheckpointWriter
from config.errors import UserError
from config.loading import load_validation_config
from config.schema import ValidationConfig
from models.layers.kernels import describe_kernels
from models.weights.search import LAST_STEP, WEIGHTS
from modules.detection import DetectionModule
from modules.evaluation.evaluator import Evaluation, EvaluationResult
from modules.run.checkpoint_file import AtomicCheckpointIO, read_checkpoint
from modules.run.entry import validate
from modules.run.folder import step_of
from scripts.soak import damage_frame
from tests.conftest import FRAMES_FILE, REPRESENTATION
from tests.runs import NETWORK, Start, losses, run_folder


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, signum: int) -> None:
    """Send this process a signal in the middle of a training step."""
    original = DetectionModule.training_step

    def training_step(self: DetectionModule, *args: object) -> torch.Tensor:
        if self.global_step == step:
            os.kill(os.getpid(), signum)
        return original(self, *args)

    monkeypatch.setattr(DetectionModule, "training_step", training_step)


def test_a_run_leaves_what_it_promises(start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start("training.max_steps=7", "validation.val_check_interval=4") == 0

    folder = run_folder(tmp_path)
    assert len(folder.name) == 8
    assert re.fullmatch(
        r"python train.py dataset=gen4 .* training.max_steps=7 .*\n", (folder / "command.txt").read_text()
    )
    assert sorted(path.name for path in (folder / "checkpoints").iterdir())[1].startswith("last_epoch=00")
    assert next((folder / "checkpoints").glob("epoch=*")).name.startswith("epoch=000-step=4-val_AP=0.")
    results = json.loads((folder / "results.json").read_text())
    assert (results["status"], results["steps"], [entry["step"] for entry in results["history"]]) == (
        "finished",
        7,
        [4],
    )
    assert (folder / "confusion_matrix" / "counts.png").is_file()
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["dataset"]["train"]["sequences"] == 4
    assert environment["kernels"] == describe_kernels("cpu", torch.float32)
    printed = capsys.readouterr().out
    assert "Device: CPU" in printed
    assert "python validation.py dataset=gen4 " in printed


@pytest.mark.parametrize(
    ("workers", "stop", "more"),
    [
        (0, 4, []),
        (1, 6, []),
        (0, 6, ["model.backbone.stage.cell=s5"]),
        (0, 6, ["training.accumulate_grad_batches=4", "training.ema_decay=0.9"]),  # an epoch has 6 batches
    ],
)
def test_a_stopped_and_resumed_run_equals_an_unbroken_one(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, stop: int, more: list[str]
) -> None:
    """After a stop at step 6, the run's second validation is the new process's first."""
    options = (
        "training.max_steps=9",
        "validation.val_check_interval=4",
        f"hardware.num_workers.train={workers}",
        f"hardware.num_workers.eval={workers}",
        *more,
        "model.backbone.stage.attention.drop_path=0.2",  # draws random numbers in each step
    )
    assert start(*options, project="unbroken") == 0
    with monkeypatch.context() as context:
        stop_at(context, stop, signal.SIGTERM)
        assert start(*options, project="stopped") == 128 + signal.SIGTERM
    assert start(*options, "resume=latest", project="stopped") == 0

    unbroken, stopped = run_folder(tmp_path, "unbroken"), run_folder(tmp_path, "stopped")
    assert losses(stopped) == losses(unbroken)
    assert len(losses(stopped)) == 9
    ends = [read_checkpoint(next((run / "checkpoints").glob("last_*"))) for run in (unbroken, stopped)]
    for key in {"state_dict", "current_model_state"} & ends[0].keys():
        for name, value in ends[0][key].items():
            assert torch.equal(value, ends[1][key][name]), (key, name)
    histories = [json.loads((run / "results.json").read_text())["history"] for run in (unbroken, stopped)]
    assert [entry["step"] for entry in histories[1]] == [4, 8]
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("when", "at"),
    [
        (("validation.val_check_interval=4", "training.ema_decay=0.9"), 4),
        (("validation.val_check_interval=null", "validation.check_val_every_n_epoch=1"), 6),  # the first epoch's end
        (("validation.val_check_interval=8", "training.ema_decay=0.9"), 8),  # the end of the training
    ],
)
def test_a_stop_inside_validation_saves_and_the_validation_is_made_up_for(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: tuple[str, ...], at: int
) -> None:
    original = DetectionModule.validation_step

    def validation_step(self: DetectionModule, batch: object, batch_idx: int) -> dict:
        if batch_idx == 1 and self.global_step == at:
            os.kill(os.getpid(), signal.SIGHUP)
        return original(self, batch, batch_idx)

    options = ("training.max_steps=8", *when)
    assert start(*options, project="unbroken") == 0
    with monkeypatch.context() as context:
        context.setattr(DetectionModule, "validation_step", validation_step)
        assert start(*options) == 128 + signal.SIGHUP
    assert start(*options, "resume=latest") == 0

    unbroken, stopped = run_folder(tmp_path, "unbroken"), run_folder(tmp_path)
    expected, results = (json.loads((run / "results.json").read_text()) for run in (unbroken, stopped))
    assert results["history"] == expected["history"]
    assert at in [entry["step"] for entry in results["history"]]
    for key in ("status", "steps", "protocol", "best_checkpoint", "last_checkpoint"):
        assert results[key] == expected[key], key
    assert results["status"] == "finished"
    for name in (results["best_checkpoint"], results["last_checkpoint"]):
        assert (stopped / "checkpoints" / name).is_file()
    assert losses(stopped) == losses(unbroken)
    assert len(losses(stopped)) == 8
    ends = [read_checkpoint(run / "checkpoints" / results["last_checkpoint"]) for run in (unbroken, stopped)]
    for weights in (name for name in (WEIGHTS, LAST_STEP) if name in ends[0]):
        assert all(torch.equal(value, ends[1][weights][name]) for name, value in ends[0][weights].items()), weights


def test_an_older_checkpoint_s_run_leaves_the_later_ones_behind(start, tmp_path: Path) -> None:
    options = ("checkpoint.every_n_steps=3", "validation.limit_val_batches=0", "training.lr_scheduler.total_steps=20")
    assert start("training.max_steps=3", *options) == 0
    folder = run_folder(tmp_path)
    (older,) = (folder / "checkpoints").iterdir()
    kept = older.read_bytes()
    assert start("training.max_steps=9", *options, "resume=latest") == 0
    older.write_bytes(kept)

    assert start("training.max_steps=5", "training.learning_rate=1e-5", *options, f"resume={older}") == 0
    assert [step_of(path) for path in (folder / "checkpoints").glob("*.ckpt")] == [5]
    assert [step_of(path) for path in (folder / "checkpoints" / "abandoned").iterdir()] == [9]
    assert start("training.max_steps=6", *options, "resume=latest") == 0
    assert list(losses(folder)) == list(range(6))


def test_a_run_killed_after_its_validation_knows_its_best_checkpoint(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointWriter, "on_train_end", lambda *_: None)  # a kill leaves what validation left
    options = ("validation.val_check_interval=4", "checkpoint.keep_best=1")
    assert start("training.max_steps=4", *options) == 0
    folder = run_folder(tmp_path)
    best = json.loads((folder / "results.json").read_text())["best_checkpoint"]
    assert (folder / "checkpoints" / best).is_file()
    assert start("training.max_steps=8", *options, "resume=latest") == 0
    after = json.loads((folder / "results.json").read_text())["best_checkpoint"]
    assert [path.name for path in (folder / "checkpoints").glob("epoch=*")] == [after]


def test_checkpoints_that_are_there_already_need_no_more_space(start, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("checkpoint.keep_best=1", "validation.limit_val_batches=0")
    monkeypatch.setattr("modules.run.disk.checkpoint_bytes", lambda *_: 100_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=250_000))
    with pytest.raises(UserError, match="3 checkpoints need"):
        start("training.max_steps=2", *options)
    with monkeypatch.context() as context:
        context.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=300_000))
        assert start("training.max_steps=2", *options) == 0
    assert start("training.max_steps=4", *options, "resume=latest") == 0


def test_a_finished_run_with_more_steps_takes_the_new_schedule_at_once(start, tmp_path: Path) -> None:
    options = ("validation.limit_val_batches=0",)
    assert start("training.max_steps=6", *options) == 0
    assert start("training.max_steps=12", *options, "resume=latest") == 0
    assert start("training.max_steps=12", *options, project="unbroken") == 0
    rates = [[float(row[2]) for row in losses(run_folder(tmp_path, run)).values()] for run in ("project", "unbroken")]
    assert rates[0][6:] == pytest.approx(rates[1][6:])


@pytest.mark.parametrize(("kind", "files"), [("simple", ["fit-seconds.txt"]), ("pytorch", ["fit-operators"])])
def test_a_profile_is_in_the_run_s_folder(start: Start, tmp_path: Path, capsys, kind: str, files: list[str]) -> None:
    assert start("training.max_steps=6", "validation.limit_val_batches=0", f"training.profiler={kind}") == 0
    found = sorted((run_folder(tmp_path) / "profile").iterdir())
    assert [path.name[: len(name)] for path, name in zip(found, files, strict=False)] == files
    assert f"Profile:          {found[0]}" in capsys.readouterr().out


def test_a_fraction_of_less_than_a_batch_is_reported_without_traceback(start) -> None:
    with pytest.raises(UserError, match=r"limit_val_batches"):
        start("training.max_steps=2", "validation.limit_val_batches=0.01", "validation.val_check_interval=2")


def test_a_start_that_fails_leaves_no_folder(start, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such checkpoint"):
        start("training.max_steps=2", f"weights={tmp_path / 'none.ckpt'}")
    assert list((tmp_path / "runs" / "project").iterdir()) == []


def test_a_signal_during_the_start_leaves_no_folder(start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.run.preparation.require_usable", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as exit_:
        start("training.max_steps=2")
    assert exit_.value.code == 128 + signal.SIGTERM
    assert list((tmp_path / "runs" / "project").iterdir()) == []


def test_a_resume_that_fails_moves_no_checkpoint(start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("checkpoint.every_n_steps=3", "validation.limit_val_batches=0")
    assert start("training.max_steps=3", *options) == 0
    (older,) = (run_folder(tmp_path) / "checkpoints").iterdir()
    kept = older.read_bytes()
    assert start("training.max_steps=6", *options, "resume=latest") == 0
    older.write_bytes(kept)

    def refuse(*_: object, **__: object) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr("modules.run.preparation.check_disk_space", refuse)
    with pytest.raises(UserError, match="the disk is full"):
        start("training.max_steps=6", *options, f"resume={older}")
    assert sorted(step_of(path) for path in older.parent.rglob("*.ckpt")) == [3, 6]
    assert not (older.parent / "abandoned").exists()


@pytest.mark.parametrize(
    ("stop", "again"),
    [
        (("max_steps=6",), ("max_steps=6",)),
        (("max_steps=6",), ("max_steps=5",)),
        (("max_epochs=1",), ("max_epochs=1",)),
    ],
)
def test_a_finished_run_has_nothing_to_do(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str], stop: list[str], again: list[str]
) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run_folder(tmp_path).rglob("*") if path.is_file()}

    options = ("validation.limit_val_batches=0", "training.lr_scheduler.total_steps=400000")
    assert start(*options, *(f"training.{text}" for text in stop)) == 0
    before = content()
    capsys.readouterr()
    assert start(*options, *(f"training.{text}" for text in again), "resume=latest") == 0
    assert content() == before
    said = capsys.readouterr().out
    assert said.startswith("Nothing to do: ")
    typed = shlex.split(said.partition("for example: ")[2])
    assert typed[:3] == ["python", "train.py", f"resume={run_folder(tmp_path)}"]
    assert start(*options, *(f"training.{text}" for text in again), *typed[2:]) == 0
    assert "Nothing to do" not in capsys.readouterr().out


def test_a_resume_that_fails_in_its_first_step_leaves_the_run_as_it_was(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("checkpoint.every_n_steps=3", "validation.limit_val_batches=0", "training.lr_scheduler.total_steps=20")
    assert start("training.max_steps=3", *options) == 0
    (older,) = (run_folder(tmp_path) / "checkpoints").iterdir()
    kept = older.read_bytes()
    assert start("training.max_steps=6", *options, "resume=latest") == 0
    older.write_bytes(kept)
    files = [path for path in run_folder(tmp_path).rglob("*") if path.is_file() and path.name != "environment.json"]
    before = {path: path.read_bytes() for path in files}

    def fail(*_: object) -> None:
        raise ValueError("shapes differ")

    with monkeypatch.context() as context:
        context.setattr(DetectionModule, "training_step", fail)
        with pytest.raises(ValueError, match="shapes differ"):
            start("training.max_steps=9", *options, "training.weight_decay=1", f"resume={older}")
    assert {path: path.read_bytes() for path in files} == before
    assert start("training.max_steps=7", *options, "resume=latest") == 0
    assert sorted(losses(run_folder(tmp_path))) == list(range(7))
    assert len((run_folder(tmp_path) / "command.txt").read_text().splitlines()) == 3


def test_without_labelled_boxes_no_checkpoint_is_the_best(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def result(self: Evaluation, split: str) -> EvaluationResult:
        found = original(self, split)
        return replace(found, metrics={**found.metrics, "AP": -1.0})

    original = Evaluation.result
    monkeypatch.setattr(Evaluation, "result", result)
    assert start("training.max_steps=2", "validation.val_check_interval=2") == 0
    assert [path.name[:5] for path in (run_folder(tmp_path) / "checkpoints").iterdir()] == ["last_"]
    printed = capsys.readouterr().out
    assert "Best checkpoint" not in printed
    assert "val/AP unknown: no labelled boxes" in printed
    assert json.loads((run_folder(tmp_path) / "results.json").read_text())["best"] is None


def test_a_last_step_that_cannot_be_saved_is_an_error(start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(io: AtomicCheckpointIO, *_: object, **__: object) -> None:
        io.error = OSError("No space left on device")

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", fail)
    with pytest.raises(UserError, match="the end of the training is not saved: No space left on device"):
        start("training.max_steps=2", "validation.limit_val_batches=0")


def test_sigusr1_saves_says_so_and_goes_on(start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    stop_at(monkeypatch, 2, signal.SIGUSR1)
    saved, save = [], CheckpointWriter.save_last

    def save_last(self: CheckpointWriter, trainer: Trainer) -> bool:
        saved.append(trainer.global_step)
        return save(self, trainer)

    monkeypatch.setattr(CheckpointWriter, "save_last", save_last)
    assert start("training.max_steps=5") == 0
    assert saved == [3, 5]
    file = run_folder(tmp_path) / "checkpoints" / "last_epoch=000-step=3.ckpt"
    assert f"SIGUSR1: saved {file}\n" in capsys.readouterr().out


def validation_config(data_set: Path, checkpoint: Path, *overrides: str) -> ValidationConfig:
    return load_validation_config(
        [
            "dataset=gen4",
            "model=maxvit_yolox/default",
            *NETWORK,
            f"dataset.path={data_set}",
            "dataset.resolution_hw=[16,24]",
            "dataset.sequence_length=3",
            "dataset.eval.box_filter={min_diagonal: 0, min_side: 0, skip_first_ms: 0}",
            "hardware.num_workers.eval=1",
            "batch_size.eval=3",
            f"checkpoint={checkpoint}",
            *overrides,
        ]
    )


def test_the_printed_validation_finds_the_ap_that_training_found(start, tmp_path: Path, capsys) -> None:
    settings = (
        "evaluation.score=class",
        "training.precision=bf16-mixed",
        "model.postprocess.confidence_threshold=0.05",
    )
    pictures = "logging.validation.high_dim.enable=true"
    steps = ("training.max_steps=4", "validation.val_check_interval=4", "training.ema_decay=0.9", pictures)
    assert start(*settings, *steps, "dataset.name=A 'data' set") == 0
    folder = run_folder(tmp_path)
    printed = capsys.readouterr().out.partition("Validate it:")[2].splitlines()[0]
    typed = shlex.split(printed)
    assert typed[:2] == ["python", "validation.py"]
    assert {"evaluation.score=class", "training.precision=bf16-mixed", "dataset.name=A 'data' set"} <= set(typed)
    assert "ema_decay" not in printed
    assert validate(load_validation_config(typed[2:]), typed[1:]) == 0
    assert "the averaged weights are taken; weights_key=current_model_state takes" in capsys.readouterr().out

    (found,) = folder.glob("validation_val_*")
    again = json.loads((found / "results.json").read_text())["metrics"]
    (before,) = json.loads((folder / "results.json").read_text())["history"]
    for name, value in again.items():
        assert value == pytest.approx(before[name], abs=1e-6), name
    assert list((found / "pictures").rglob("*.png"))


def test_validation_of_a_fraction_of_less_than_a_batch(start, make_config, tmp_path: Path) -> None:
    assert start("training.max_steps=1") == 0
    (checkpoint,) = (run_folder(tmp_path) / "checkpoints").glob("last_*")
    config = validation_config(make_config(*NETWORK).dataset.path, checkpoint, "validation.limit_val_batches=0.01")
    with pytest.raises(UserError, match=r"limit_val_batches"):
        validate(config, ["validation.py"])


def test_validation_refuses_frames_that_cannot_be_read(start, make_config, tmp_path: Path) -> None:
    """The AP of the others would pass for the split's."""
    assert start("training.max_steps=1") == 0
    (checkpoint,) = (run_folder(tmp_path) / "checkpoints").glob("last_*")
    data_set = make_config(*NETWORK).dataset.path
    damage_frame(
        data_set / "val/sequence_1" / REPRESENTATION / FRAMES_FILE, 4
    )  # the check at the start looks at others
    config = validation_config(data_set, checkpoint)
    with pytest.raises(UserError, match=r"frame 4 is damaged(.*\n)*.*would not be the split's"):
        validate(config, ["validation.py"])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_validation_at_once(start, make_config, tmp_path: Path, monkeypatch, signum: int) -> None:
    assert start("training.max_steps=1") == 0
    (checkpoint,) = (run_folder(tmp_path) / "checkpoints").glob("last_*")
    config = validation_config(make_config(*NETWORK).dataset.path, checkpoint)
    monkeypatch.setattr(DetectionModule, "validation_step", lambda *_: os.kill(os.getpid(), signum))
    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as exit_:
        validate(config, ["validation.py"])
    assert exit_.value.code == 128 + signum
    assert signal.getsignal(signum) == before


@pytest.mark.parametrize("setting", ["model.fpn.in_stages=[1,2,3,4]", "model.backbone.stem.patch_size=2"])
def test_other_scales_train_validate_and_resume(start: Start, tmp_path: Path, setting: str) -> None:
    assert start(setting, "training.max_steps=2", "validation.val_check_interval=2") == 0
    run = run_folder(tmp_path)
    assert start(setting, "training.max_steps=3", f"resume={run}") == 0
    assert sorted(losses(run)) == [0, 1, 2]
    checkpoint = next((run / "checkpoints").glob("last_*"))
    with pytest.raises(UserError, match=re.escape(setting)):
        start("training.max_steps=2", f"weights={checkpoint}", project="other")


def test_the_test_split_is_measured_where_it_is_asked_for(start: Start, make_config, tmp_path: Path, capsys) -> None:
    assert start("training.max_steps=2", "validation.limit_val_batches=0") == 0
    checkpoint = next((run_folder(tmp_path) / "checkpoints").glob("last_*"))
    asked = "use_test_set=true", "protocols=[rvt,yolox]"
    config = validation_config(make_config(*NETWORK).dataset.path, checkpoint, *asked)
    assert validate(config, ["validation.py"]) == 0
    printed = capsys.readouterr().out
    assert "The same network under other protocols" in printed
    assert "at 12 x 8 of a sensor of 24 x 16" in printed
    (found,) = run_folder(tmp_path).glob("validation_test_*")
    results = json.loads((found / "results.json").read_text())
    assert results["protocol"]["split"] == "test"
    assert {name: each["protocol"]["nms_threshold"] for name, each in results["protocols"].items()} == {
        "rvt": 0.45, "yolox": 0.65,
    }  # fmt: skip
    assert results["protocol"]["labelled_frames"] == 2  # of its one sequence of five frames
    assert [path.name for path in (found / "predictions").iterdir()] == ["sequence_0_bbox.npy"]
