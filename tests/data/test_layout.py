"""Behaviour of data/layout.py: names that other people's data sets have."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.loading import load_dataset_config
from data.layout import SequenceLayout, compact_path, is_sequence_folder, may_be_sequence

FOLDER = "event_representations_v2/stacked_histogram_dt=50_nbins=10"


@pytest.mark.parametrize(
    ("half", "frames"), [("true", "event_representations_ds2_nearest"), ("false", "event_representations")]
)
def test_files_lie_where_the_reference_puts_them(half: str, frames: str) -> None:
    layout = SequenceLayout.of(
        Path("a"), load_dataset_config(["dataset=gen4", f"dataset.downsample_by_factor_2={half}"])
    )
    assert layout.boxes == Path("a/labels_v2/labels.npz")
    assert layout.label_times == Path("a/labels_v2/timestamps_us.npy")
    assert layout.frames == Path(f"a/{FOLDER}/{frames}.h5")
    assert layout.compact_frames == compact_path(layout.frames) == Path(f"a/{FOLDER}/{frames}_compact.h5")
    assert layout.frame_times == Path(f"a/{FOLDER}/timestamps_us.npy")
    assert layout.label_frames == Path(f"a/{FOLDER}/objframe_idx_2_repr_idx.npy")


def test_what_is_a_sequence(tmp_path: Path) -> None:
    (tmp_path / "sequence" / FOLDER).mkdir(parents=True)
    (tmp_path / ".partial").mkdir()
    (tmp_path / "notes.txt").touch()
    assert [entry.name for entry in sorted(tmp_path.iterdir()) if may_be_sequence(entry)] == ["sequence"]
    assert is_sequence_folder(tmp_path / "sequence")
    assert not is_sequence_folder(tmp_path)
