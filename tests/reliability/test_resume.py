"""Resumed runs and checkpoints from elsewhere, through the real entry points."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import torch

from modules.run.checkpoint_file import read_checkpoint
from scripts.programs import Program
from tests.reliability.conftest import Train
from tests.runs import losses, run_folder

SCHEDULE = "training.lr_scheduler.total_steps=44"


def last(folder: Path) -> Path:
    (path,) = (folder / "checkpoints").glob("last_*")
    return path


def finished(program: Program, exit_code: int = 0) -> str:
    assert program.exit_code() == exit_code, program.output()
    return program.output()


def test_twenty_steps_and_twenty_more_are_forty(train: Train, tmp_path: Path) -> None:
    """The bare command repeats the recorded one; the last part reads with another number of workers."""
    finished(train("training.max_steps=40", SCHEDULE, "wandb.project_name=unbroken"))
    finished(train("training.max_steps=20", SCHEDULE))
    folder = run_folder(tmp_path)
    bare = ["resume=latest", f"run_root={tmp_path / 'runs'}", "wandb.project_name=project"]
    log = tmp_path / "log.txt"
    finished(Program([*bare, "training.max_steps=30", "hardware.num_workers.train=2"], log))
    finished(Program([f"resume={folder}", "training.max_steps=40"], log))
    assert losses(folder) == losses(run_folder(tmp_path, "unbroken"))
    assert list(losses(folder)) == list(range(40))
    ends = [read_checkpoint(last(path))["state_dict"] for path in (folder, run_folder(tmp_path, "unbroken"))]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])

    # another batch size is allowed, and what it changes is said
    output = finished(train("training.max_steps=44", SCHEDULE, "batch_size.train=3", f"resume={last(folder)}"))
    assert "batch size" in output
    assert "the epoch that it was in is left" in output
    assert list(losses(folder)) == list(range(44))


class Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("/tmp/streamrvt-evil"),)


def test_bad_checkpoints_get_one_line_each(train: Train, data_set: Path, tmp_path: Path) -> None:
    finished(train("training.max_steps=2"))
    folder = run_folder(tmp_path)
    good = last(folder)
    content = torch.load(good, weights_only=True)
    bad = {
        "empty": b"",
        "truncated": good.read_bytes()[:-5000],
        "foreign": b"PNG, perhaps" * 1000,
        "evil": {**content, "more": Evil()},
        "wrong size": {
            **content,
            "state_dict": {
                name: tensor.repeat_interleave(2, 0) if name.endswith("lstm.gates.weight") else tensor
                for name, tensor in content["state_dict"].items()
            },
        },
    }
    evil = Path("/tmp/streamrvt-evil")
    evil.unlink(missing_ok=True)
    for number, (name, what) in enumerate(bad.items()):
        path = folder / "checkpoints" / f"{name} (ü), step={number}.ckpt"
        if isinstance(what, bytes):
            path.write_bytes(what)
        else:
            torch.save(what, path)
        for key, script in (("resume", "train.py"), ("weights", "train.py"), ("checkpoint", "validation.py")):
            options = ("training.max_steps=3", "validation.limit_val_batches=1.0")
            output = finished(train(f"{key}={path}", *options, script=script), 2)
            message = output.partition(f"{script}: ")[2]
            assert message.startswith(str(path)), output
            assert message.count("\n") == 1, output
            assert "Traceback" not in output
    assert not evil.exists()
    assert last(folder) == good

    output = finished(train(f"weights={folder / 'checkpoints' / 'evil (ü), step=3.ckpt'}", "training.max_steps=3"), 2)
    assert "trust_checkpoint=true" in output
    finished(
        train(
            f"weights={folder / 'checkpoints' / 'evil (ü), step=3.ckpt'}",
            "trust_checkpoint=true",
            "training.max_steps=3",
            "wandb.project_name=trusted",
        )
    )
    assert evil.exists()
    evil.unlink()


def test_odd_paths(train: Train, data_set: Path, tmp_path: Path) -> None:
    odd = tmp_path / "Größe = 1, (zweite) Hälfte [x]"
    shutil.move(data_set, odd / "Daten")
    options = (f"dataset.path={odd / 'Daten'}", f"run_root={odd / 'Läufe'}", "hardware.num_workers.train=1")
    finished(train(*options, "training.max_steps=2", "validation.limit_val_batches=1.0"))
    (folder,) = (odd / "Läufe" / "project").iterdir()
    finished(train(*options, "training.max_steps=4", f"resume={last(folder)}"))
    assert list(losses(folder)) == list(range(4))
    finished(Program([f"resume={folder}", "training.max_steps=5"], tmp_path / "log.txt"))
    output = finished(train(*options, f"weights={last(folder)}", "training.max_steps=1", "wandb.project_name=other"))
    command = next(line for line in output.splitlines() if line.startswith("Validate it:")).split("validation.py ")[1]
    finished(Program(shlex.split(command), tmp_path / "log.txt", script="validation.py"))
    assert list((odd / "Läufe" / "other").glob("*/validation_val_*/results.json"))
