"""Commands completed by what a run has recorded."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from config.errors import UserError
from modules.run.repeating import with_command_of_checkpoint, with_recorded_command
from tests.runs import make_run


def test_resume_alone_takes_the_command_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "runs" / "project", "abcd1234", 0)
    (run / "command.txt").write_text(
        "python train.py dataset=gen4 'dataset.path=/my data' +experiment/gen4=tiny training.max_steps=10 weights=w\n"
    )
    for wanted in ("latest", "abcd1234"):
        assert with_recorded_command([f"resume={wanted}", "training.max_steps=20"]) == [
            "dataset=gen4",
            "dataset.path=/my data",
            "+experiment/gen4=tiny",
            "training.max_steps=20",
            f"resume={run}",
        ]
    whole = ["dataset=gen1", "resume=latest"]
    assert with_recorded_command(whole) == whole


def test_a_recorded_command_brings_this_projects_keys_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra calls what its own node names, and reads pickles: not on the word of a run folder from somebody else."""
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "runs" / "project", "abcd1234", 0)
    hostile = [
        "++hydra.callbacks.x._target_=os.abort",
        " +hydra.callbacks.x=y",
        "hydra/launcher=theirs",
        "+hydra/callbacks@hydra.callbacks=theirs",
        "--experimental-rerun=job.pickle",
        "--config-path=theirs",
        "--multirun",
        "-cn",
        "theirs",
        "--config-dir=pkg://theirs.config",  # would import theirs
        "x\x1b[2J",
    ]
    not_repeated = [" weights=evil.pt", "+weights =evil.pt", "trust_checkpoint=true", "resume =/other"]
    ours = ["--config-dir=/own", "dataset=gen4", "+experiment/gen4=tiny", "~dataset.class_groups"]
    (run / "command.txt").write_text(shlex.join(["python", "train.py", *hostile, *not_repeated, *ours]) + "\n")
    assert with_recorded_command(["resume=latest"]) == [*ours, f"resume={run}"]
    said = capsys.readouterr().err
    assert "hydra.callbacks" in said
    assert "\x1b" not in said
    assert "Type it if you want it" in said
    assert with_recorded_command(["resume=latest", "--config-dir=/moved"]) == [
        *ours[1:],
        "--config-dir=/moved",
        f"resume={run}",
    ]


@pytest.mark.parametrize("record", [b"", b"python train.py 'open", b"python train.py \xff", b"x" * 2**17])
def test_a_command_that_cannot_be_read_is_a_mistake(tmp_path: Path, record: bytes) -> None:
    run = make_run(tmp_path / "project", "abcd1234", 0)
    (run / "command.txt").write_bytes(record)
    with pytest.raises(UserError, match="does not tell how the run was started"):
        with_recorded_command([f"resume={run}"])


def test_a_checkpoint_alone_is_validated_as_its_run_was_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "project", "abcd1234", 0)
    (run / "command.txt").write_text(
        "python train.py dataset=gen4 dataset.path=/data +experiment/gen4=tiny training.max_steps=10 resume=x "
        "batch_size.eval=8 training.precision=32 trust_checkpoint=true\n"
    )
    checkpoint = f"checkpoint={run}/checkpoints/last_epoch=000-step=1.ckpt"
    taken = ["dataset=gen4", "dataset.path=/data", "+experiment/gen4=tiny", "training.precision=32"]
    typed = [checkpoint, "batch_size.eval=2"]
    assert with_command_of_checkpoint(typed) == [*taken, *typed]
    assert capsys.readouterr().err == f"As the run was trained: {shlex.join(taken)}\n"
    for whole in (["dataset=gen4", checkpoint], [f"checkpoint={tmp_path}/elsewhere.ckpt"], ["use_test_set=true"]):
        assert with_command_of_checkpoint(whole) == whole
