"""Base class and shared types of the configuration tree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt
from pydantic_core import PydanticCustomError

RVT_UNIT_PX = 32  # RVT sizes its input and its attention windows in units of this, whatever the stem's stride

Probability = Annotated[float, Field(ge=0, le=1)]
Size2d = tuple[PositiveInt, PositiveInt]  # height, width
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]  # the shell leaves the ~ of `dataset.path=~/x` to us


def _import_path(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", value):
        raise PydanticCustomError("import_path", "module:Name, a class of your own (docs/extending.md)")
    return value


ImportPath = Annotated[str, AfterValidator(_import_path)]


class Strict(BaseModel):
    """Base of every section: unknown keys are errors, values cannot be written back."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
