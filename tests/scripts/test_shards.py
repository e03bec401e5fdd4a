"""Parts of a command's work: what each does, what they leave together, and how they are started."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from config.errors import UserError
from scripts import check_dataset, preprocess
from scripts.shards import Launch, Shard, split_shard
from tests.recordings import files_below, write_recording

ROOT = Path(__file__).parents[2]
DATASET = ["dataset=davis346", "dataset.resolution_hw=[20,30]"]
REPEATED = "of these finished before"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings of different lengths, and one whose boxes are all too early."""
    raw = tmp_path_factory.mktemp("raw")
    for split, name, seconds in (("train", "a", 1), ("train", "b", 3), ("val", "c", 2), ("val", "d", 0.1)):
        write_recording(raw / "made", seconds)
        (raw / split).mkdir(exist_ok=True)
        for suffix in ("td.h5", "bbox.npy"):
            (raw / "made" / f"a_{suffix}").rename(raw / split / f"{name}_{suffix}")
    (raw / "made").rmdir()
    return raw


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What one process makes of them, and prints."""
    out, printed = tmp_path_factory.mktemp("whole") / "out", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert preprocess.main([str(raw), str(out), *DATASET]) == 2  # d has no usable box
    return out, printed.getvalue()


def table(printed: str, *, without: str = REPEATED) -> list[str]:
    return [line for line in printed.splitlines() if "│" in line and without not in line]


def test_parts_are_all_of_it_and_of_like_size() -> None:
    sizes = {"a": 1, "b": 9, "c": 8, "d": 2, "e": 1}
    parts = [Shard.of(f"{number}/2").part(list(sizes), sizes.__getitem__) for number in (1, 2)]
    assert parts == [["b", "d", "e"], ["a", "c"]]
    assert [Shard(number, 3).part(range(7)) for number in (1, 2, 3)] == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0/16", r"count from 1 to 16: with SLURM, --array=1-16 and shard=\$SLURM_ARRAY_TASK_ID/16"),
        ("17/16", "count from 1 to 16$"),
        ("3", "as in shard=3/16"),
        ("", "as in shard=3/16"),
        ("-1/4", "as in shard=3/16"),
    ],
)
def test_a_part_that_is_none_is_refused(value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_shard(["dataset=gen4", f"shard={value}"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["launcher=slurm", "shards=2"], "launcher=slurm: submitit is the only one"),
        (["launcher=submitit"], "needs a number of jobs"),
        (["launcher=submitit", "shards=0"], "needs a number of jobs"),
        (["launcher=submitit", "shards=2", "shard=1/2"], "leave one of the two out"),
        (["shards=2"], "belong to launcher=submitit"),
        (["submitit.timeout_min=3"], "belong to launcher=submitit"),
    ],
)
def test_a_launch_that_is_none_is_refused(keys: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Launch.split(["IN", "OUT", *keys])


def test_without_the_package_the_command_that_brings_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"-m pip install -r .*requirements-slurm.txt"):
        Launch(2, {}).run("preprocess", [])


def test_a_killed_part_and_those_that_submitit_starts_leave_what_one_process_makes(
    raw: Path,
    whole: tuple[Path, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first is killed in the middle of a sequence; the jobs run at the same time, and the sum follows."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    arguments = [str(raw), str(tmp_path / "out"), *DATASET]
    command = [sys.executable, "scripts/preprocess.py", *arguments, "shard=1/2"]
    killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while not list((tmp_path / "out").rglob("*.h5")):
        assert killed.poll() is None
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    jobs = ["launcher=submitit", "shards=2", "submitit.cluster=local", f"submitit.folder={tmp_path / 'logs'}"]
    assert preprocess.main([*arguments, *jobs, "submitit.slurm_partitoin=cpu"]) == 2
    assert "error: submitit: " in (message := capfd.readouterr().err)
    assert "slurm_partitoin" in message
    assert preprocess.main([*arguments, *jobs]) == 2
    printed = capfd.readouterr().out
    outcomes = [line.partition("): ")[2][:11] for line in printed.splitlines() if line.startswith("shard ")]
    assert sorted(outcomes) == ["done", "exit code 2"]
    assert files_below(tmp_path / "out") == files_below(whole[0])
    assert len(table(printed)) > 10
    assert table(printed) == table(whole[1])
    (finished,) = (line for line in printed.splitlines() if REPEATED in line)
    assert finished.split("│")[5].strip() == "3"  # by the jobs


def test_parts_of_the_data_doctor_add_up(
    whole: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(whole[0], tmp_path / "data")
    (data / "train" / "b" / "labels_v2" / "labels.npz").write_bytes(b"PK")
    arguments = [*DATASET, f"dataset.path={data}"]
    assert check_dataset.main(arguments) == 1
    expected = capsys.readouterr().out
    parts = [*arguments, f"reports={tmp_path / 'reports'}"]
    assert [check_dataset.main([*parts, f"shard={number}/3"]) for number in (3, 1)] == [0, 0]
    assert "missing: parts 2" in capsys.readouterr().out
    assert check_dataset.main(parts) == 2
    assert "lacks the reports of parts 2 of 3" in capsys.readouterr().err
    assert check_dataset.main([*parts, "shard=2/3"]) == 1
    assert capsys.readouterr().out.partition("Sum of 3 parts")[2].partition("\n")[2] == expected
    assert check_dataset.main([*parts, "full=true"]) == 2
    assert "is of another check" in capsys.readouterr().err
    (tmp_path / "reports" / "part_1_of_3.json").write_text("{}")
    assert check_dataset.main(parts) == 2
    assert "is no report of a part" in capsys.readouterr().err
    assert check_dataset.main([*arguments, "shard=1/3"]) == 2
