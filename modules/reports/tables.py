"""Small tables as text, Markdown or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from config.schema.base import printable

Cell = str | int | float | None
TableFormat = Literal["text", "markdown", "csv"]


@dataclass(frozen=True)
class Table:
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]  # None: nothing to tell, shown as a dash

    def format(self, style: TableFormat = "text") -> str:
        """The whole table with a line end; CSV carries full precision and no title."""
        if style == "csv":
            buffer = io.StringIO()
            writer = csv.writer(buffer, lineterminator="\n")
            writer.writerow(self.header)
            writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
            return buffer.getvalue()
        cells = [[printable(name) for name in self.header], *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.header))]
        to_the_left = [any(isinstance(row[column], str) for row in self.rows) for column in range(len(self.header))]
        lines = [
            [
                cell.ljust(width) if left else cell.rjust(width)
                for cell, width, left in zip(row, widths, to_the_left, strict=True)
            ]
            for row in cells
        ]
        if style == "markdown":
            rule = [
                "-" * width if left else "-" * (width - 1) + ":"
                for width, left in zip(widths, to_the_left, strict=True)
            ]
            body = "".join("| " + " | ".join(line) + " |\n" for line in (lines[0], rule, *lines[1:]))
            return f"### {self.title}\n\n{body}" if self.title else body
        body = "".join("  ".join(line).rstrip() + "\n" for line in lines)
        return f"{self.title}\n{body}" if self.title else body


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4f}" if abs(cell) < 10 else f"{cell:.1f}"
    return f"{cell:,}" if isinstance(cell, int) else printable(cell)


SEQUENCE_FIGURES = ("AP", "AP_50", "frames", "boxes")
FIGURES = ("AP", "AP_50", "boxes", "missed", "false")


def figures_table(title: str, figures: Sequence[Mapping[str, Any]]) -> Table:
    """What results.json says of each class or group; dashes where there is no ground truth."""
    rows = [[row["name"], *(_figure(name, row[name]) for name in FIGURES)] for row in figures]
    return Table(title, ["class", *FIGURES], rows)


def sequences_table(title: str, figures: Sequence[Mapping[str, Any]]) -> Table:
    """What results.json says of each sequence."""
    rows = [[each["name"], *(_figure(name, each[name]) for name in SEQUENCE_FIGURES)] for each in figures]
    return Table(title, ["sequence", *SEQUENCE_FIGURES], rows)


def _figure(name: str, value: float) -> Cell:
    return measured(value) if name.startswith("AP") else value


def measured(value: float | None) -> float | None:
    """COCO's -1, no ground truth, is no figure."""
    return None if value is None or value < 0 else float(value)
