"""Behaviour of callbacks/run_record.py beyond whole runs, which tests/modules/run/test_entry.py makes."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from callbacks.run_record import RunRecord, StoredResults, note_end_between_stages
from config.errors import UserError
from data.loader import LoaderWatch
from modules.run.folder import RunFolder
from tests.evaluations import CAR, HIT, boxes_of, found, result_of


def test_results_that_the_disk_has_no_room_for_end_a_validation_after_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer: Any = SimpleNamespace(is_global_zero=True)
    module: Any = SimpleNamespace(result=result_of(("a", 600_000, boxes_of(CAR), found(HIT))), stored={})
    config: Any = SimpleNamespace(checkpoint=Path("last.ckpt"), weights_key=None)
    stored = StoredResults(tmp_path, config)
    with monkeypatch.context() as context:
        context.setattr(np, "save", fail)
        stored.on_validation_end(trainer, module)
    with pytest.raises(UserError, match=r"not stored: No space left on device; results\.json has the figures"):
        stored.raise_if_lost()

    whole = StoredResults(tmp_path, config)
    whole.on_test_end(trainer, module)
    whole.raise_if_lost()
    assert (tmp_path / "frames.csv").is_file()


def test_a_run_s_duration_includes_what_comes_between_its_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("callbacks.run_record.time.monotonic", lambda: clock.now)
    record, nothing = RunRecord(LoaderWatch()), cast(Any, None)
    clock.now = 160  # trained
    state = record.state_dict()
    clock.now = 190  # the validation on the last stage's frames
    record.on_fit_start(nothing, nothing)
    assert record.duration() == 90
    resumed = RunRecord(LoaderWatch())
    clock.now = 500
    resumed.load_state_dict(state)
    clock.now = 510
    assert resumed.duration() == 70


def test_a_run_that_ends_between_two_stages_does_not_pass_for_one_that_is_running(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"status": "running", "steps": 4}')
    note_end_between_stages(RunFolder(tmp_path), UserError("no frames\nat all"))
    assert json.loads((tmp_path / "results.json").read_text()) == {"status": "no frames", "steps": 4}
