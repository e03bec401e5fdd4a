"""What came out of each stage of a run, and which one its figures are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, FiniteFloat

from modules.reports.tables import Cell, Table, measured


class StoredStage(BaseModel):
    """What a run's results.json says of a stage that has ended."""

    stage: int
    first_step: int
    last_step: int
    frame_hw: tuple[int, int]
    checkpoint: str | None = None
    AP: FiniteFloat | None = None
    at_last_stage: dict[str, FiniteFloat | None] | None = None
    last_stage_frame_hw: tuple[int, int] | None = None  # whose frames at_last_stage is measured on

    @property
    def ap_at_last(self) -> float | None:
        return measured((self.at_last_stage or {}).get("AP"))


def stages_table(stages: Sequence[StoredStage]) -> Table:
    """One row a stage that has ended: AP of its last checkpoint on its own frames, and on those of the last stage."""
    rows: list[list[Cell]] = []
    for each in stages:
        own, last = (None if hw is None else f"{hw[0]} x {hw[1]}" for hw in (each.frame_hw, each.last_stage_frame_hw))
        at_last = [each.ap_at_last, last] if each.at_last_stage is not None else [None, None]
        steps = f"{each.first_step} to {each.last_step}"
        rows.append([each.stage, steps, own, measured(each.AP), *at_last, each.checkpoint])
    header = ["stage", "steps", "frames", "AP", "AP on the last stage's frames", "which are", "checkpoint"]
    return Table("Stages, each by its last checkpoint", header, rows)


def number_of_stages(config: Mapping[str, Any]) -> int:
    """Of a run's flat config; 0 for a training without stages."""
    stages = config.get("training.stages")
    return len(stages) if isinstance(stages, list) else 0


def stage_of_step(stages: Sequence[StoredStage], step: int) -> int:
    """The stage, from 1, that a checkpoint of this step is of."""
    return 1 + sum(each.last_step < step for each in stages)
