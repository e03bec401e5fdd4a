from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.errors import UserError
from modules.run.folder import RunFolder, run_of_checkpoint
from tests.runs import make_run


def test_a_hundred_runs_get_a_hundred_folders(tmp_path: Path) -> None:
    runs = {RunFolder.create(tmp_path / "project").path for _ in range(100)}
    assert len(runs) == 100
    assert all(len(run.name) == 8 and (run / "checkpoints").is_dir() for run in runs)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/project.*run_root="):
        RunFolder.create(tmp_path / "file" / "project")


def test_latest_is_the_run_with_the_newest_checkpoint(tmp_path: Path) -> None:
    make_run(tmp_path, "older000", 100)
    newer = make_run(tmp_path, "newer000", 50)
    make_run(tmp_path, "empty000", None)
    assert RunFolder.find(tmp_path, "latest")[0].path == newer


def test_a_run_is_found_by_id_folder_and_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "project", "abcd1234", 0)
    checkpoint = run / "checkpoints" / "last_epoch=000-step=1.ckpt"
    for wanted, expected in [("abcd1234", None), (str(run), None), (str(checkpoint), checkpoint)]:
        found, chosen = RunFolder.find(tmp_path / "project", wanted)
        assert (found.path, chosen) == (run, expected)
    assert RunFolder.find(tmp_path / "another project", "abcd1234")[0].path == run
    assert run_of_checkpoint(checkpoint).path == run


def test_what_cannot_be_resumed_is_reported(tmp_path: Path) -> None:
    make_run(tmp_path, "abcd1234", 0)
    with pytest.raises(UserError, match=r"resume=nothing.*abcd1234"):
        RunFolder.find(tmp_path, "nothing")
    with pytest.raises(UserError, match=r"resume=\*: no such run"):
        RunFolder.find(tmp_path, "*")
    with pytest.raises(UserError, match="no run with a checkpoint"):
        RunFolder.find(tmp_path / "elsewhere", "latest")
    foreign = tmp_path / "foreign.ckpt"
    foreign.touch()
    with pytest.raises(UserError, match=f"weights={foreign}"):
        RunFolder.find(tmp_path, str(foreign))


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path)
    run.lock()
    child = os.fork()
    if child == 0:
        try:
            RunFolder(run.path).lock()
        except UserError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path)
    (run.path / ".lock").mkdir()  # root may write anywhere else
    with pytest.raises(UserError, match=f"{run.path}: cannot be written"):
        run.lock()


@pytest.mark.parametrize("name", [".lock", "config.yaml", "metrics.csv", "checkpoints/best.ckpt", "new/folder"])
def test_a_run_folder_whose_links_lead_elsewhere_is_not_resumed(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "project", "abcd1234", 0)
    precious = tmp_path / "precious"
    precious.write_text("kept")
    link = run / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(precious)
    with pytest.raises(UserError, match=f"{name} is a link out of the run's folder"):
        RunFolder.find(tmp_path / "project", "abcd1234")
    assert precious.read_text() == "kept"


def test_links_inside_a_run_are_kept_and_pipes_do_not_hang(tmp_path: Path) -> None:
    run = make_run(tmp_path / "project", "abcd1234", 0)
    (run / "checkpoints" / "best.ckpt").symlink_to("last_epoch=000-step=1.ckpt")
    assert RunFolder.find(tmp_path / "project", "abcd1234")[0].path == run
    os.mkfifo(run / ".lock")
    with pytest.raises(UserError, match=r"\.lock is no file"):
        RunFolder.find(tmp_path / "project", "abcd1234")
