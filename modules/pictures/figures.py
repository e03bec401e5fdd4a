"""Figures of a run and of its evaluation: confusion matrix, training curves, one page of a report."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullFormatter
from numpy import ndarray
from PIL import Image

from modules.evaluation.coco import NO_GROUND_TRUTH, RECALL_POINTS
from modules.evaluation.confusion import MATCH_IOU, ConfusionMatrix
from modules.pictures.text import in_all_fonts, plain_figures
from modules.reports.analysis import Analysis
from modules.reports.tables import Cell, Table

MOST_CLASSES_WITH_NUMBERS = 30
_MOST_NAMES = 120  # at an axis
_MOST_CURVES = 10  # with a colour and a name of their own
_SMOOTHED_OVER = 25  # logged values, at most
_BLUE, _GREY = "#2f6fd0", "#9aa0a8"


def figure_to_image(figure: Figure) -> Image.Image:
    """Render without pyplot, whose global state outlives the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def draw_confusion_matrix(confusion: ConfusionMatrix, normalised: bool = False) -> Image.Image:
    """Colour is the share of the row, in either picture; the cells tell counts, or the shares in percent.

    Beyond MOST_CLASSES_WITH_NUMBERS the cells tell nothing, and beyond 120 classes not every one is named.
    """
    labels = in_all_fonts(confusion.labels[:-1])
    has_numbers = len(labels) <= MOST_CLASSES_WITH_NUMBERS
    cells = max(2.5, 0.75 * (len(labels) + 1)) if has_numbers else min(max(9.0, 0.13 * len(labels)), 16.0)
    totals = [f"{total:,}" for total in confusion.counts.sum(axis=1)]
    rows = [f"{name}  {total}" for name, total in zip([*labels, "background (false)"], totals, strict=True)]
    columns = [*labels, "background (missed)"]
    width, height = 2.2 + 0.08 * max(map(len, rows)), 1.3 + 0.055 * max(map(len, columns))
    with plain_figures(*confusion.labels):
        figure = Figure(figsize=(cells + width, cells + height), dpi=130, layout="constrained")
        axes = figure.add_subplot()
        shares = confusion.row_normalised
        # without numbers, what is rarely mistaken must be seen, too
        norm = PowerNorm(1.0 if has_numbers else 0.5, vmin=0, vmax=1)
        image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
        if has_numbers:
            _write_cells(axes, confusion.counts, shares, normalised)
        named = _named(len(labels))
        size, turn = (10, 40) if has_numbers else (7, 90)
        look: dict[str, Any] = {"rotation": turn, "rotation_mode": "anchor", "ha": "right", "fontsize": size}
        axes.set_xticks(named, [columns[k] for k in named], va="center" if turn == 90 else "top", **look)
        axes.set_yticks(named, [rows[k] for k in named], fontsize=size)
        axes.set_xlabel("prediction")
        axes.set_ylabel("ground truth, with the number of boxes")
        for edge in (axes.axhline, axes.axvline):
            edge(len(labels) - 0.5, color="#555555", linewidth=1)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0 if has_numbers else 2)
        kind = "percent of each row" if normalised else "counts"
        kind = kind if has_numbers else "share of each row; numbers in counts.csv"
        axes.set_title(f"Confusion matrix, {kind}\nIoU ≥ {MATCH_IOU}, score ≥ {confusion.threshold:g}", fontsize=11)
        figure.colorbar(image, ax=axes, shrink=0.7, label="share of the row")
        return figure_to_image(figure)


def _write_cells(axes: Axes, counts: Int64[ndarray, "n n"], shares: Float64[ndarray, "n n"], normalised: bool) -> None:
    for (row, column), share in np.ndenumerate(shares):
        count = counts[row, column]
        text = f"{100 * share:.1f}" if normalised else f"{count:,}"
        cell = axes.text(
            column,
            row,
            text if count else "·",
            ha="center",
            va="center",
            fontsize=9 if len(text) < 7 else 7 if len(text) < 10 else 5,
            color="white" if share > 0.55 else "#1a1a1a" if count else "#b0b0b0",
        )
        cell.set_in_layout(False)  # it lies inside: measuring hundreds takes most of the time


def _named(num_classes: int) -> list[int]:
    """Rows whose names stand at the axes: all, or as many as can be read; the background's always."""
    step = math.ceil(num_classes / _MOST_NAMES)
    return [*(row for row in range(0, num_classes, step) if row <= num_classes - step / 2), num_classes]


def write_confusion_matrix(confusion: ConfusionMatrix, folder: Path) -> dict[str, Image.Image]:
    """Write counts and row-normalised shares as CSV and PNG; return the pictures. Without numbers one tells it all."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"counts": False, "row_normalised": True}
    for name, normalised in kinds.items():
        confusion.write_csv(folder / f"{name}.csv", normalised)
    if len(confusion.labels) - 1 > MOST_CLASSES_WITH_NUMBERS:
        del kinds["counts"]
    pictures = {name: draw_confusion_matrix(confusion, normalised) for name, normalised in kinds.items()}
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return pictures


def draw_curves(metrics_csv: Path) -> Image.Image | None:
    """Draw metrics.csv; None if it holds no loss yet."""
    columns = _columns(metrics_csv, ("train/loss", "lr", "val/AP", "val/AP_50"))
    steps, loss = columns["train/loss"]
    if len(steps) == 0:
        return None
    with plain_figures():
        figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=[5, 3, 5])
        left.plot(steps, loss, color="#b8c4d6", linewidth=0.8, label="logged")
        rows = min(_SMOOTHED_OVER, max(1, len(loss) // 10))
        left.plot(steps, _smooth(loss, rows), color="#1f4e8c", linewidth=1.6, label=f"mean of {rows} logged values")
        is_positive = any(value > 0 and math.isfinite(value) for value in loss)
        left.set(title="train/loss", xlabel="step", yscale="log" if is_positive else "linear")
        left.yaxis.set_major_formatter("{x:g}")  # the usual ones need mathtext
        left.yaxis.set_minor_formatter(LogFormatter() if is_positive else NullFormatter())
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
    """Running mean over what lies behind, of the values that are finite."""
    finite = np.isfinite(values)
    sums = np.cumsum([0.0, *np.where(finite, values, 0.0)])
    counts = np.cumsum([0, *finite])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - rows, 0)
    num = counts[ends] - counts[starts]
    return np.where(num > 0, (sums[ends] - sums[starts]) / np.maximum(num, 1), np.nan)


def draw_report(analysis: Analysis, title: str) -> Image.Image:
    """Precision-recall curves, recall by size, AP by time and by event rate."""
    with plain_figures(title, *analysis.classes):
        figure = Figure(figsize=(12, 9), dpi=120, layout="constrained")
        figure.suptitle(in_all_fonts([title], 110)[0], fontsize=12)
        curves, size, time, rate = figure.subplots(2, 2).flat
        _draw_curves(curves, analysis)
        names = analysis.by_size.header[2:4]
        _draw_bars(size, analysis.by_size, dict(zip(names, (2, 3), strict=True)), boxes=1, ylabel="recall")
        _draw_bars(time, analysis.by_time, {"AP_50": 4, "AP": 3}, boxes=2, ylabel="AP")
        _draw_bars(rate, analysis.by_event_rate, {"AP_50": 4, "AP": 3}, boxes=2, ylabel="AP")
        return figure_to_image(figure)


def _draw_curves(axes: Axes, analysis: Analysis) -> None:
    """One curve per class with ground truth. Of many the best have colours and names, the others are thin and grey."""
    names = in_all_fonts(analysis.classes)
    curves = {index: analysis.precision_of(index) for index in range(len(names))}
    measured = {index: curve for index, curve in curves.items() if curve[0] != NO_GROUND_TRUTH}
    best = sorted(measured, key=lambda index: -measured[index].mean())[:_MOST_CURVES]
    others = [index for index in measured if index not in best]
    for index in others:
        label = f"{len(others)} other classes" if index == others[0] else None
        axes.plot(RECALL_POINTS, measured[index], color=_GREY, linewidth=0.5, label=label)
    for number, index in enumerate(best if others else measured):
        label = f"{names[index]}  {measured[index].mean():.3f}"
        axes.plot(RECALL_POINTS, measured[index], label=label, linewidth=1.6, color=f"C{number}")
    axes.set(title="Precision and recall at IoU 0.5", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.25)
    if axes.lines:
        axes.legend(title="class, AP_50", fontsize=8, title_fontsize=8)


def _draw_bars(axes: Axes, table: Table, series: dict[str, int], boxes: int, ylabel: str) -> None:
    """Bars per row, of each column in `series`; the number of boxes stands below: few boxes say little."""
    width = 0.8 / len(series)
    for number, ((name, column), colour) in enumerate(zip(series.items(), (_GREY, _BLUE), strict=False)):
        values = [_figure(row[column]) for row in table.rows]
        places = [place + (number - (len(series) - 1) / 2) * width for place in range(len(values))]
        axes.bar(places, [value or 0 for value in values], width * 0.94, label=name, color=colour)
        for place, value in zip(places, values, strict=True):
            text = "-" if value is None else f"{value:.2f}".lstrip("0")
            axes.text(place, (value or 0) + 0.01, text, ha="center", fontsize=7)
    ticks = [f"{row[0]}\n{row[boxes]:,}" for row in table.rows]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    axes.set(title=table.title, xlabel=f"{table.header[0]}, with the number of boxes", ylabel=ylabel, ylim=(0, 1.05))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)


def _figure(cell: Cell) -> float | None:
    """A bar's height; None where there is nothing to measure."""
    return float(cell) if cell is not None and math.isfinite(float(cell)) else None
