"""One page of figures: what a report's tables say."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from modules.evaluation.coco import NO_GROUND_TRUTH, RECALL_POINTS
from modules.pictures.confusion_figure import figure_to_image
from modules.reports.analysis import Analysis
from modules.reports.tables import Table

_BLUE, _GREY = "#2f6fd0", "#9aa0a8"


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
        heights = [row[column] or 0 for row in table.rows]
        places = [place + (number - (len(series) - 1) / 2) * width for place in range(len(heights))]
        axes.bar(places, heights, width * 0.94, label=name, color=colour)
        for place, height in zip(places, heights, strict=True):
            axes.text(place, height + 0.01, f"{height:.2f}".lstrip("0") or "0", ha="center", fontsize=7)
    ticks = [f"{row[0]}\n{row[boxes]:,}" for row in table.rows]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    axes.set(title=table.title, xlabel=f"{table.header[0]}, with the number of boxes", ylabel=ylabel, ylim=(0, 1.05))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)
