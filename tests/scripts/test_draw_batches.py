from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from scripts.draw_batches import main
from tests.conftest import small
from tests.runs import NETWORK


def test_a_sheet_has_a_row_for_each_step_and_a_column_for_each_row_of_the_batch(
    data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    words = [*small(data_set), *NETWORK, "dataset.train.sampling=mixed", "steps=2", str(out)]
    monkeypatch.setattr(sys, "argv", ["draw_batches.py", *words])
    main()
    cell_hw = 424, 636  # of 8 x 12 pixels
    with Image.open(out) as sheet:
        assert sheet.width == 4 * cell_hw[1]
        assert 2 * cell_hw[0] < sheet.height < 2.3 * cell_hw[0]
    assert "steps 0 to 1 of" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["draw_batches.py", *words[:-1]])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "give OUT.png" in capsys.readouterr().err
