"""Events as the rest of the project sees them: clean, in order of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8, UInt16
from numpy import ndarray


@dataclass(frozen=True)
class Events:
    """Events in order of time, all of them on the sensor."""

    x: UInt16[ndarray, " n"]
    y: UInt16[ndarray, " n"]
    polarity: UInt8[ndarray, " n"]  # 0: darker, 1: brighter
    t_us: Int64[ndarray, " n"]

    def __len__(self) -> int:
        return len(self.t_us)

    def __getitem__(self, part: slice | ndarray) -> Events:
        return Events(self.x[part], self.y[part], self.polarity[part], self.t_us[part])

    @staticmethod
    def empty(size: int = 0) -> Events:
        return Events(*(np.empty(size, dtype) for dtype in (np.uint16, np.uint16, np.uint8, np.int64)))

    @staticmethod
    def joined(parts: Sequence[Events]) -> Events:
        """All parts, one after another; a single one as it is."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return Events.empty()
        names = ("x", "y", "polarity", "t_us")
        return Events(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def after(self, t_us: int) -> Events:
        """Without the events before `t_us`."""
        return self[np.searchsorted(self.t_us, t_us) :]

    def until(self, t_us: int) -> Events:
        """Without the events behind `t_us`."""
        return self[: np.searchsorted(self.t_us, t_us, side="right")]
