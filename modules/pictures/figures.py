"""Figures of a run and of its evaluation: confusion matrix, training curves, one page of a report."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from modules.evaluation.coco import NO_GROUND_TRUTH, RECALL_POINTS
from modules.evaluation.confusion import MATCH_IOU, ConfusionMatrix
from modules.reports.analysis import Analysis
from modules.reports.tables import Table

_SMOOTHED_OVER = 25  # logged values, at most
_BLUE, _GREY = "#2f6fd0", "#9aa0a8"


def figure_to_image(figure: Figure) -> Image.Image:
    """Render without pyplot, whose global state outlives the figure."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")


def draw_confusion_matrix(confusion: ConfusionMatrix, normalised: bool = False) -> Image.Image:
    """Colour is the share of the row, in either picture; the cells tell counts, or the shares in percent."""
    shares, labels = confusion.row_normalised, confusion.labels
    size = max(4.5, 0.75 * len(labels) + 2.5)
    figure = Figure(figsize=(size + 0.6, size), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        count = confusion.counts[row, column]
        text = f"{100 * share:.1f}" if normalised else f"{count:,}"
        axes.text(
            column,
            row,
            text if count else "·",
            ha="center",
            va="center",
            fontsize=9 if len(text) < 7 else 7,
            color="white" if share > 0.55 else "#1a1a1a" if count else "#b0b0b0",
        )
    axes.set_xticks(
        range(len(labels)), [*labels[:-1], "background\n(missed)"], rotation=40, ha="right", rotation_mode="anchor"
    )
    totals = [*confusion.counts.sum(axis=1)]
    names = [*labels[:-1], "background\n(false)"]
    axes.set_yticks(range(len(labels)), [f"{name}  {total:,}" for name, total in zip(names, totals, strict=True)])
    axes.set_xlabel("prediction")
    axes.set_ylabel("ground truth, with the number of boxes")
    for edge in (axes.axhline, axes.axvline):
        edge(len(labels) - 1.5, color="#555555", linewidth=1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    kind = "percent of each row" if normalised else "counts"
    axes.set_title(f"Confusion matrix, {kind}\nIoU ≥ {MATCH_IOU}, score ≥ {confusion.threshold:g}", fontsize=11)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the row")
    return figure_to_image(figure)


def write_confusion_matrix(confusion: ConfusionMatrix, folder: Path) -> None:
    """Write counts and row-normalised shares as CSV and PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, normalised in (("counts", False), ("row_normalised", True)):
        confusion.write_csv(folder / f"{name}.csv", normalised)
        draw_confusion_matrix(confusion, normalised).save(folder / f"{name}.png")


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


def draw_report(analysis: Analysis, title: str) -> Image.Image:
    """Precision-recall curves, recall by size, AP by time and by event rate."""
    figure = Figure(figsize=(12, 9), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=12)
    curves, size, time, rate = figure.subplots(2, 2).flat
    _draw_curves(curves, analysis)
    names = analysis.by_size.header[2:4]
    _draw_bars(size, analysis.by_size, dict(zip(names, (2, 3), strict=True)), boxes=1, ylabel="recall")
    _draw_bars(time, analysis.by_time, {"AP_50": 4, "AP": 3}, boxes=2, ylabel="AP")
    _draw_bars(rate, analysis.by_event_rate, {"AP_50": 4, "AP": 3}, boxes=2, ylabel="AP")
    return figure_to_image(figure)


def _draw_curves(axes: Axes, analysis: Analysis) -> None:
    for index, name in enumerate(analysis.classes):
        precision = analysis.precision_of(index)
        if precision[0] != NO_GROUND_TRUTH:
            axes.plot(
                RECALL_POINTS, precision, label=f"{name}  {precision.mean():.3f}", linewidth=1.6, color=f"C{index}"
            )
    axes.set(title="Precision and recall at IoU 0.5", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.25)
    if axes.lines:
        axes.legend(title="class, AP_50", fontsize=8, title_fontsize=8)


def _draw_bars(axes: Axes, table: Table, series: dict[str, int], boxes: int, ylabel: str) -> None:
    """Bars per row, of each column in `series`; the number of boxes stands below: few boxes say little."""
    width = 0.8 / len(series)
    for number, ((name, column), colour) in enumerate(zip(series.items(), (_GREY, _BLUE), strict=False)):
        heights = [float(row[column] or 0) for row in table.rows]
        places = [place + (number - (len(series) - 1) / 2) * width for place in range(len(heights))]
        axes.bar(places, heights, width * 0.94, label=name, color=colour)
        for place, height in zip(places, heights, strict=True):
            axes.text(place, height + 0.01, f"{height:.2f}".lstrip("0") or "0", ha="center", fontsize=7)
    ticks = [f"{row[0]}\n{row[boxes]:,}" for row in table.rows]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    axes.set(title=table.title, xlabel=f"{table.header[0]}, with the number of boxes", ylabel=ylabel, ylim=(0, 1.05))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)
