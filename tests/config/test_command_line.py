"""The entry points as a user meets them: exit codes, messages, Hydra's own commands."""

from __future__ import annotations

import contextlib
import errno
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.command_line import errors_without_traceback, hydra_command
from config.errors import UserError
from config.search_path import CONFIG_FOLDER

PROJECT = CONFIG_FOLDER.parent
Outcome = list[tuple[Any, dict[str, Any], list[str]]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "größe (a=b, c)"
    (folder / "train").mkdir(parents=True)
    return folder


@pytest.fixture
def run_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Outcome]:
    """Runs `train.py` with arguments; gives what each run received."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, exit_code: int = 0) -> Outcome:
        received: Outcome = []

        def task(config: Any, argv: list[str]) -> int:
            received.append((config, argv))
            return exit_code

        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        hydra_command("train", task)()
        return received

    return run


def etram(data: Path) -> list[str]:
    return ["model=maxvit_yolox/plain_lstm", "dataset=gen4", f"dataset.path={data}", "hardware.gpus=0"]


def test_a_run_receives_config_and_command(run_train: Callable[..., Outcome], data: Path) -> None:
    arguments = [*etram(data), "+batch_size.train=6"]
    ((config, argv),) = run_train(*arguments)
    assert config.dataset.path == data
    assert config.batch_size.train == 6
    assert argv == ["train.py", *arguments]


def test_exit_code_of_a_run_is_kept(run_train: Callable[..., Outcome], data: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        run_train(*etram(data), exit_code=143)
    assert caught.value.code == 143


def test_multirun_makes_one_run_for_each_value(run_train: Callable[..., Outcome], data: Path, tmp_path: Path) -> None:
    outcome = run_train("--multirun", *etram(data), "training.learning_rate=0.1,0.2", f"run_root={tmp_path}/runs")
    assert [config.training.learning_rate for config, _ in outcome] == [0.1, 0.2]
    assert all(config.dataset.path == data for config, _ in outcome)
    ((repeated, _),) = run_train(*outcome[1][1][1:])
    assert repeated == outcome[1][0]


def test_a_bad_value_in_a_sweep_stops_it_before_the_first_run(
    run_train: Callable[..., Outcome], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_train("-m", *etram(data), "training.learning_rate=0.1,abc")
    assert caught.value.code == 2
    assert '"abc"' in capsys.readouterr().err


def test_arguments_of_lightnings_gpu_processes(run_train: Callable[..., Outcome], data: Path) -> None:
    hydra_own = ['hydra.run.dir="."', "hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null"]
    assert len(run_train(*etram(data), *hydra_own)) == 1


def test_cfg_job_prints_the_composition(
    run_train: Callable[..., Outcome], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_train(*etram(data), "+batch_size.train=6", "--cfg", "job") == []
    assert "batch_size:\n  train: 6" in capsys.readouterr().out


def test_help_lists_what_is_on_disk(run_train: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_train("--help")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for choice in ("model=maxvit_yolox/plain_lstm", "dataset=gen4_1mpx", "+experiment/gen1=tiny"):
        assert choice in shown


def test_no_arguments_give_an_example(run_train: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_train()
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert "no data set and no model are chosen" in shown
    assert "python train.py model=maxvit_yolox/plain_lstm dataset=gen4" in shown


def test_retired_keys_are_warned_about_once(
    run_train: Callable[..., Outcome], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_train(*etram(data), "logging.ckpt_every_n_epochs=1")
    assert capsys.readouterr().err.count("logging.ckpt_every_n_epochs is RVT's") == 1


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (UserError("a/labels.npz is damaged. Preprocess the recording again"), "a/labels.npz is damaged. Preprocess"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), "a: File name too long"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "train.py: No space left on device"),
    ],
)
def test_a_mistake_inside_of_a_run_has_no_traceback(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mistake: Exception,
    message: str,
) -> None:
    def task(config: Any, argv: list[str]) -> int:
        raise mistake

    monkeypatch.setattr(sys, "argv", ["train.py", *etram(data)])
    with pytest.raises(SystemExit) as caught:
        hydra_command("train", task)()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_file_that_our_code_does_not_find_is_a_bug() -> None:
    with pytest.raises(FileNotFoundError), errors_without_traceback():
        Path("nowhere").read_text()


def test_a_run_whose_prints_fail_goes_on_to_its_end(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def task(config: Any, argv: list[str]) -> int:
        print("training", flush=True)
        done.append("trained")
        return 0

    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "argv", ["train.py", *etram(data)])
        monkeypatch.setattr(sys, "stdout", full)
        hydra_command("train", task)()
        with contextlib.suppress(OSError):  # what it could not write is still in it
            full.close()
    assert done == ["trained"]


def test_python_without_assertions_is_refused() -> None:
    done = subprocess.run([sys.executable, "-O", "train.py"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "python -O" in done.stderr


def test_mistakes_end_the_real_command_within_seconds_and_without_torch() -> None:
    overrides = ["model=rnndet", "dataset=gen4", "dataset.path=DATA", "+model.head.num_classes=8"]
    command = [sys.executable, "-X", "importtime", "train.py", *overrides]
    before = _cpu_seconds_of_children()
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert _cpu_seconds_of_children() - before < 5
    assert done.returncode == 2
    assert "model=maxvit_yolox/plain_lstm" in done.stderr
    assert "Traceback" not in done.stderr
    assert "| torch\n" not in done.stderr


def test_shell_completion_knows_groups_and_keys() -> None:
    for typed, offered in (("dataset=gen4_", "dataset=gen4_1mpx"), ("training.max_st", "training.max_steps=")):
        command = f"python train.py dataset=gen4 {typed}"
        done = subprocess.run(
            [sys.executable, "train.py", "-sc", "query=bash"],
            cwd=PROJECT,
            env={"COMP_LINE": command, "COMP_POINT": str(len(command))},
            capture_output=True,
            text=True,
            check=True,
        )
        assert offered in done.stdout.split()


def _cpu_seconds_of_children() -> float:
    """Not the wall clock, which a busy machine stretches."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("flags", [["--info"], ["-i"], ["--info", "all"]])
def test_info_may_come_first(
    flags: list[str], run_train: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([*flags, "dataset=gen4"], ["dataset=gen4", *flags]):
        assert run_train(*arguments) == []
        assert "dataset/gen4" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--info"], ["--cfg", "job"]])
def test_what_is_shown_needs_a_data_set(
    flags: list[str], run_train: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_train(*flags)
    assert caught.value.code == 2
    assert "dataset=gen4_1mpx  Prophesee" in capsys.readouterr().err
