"""Where the training stands in a run whose stages follow one another; a run without stages is one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from config.schema import Config, TrainConfig
from config.stages import stage_config

_SEEDS = 2**32
_BETWEEN_SEEDS = 1_000_003  # else stage 2 would read the order of stage 1 once more


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
        run: the config of the whole run, in normal form.
        number: from 1.
        first_step: how many steps the run had when the stage began.
    """

    run: TrainConfig
    number: int = 1
    first_step: int = 0

    @property
    def is_staged(self) -> bool:
        return self.run.training.stages is not None

    @property
    def of(self) -> int:
        return len(self.run.training.stages or (None,))

    @property
    def is_last(self) -> bool:
        return self.number == self.of

    @cached_property
    def config(self) -> TrainConfig:
        """Of this stage, with the run's seed."""
        return stage_config(self.run, self.number) if self.is_staged else self.run

    @property
    def max_steps(self) -> int:
        """Of the run, when this stage ends."""
        return self.first_step + self.config.training.max_steps

    @property
    def seed(self) -> int:
        """Of order, augmentation and new weights."""
        return ((self.run.reproduce.seed_everything or 0) + (self.number - 1) * _BETWEEN_SEEDS) % _SEEDS

    @property
    def data_config(self) -> TrainConfig:
        """With the stage's seed: what the plan is made from."""
        config = self.config
        if self.number == 1:
            return config
        return config.model_copy(
            update={"reproduce": config.reproduce.model_copy(update={"seed_everything": self.seed})}
        )

    def following(self, first_step: int = 0) -> Stage:
        return replace(self, number=self.number + 1, first_step=first_step)

    def state(self) -> dict[str, int]:
        """What a checkpoint keeps of it."""
        return {"number": self.number, "first_step": self.first_step}

    def __str__(self) -> str:
        return f"stage {self.number} of {self.of}"


def stage_in(config: TrainConfig, checkpoint: dict[str, Any] | None) -> Stage:
    """The stage that a checkpoint was saved in; the first one where there is none."""
    return Stage(config, **(checkpoint or {}).get("stage", {}))


def size(config: Config) -> str:
    height, width = config.dataset.loaded_hw
    return f"{width} x {height}"
