"""The confusion matrix as a picture that can be read without the CSV beside it."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from modules.evaluation.confusion import MATCH_IOU, ConfusionMatrix


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


def figure_to_image(figure: Figure) -> Image.Image:
    """Render without pyplot, whose global state outlives the figure."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")
