"""`-h` of every script shows its help and does nothing else."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PROGRAMS = sorted(path.name for path in SCRIPTS.glob("*.py") if 'if __name__ == "__main__"' in path.read_text())


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_of_a_program(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "-h"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")
    assert not ended.value.code
    assert f"python scripts/{name}" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())


def in_screen(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """train_in_screen.sh with a `screen` that only notes what it is asked for."""
    fake = folder / "bin" / "screen"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text('#!/bin/sh\n[ "$1" = -ls ] || printf "%s\\n" "$2" > asked.txt\n')
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    script = str(SCRIPTS / "train_in_screen.sh")
    return subprocess.run([script, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_a_screen_session_is_named_as_it_is_typed_and_attached_as_it_is_printed(tmp_path: Path) -> None:
    done = in_screen(tmp_path, "first try", "dataset=toy")
    assert done.returncode == 0
    assert (tmp_path / "asked.txt").read_text() == "first try\n"
    assert r"screen -r first\ try" in done.stdout


@pytest.mark.parametrize("name", ["a/b", "-odd", "it's", "", "x" * 61, ".hidden", "two\nlines"])
def test_a_name_that_screen_cannot_take_is_refused(tmp_path: Path, name: str) -> None:
    done = in_screen(tmp_path, name, "dataset=toy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "NAME is" in done.stderr
    assert not (tmp_path / "asked.txt").exists()
