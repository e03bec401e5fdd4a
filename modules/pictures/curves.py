"""The curves of a run as one picture: loss, learning rate, and AP over the steps."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from modules.pictures.confusion_figure import figure_to_image

_SMOOTHED_OVER = 25  # logged values, at most


def draw_curves(metrics_csv: Path) -> Image.Image | None:
    """Draw metrics.csv; None if it holds no loss yet."""
    columns = _columns(metrics_csv, ("train/loss", "lr", "val/AP", "val/AP_50"))
    steps, loss = columns["train/loss"]
    if len(steps) == 0:
        return None
    figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[5, 3, 5])
    left.plot(steps, loss, color="#b8c4d6", linewidth=0.8, label="logged")
    rows = min(_SMOOTHED_OVER, max(1, len(loss) // 10))
    left.plot(steps, _smooth(loss, rows), color="#1f4e8c", linewidth=1.6, label=f"mean of {rows} logged values")
    left.set(title="train/loss", xlabel="step", yscale="log")
    left.legend(frameon=False)
    middle.plot(*columns["lr"], color="#777777")
    middle.set(title="learning rate", xlabel="step")
    for name, colour in (("val/AP", "#c0392b"), ("val/AP_50", "#e08e0b")):
        right.plot(*columns[name], color=colour, marker="o", markersize=4, label=name)
    right.set(title="validation", xlabel="step", ylim=(0, 1))
    right.legend(frameon=False)
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure_to_image(figure)


def _columns(metrics_csv: Path, names: tuple[str, ...]) -> dict[str, tuple[list[int], list[float]]]:
    columns: dict[str, tuple[list[int], list[float]]] = {name: ([], []) for name in names}
    with metrics_csv.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, (steps, values) in columns.items():
                if row.get(name):
                    steps.append(int(row["step"]))
                    values.append(float(row[name]))
    return columns


def _smooth(values: list[float], rows: int) -> np.ndarray:
    """Running mean over what lies behind."""
    sums = np.cumsum([0.0, *np.nan_to_num(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - rows, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
