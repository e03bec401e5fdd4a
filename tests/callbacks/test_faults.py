"""How damaged chunks count towards their limit; what becomes of a run is in reliability/test_loader.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from callbacks.faults import DamageCounter, TooMuchDamageError


def test_the_same_damage_in_each_validation_counts_once(tmp_path: Path) -> None:
    log = tmp_path / "damaged_chunks.txt"
    counter, trainer = DamageCounter(log, limit=1), SimpleNamespace(global_step=7)
    for _ in range(3):
        counter.on_validation_batch_start(trainer, None, SimpleNamespace(faults=("frame 3 of a.h5",)), 0)
    assert log.read_text() == "step 7: frame 3 of a.h5\n" * 3
    with pytest.raises(TooMuchDamageError, match=r"2 damaged chunks, more than training.max_damaged_chunks=1"):
        counter.on_validation_batch_start(trainer, None, SimpleNamespace(faults=("frame 4 of a.h5",)), 0)
