"""Alternating measurements, in this process or in ones of their own, and the rows that they give.

torch is imported late: a process of its own must set up its surroundings first.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import statistics
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from config.processor import bfloat16_units, processor_name
from modules.reports.tables import Table

Measure = Callable[[], float]  # does the work once and tells its cost: seconds, or MB


@dataclass(frozen=True)
class Row:
    """One line of the table: costs of the plain way and of ours, round by round."""

    name: str
    unit: str  # of the costs
    ours: list[float]
    plain: list[float] | None = None  # None: there is nothing to compare with
    target: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times less ours costs, by the medians."""
        return statistics.median(self.plain) / statistics.median(self.ours) if self.plain else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """Least and largest ratio of a round: what slows the machine down for a while slows both."""
        if not self.plain:
            return None
        ratios = [plain / ours for plain, ours in zip(self.plain, self.ours, strict=True)]
        return min(ratios), max(ratios)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "spread": self.spread}


def markdown(rows: list[Row]) -> str:
    """The rows as a table for a terminal or a README."""
    header = ["what", "plain way", "ours", "ratio", "rounds", "target"]
    return Table("", header, [_shown(row) for row in rows]).format("markdown")


def _shown(row: Row) -> list[str]:
    what = f"{row.name} ({row.note})" if row.note else row.name
    if not row.plain or row.spread is None:
        return [what, "", _cost(row.ours, row.unit), "", "", row.target]
    spread = "{:.2f} .. {:.2f}".format(*row.spread)
    return [what, _cost(row.plain, row.unit), _cost(row.ours, row.unit), f"{row.ratio:.2f} x", spread, row.target]


def _cost(costs: list[float], unit: str) -> str:
    return f"{statistics.median(costs):.3g} {unit}"


def alternate(measures: dict[str, Measure], rounds: int) -> dict[str, list[float]]:
    """Costs of each measure, all of them once a round, in turn forwards and backwards."""
    costs: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: 1 if number % 2 == 0 else -1]:
            costs[name].append(measures[name]())
    return costs


class Remote:
    """A measure in a process of its own: what cannot be switched back, such as the allocator, stays in there.

    Args:
        make: a module's function that prepares the measure, called in the new process with `arguments`.
        environment: variables that must stand before the process loads its libraries.
    """

    def __init__(
        self, make: Callable[..., Measure], *arguments: Any, environment: dict[str, str] | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        with _environment(environment or {}):
            self._process.start()
        theirs.close()
        self._connection.recv()

    def __call__(self) -> float:
        self._connection.send(None)
        return self._connection.recv()

    def close(self) -> None:
        self._connection.close()
        self._process.join()


def alternate_remotely(makers: dict[str, Callable[[], Remote]], rounds: int, repeats: int) -> dict[str, list[float]]:
    """As `alternate`, in a new process each time: two at once may not find room. A cost is the median of `repeats`."""

    def visit(make: Callable[[], Remote]) -> float:
        with contextlib.closing(make()) as remote:
            return statistics.median(remote() for _ in range(repeats))

    return alternate({name: partial(visit, make) for name, make in makers.items()}, rounds)


def peak_mb(function: Callable[[], object], device: str = "cpu") -> float:
    """Most memory that a call takes at a time beside what is held before."""
    if device == "cuda":
        import torch

        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before = _status_kb("VmRSS")
    function()
    return max(_status_kb("VmHWM") - before, 1) / 1e3


def machine(device: str) -> str:
    """What the figures were measured on."""
    import torch

    processor = processor_name() or platform.machine()
    units = ", ".join(bfloat16_units() or ("no bfloat16 in hardware",))
    capability = torch.backends.cpu.get_cpu_capability()
    parts = [f"{len(os.sched_getaffinity(0))} cores {processor} ({capability}, {units})"]
    if device == "cuda":
        parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"torch {torch.__version__}", date.today().isoformat()])


def _serve(connection: Any, make: Callable[..., Measure], arguments: tuple[Any, ...]) -> None:
    measure = make(*arguments)
    connection.send(None)
    with contextlib.suppress(EOFError):
        while True:
            connection.recv()
            connection.send(measure())


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Generator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _status_kb(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
