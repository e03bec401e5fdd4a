"""Percentiles of durations in memory that does not grow."""

from __future__ import annotations

import math
from collections import Counter

PHASES = ("counting", "copying", "network", "NMS")
_STEP = 1.01  # of one bin to the next: what a percentile may be wrong by


class Durations:
    """Told to 1 %."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self._bins[math.floor(math.log(max(seconds, 1e-9), _STEP))] += 1

    def __len__(self) -> int:
        return self._bins.total()

    def percentile(self, share: float) -> float:
        """The duration that `share` (0 to 1) of them do not exceed."""
        needed, seen = share * len(self), 0
        for index in sorted(self._bins):
            seen += self._bins[index]
            if seen >= needed:
                return _STEP ** (index + 0.5)
        raise ValueError("no durations")


class Latency:
    """Of every window from its events to its boxes, and of the phases between."""

    def __init__(self) -> None:
        self.phases = {name: Durations() for name in (*PHASES, "events -> boxes")}

    def add(self, seconds: tuple[float, ...]) -> None:
        """One window's, phase by phase."""
        for name, value in zip(self.phases, (*seconds, sum(seconds)), strict=True):
            self.phases[name].add(value)

    def rows(self) -> dict[str, dict[str, float]]:
        """Milliseconds: p50, p90 and p99 by phase. They are of each phase alone, so they do not add up."""
        return {
            name: {f"p{round(100 * share)}": 1000 * durations.percentile(share) for share in (0.5, 0.9, 0.99)}
            for name, durations in self.phases.items()
            if len(durations)
        }

    def table(self) -> str:
        lines: list[str] = ["ms".ljust(16) + "p50".rjust(9) + "p90".rjust(9) + "p99".rjust(9)]
        for name, row in self.rows().items():
            lines.append(name.ljust(16) + "".join(f"{value:9.2f}" for value in row.values()))
        return "\n".join(lines)
