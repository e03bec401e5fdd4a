"""From the name in `model.backbone.stage.cell` to a cell."""

from __future__ import annotations

from config.schema import StageConfig
from models.cells.cell import Cell
from models.cells.lstm import Lstm2d
from models.cells.s5 import S5Block

CELLS = {"lstm": Lstm2d, "s5": S5Block}


def build_cell(dim: int, config: StageConfig) -> Cell:
    """The stage's cell, of the settings in the section of its name."""
    return CELLS[config.cell](dim, getattr(config, config.cell))
