"""Names of recordings, and of the boxes that belong to them: one rule for all scripts."""

from __future__ import annotations

from pathlib import Path

from data.recordings.event_files import SUFFIXES

BOXES_SUFFIX = "_bbox.npy"


def recording_name(path: Path) -> str:
    """A recording's name without what tells its format: `_td` and the suffixes of event files, and nothing else.

    `cam0.2024-05-01_td.h5` and `cam0.2024-05-01.raw` are called `cam0.2024-05-01`, `a_td.dat.h5` is called `a`.
    """
    name = path.name
    while (suffix := Path(name).suffix) and suffix.lower() in SUFFIXES:
        name = name.removesuffix(suffix)
    return name.removesuffix("_td")


def boxes_beside(path: Path) -> Path:
    """Where the boxes of a recording lie, whether they exist or not."""
    return path.with_name(recording_name(path) + BOXES_SUFFIX)
