"""Draw the weight of a box in the loss by its size, for docs/losses.md.

python scripts/draw_size_weights.py docs/images/size_weights.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

KINDS = (("exponential", 2.0), ("exponential", 2.5), ("step", 2.0), ("linear", 2.0))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the picture to write")
    draw(parser.parse_args(arguments).file)


def draw(file: Path) -> None:
    import torch
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from config.schema import SizeWeightConfig
    from models.loss_terms import size_weights

    side = torch.linspace(1, 110, 1000)
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    for kind, weight in KINDS:
        config = SizeWeightConfig.model_validate({"kind": kind, "weight": weight})
        style = "--" if weight != KINDS[0][1] else "-"
        axes.plot(side, size_weights(side.square(), config), style, label=f"{kind}, weight {weight:g}")
    for border, name in ((32, "small | medium"), (96, "medium | large")):
        axes.axvline(border, color="grey", linewidth=0.8)
        axes.text(border, 2.55, name, ha="center", va="bottom", color="grey", fontsize=8)
    axes.set(xlabel="side of a square box, pixels of the frame", ylabel="weight", ylim=(0.9, 2.55))
    axes.legend(loc="upper right", fontsize=8, framealpha=1)
    FigureCanvasAgg(figure)
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main()
