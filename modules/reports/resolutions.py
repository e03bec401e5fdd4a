"""Runs on frames of different sizes in one table: which figures are of the same objects, and which are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from config.schema import recorded_hw
from modules.reports.tables import Cell

AS_LOADED = ("AP_S", "AP_M", "AP_L")
ON_THE_SENSOR = ("AP_S_sensor", "AP_M_sensor", "AP_L_sensor")
FRAMES = "frames"
_OF_THE_BOXES = ("dataset.resolution_hw", "dataset.eval.box_filter.")  # which ones AP is measured on
_SECTION = "dataset."


def frames_of(config: Mapping[str, Any]) -> str | None:
    """Height and width of a run's frames, of its flat config."""
    section = {key.removeprefix(_SECTION): value for key, value in config.items() if key.startswith(_SECTION)}
    hw = recorded_hw(section)
    return None if hw is None else f"{hw[0]} x {hw[1]}"


def ordered(header: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    """Columns of a table: where frames differ in size, sizes of boxes on the sensor first, and those as loaded last."""
    if len(_sizes(rows)) < 2:
        return [name for name in header if name not in (*ON_THE_SENSOR, FRAMES)]
    first = ["run", FRAMES]
    others = [name for name in header if name not in (*first, *AS_LOADED)]
    return [*(name for name in first if name in header), *others, *(name for name in AS_LOADED if name in header)]


def about_sizes(rows: Sequence[Mapping[str, Cell]], configs: Sequence[Mapping[str, Any]]) -> str | None:
    """What may be compared in a table of frames of several sizes; None where there is one size."""
    sizes = _sizes(rows)
    if len(sizes) < 2:
        return None
    apart = sorted({key for config in configs for key in config if key.startswith(_OF_THE_BOXES)})
    apart = [key for key in apart if len({repr(config.get(key)) for config in configs if config}) > 1]
    same = (
        f"AP is of different boxes, too: {', '.join(apart)} differ"
        if apart
        else "AP and AP_50 are of the same boxes, those that the filter keeps in pixels of the sensor"
    )
    return (
        f"Frames of {', '.join(sizes)}: AP_S, AP_M and AP_L are of different objects, as areas count in pixels of the "
        f"frame; AP_S_sensor, AP_M_sensor and AP_L_sensor are of the same. {same}"
    )


def _sizes(rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    return list(dict.fromkeys(str(row[FRAMES]) for row in rows if row.get(FRAMES) is not None))
