"""A figure of AP against the rate of windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image

from modules.pictures.figures import figure_to_image
from modules.pictures.text import in_all_fonts, plain_figures

Point = tuple[float, float, float]  # windows a second, AP, AP_50


def draw_rates(lines: Mapping[str, Sequence[Point]], title: str) -> Image.Image:
    """A line for each name, AP and AP_50 apart. A figure of -1, without any ground truth, is no point."""
    with plain_figures(title, *lines):
        figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
        figure.suptitle(in_all_fonts([title], 110)[0], fontsize=11)
        for column, (axes, name) in enumerate(zip(figure.subplots(1, 2), ("AP", "AP_50"), strict=True), start=1):
            for number, (label, points) in enumerate(lines.items()):
                known = sorted((point[0], point[column]) for point in points if point[column] >= 0)
                style = {"marker": "os^"[number % 3], "markersize": 4, "linewidth": 1.6, "color": f"C{number}"}
                axes.plot(*zip(*known, strict=True), label=label, **style) if known else None
            hertz = sorted({point[0] for points in lines.values() for point in points})
            axes.set_xscale("log")
            axes.set_xticks(hertz, [f"{hz:g}" for hz in hertz])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set(title=name, xlabel="windows a second", ylim=(0, None))
            axes.grid(alpha=0.25)
            if axes.lines:
                axes.legend(fontsize=8)
        return figure_to_image(figure)
