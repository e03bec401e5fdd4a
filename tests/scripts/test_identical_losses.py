"""Behaviour of scripts/identical_losses.py."""

from __future__ import annotations

import pytest

from scripts import identical_losses


def test_last_digits_missing_values_and_missing_steps_are_differences() -> None:
    before = {"step 0": {"train/loss": "1.5"}, "step 1": {"train/loss": "1.25", "lr": "0.1"}}
    after = {"step 0": {"train/loss": "1.5"}, "step 1": {"train/loss": "1.2500001"}, "step 10": {"val/AP": "0.5"}}
    assert list(identical_losses._differences(before, after)) == [
        "step 1 lr: 0.1 before, missing now",
        "step 1 train/loss: 1.25 before, 1.2500001 now",
        "step 10 val/AP: missing before, 0.5 now",
    ]
    assert list(identical_losses._differences(after, after)) == []


@pytest.mark.slow
def test_a_revision_is_identical_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert identical_losses.main(["HEAD"]) == 0
    assert "identical to HEAD" in capsys.readouterr().out
