"""Room on the disk for what will be written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from modules.run.disk import room_for_results


def test_a_word_where_results_may_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert room_for_results(tmp_path, 10) == []
    monkeypatch.setattr("modules.run.disk.shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    (line,) = room_for_results(tmp_path, 1000)
    assert line.startswith(f"{tmp_path}: 1.0 MiB free, and predictions of 1,000 frames may take 22.9 MiB")
