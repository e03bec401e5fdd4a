"""Behaviour of config/account.py."""

from __future__ import annotations

import getpass
import os
import pwd
from pathlib import Path

import pytest

from config.account import stand_in_for_home


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container's user: no entry in /etc/passwd, no HOME, no name."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.parametrize("home", [None, "/proc/nothing"])
@pytest.mark.usefixtures("nobody")
def test_who_has_no_home_gets_one(home: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if home is not None:
        monkeypatch.setenv("HOME", home)
    stand_in_for_home()
    assert Path.home() == tmp_path / f"streamrvt_{os.getuid()}"
    assert Path.home().is_dir()
    assert getpass.getuser() == f"streamrvt_{os.getuid()}"


@pytest.mark.usefixtures("nobody")
def test_a_name_that_somebody_else_took_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"streamrvt_{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    stand_in_for_home()
    assert Path.home().resolve().parent == tmp_path
    assert Path.home().resolve().name != "elsewhere"


def test_a_home_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    stand_in_for_home()
    assert Path.home() == tmp_path
