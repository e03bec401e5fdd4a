"""Who started this process, and how many others with it: the one place that reads torchrun's and SLURM's variables."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from config.errors import UserError

_LOWEST_PORT, _PORTS = 12_000, 20_000  # below those that Linux hands out by itself
_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")


@dataclass(frozen=True)
class Launch:
    """This process among those that one command has started.

    `lightning` means one machine: Lightning starts a process for each further GPU, and their number is no matter of a
    launcher; sizes are 1 there. Processes of a launcher meet at `address`:`port`.
    """

    launcher: Literal["torchrun", "srun", "lightning"] = "lightning"
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    node_rank: int = 0
    num_nodes: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    attempt: int = 0  # of torchrun, which may start all processes again
    key: str = ""  # tells launches apart that meet at one address
    note: str = ""

    @property
    def has_launcher(self) -> bool:
        return self.launcher != "lightning"

    def command(self, processes: int) -> str:
        """How the launcher would start that many processes of this program on each node."""
        program = Path(sys.argv[0]).name if sys.argv[0].endswith(".py") else "train.py"
        if self.launcher == "srun":
            return f"srun --nodes={self.num_nodes} --ntasks-per-node={processes} python {program} ..."
        nodes = f"--nnodes={self.num_nodes} " if self.num_nodes > 1 else ""
        return f"torchrun {nodes}--nproc_per_node={processes} {program} ..."


ALONE = Launch()


def read_launch(environ: Mapping[str, str] = os.environ) -> Launch:
    """Raises UserError for variables that contradict each other."""
    if "TORCHELASTIC_RUN_ID" in environ:
        return _of_torchrun(environ)
    if _number(environ, "WORLD_SIZE", 1) > 1 and "RANK" in environ:
        raise UserError(
            f"RANK={environ['RANK']} and WORLD_SIZE={environ['WORLD_SIZE']} are set, but not by torchrun: each process "
            "would train alone. Start it as `torchrun --nnodes=N --nproc_per_node=M train.py ...`, or unset both"
        )
    if _is_task_of_srun(environ):
        return _of_srun(environ)
    local_rank = _number(environ, "LOCAL_RANK", 0)
    return Launch(
        rank=local_rank,
        local_rank=local_rank,
        local_world_size=_number(environ, "LOCAL_WORLD_SIZE", 1),
        note=_about_slurm(environ),
    )


def _of_torchrun(environ: Mapping[str, str]) -> Launch:
    world_size, local_world_size = _number(environ, "WORLD_SIZE"), _number(environ, "LOCAL_WORLD_SIZE")
    return Launch(
        "torchrun",
        _number(environ, "RANK"),
        world_size,
        _number(environ, "LOCAL_RANK"),
        local_world_size,
        _number(environ, "GROUP_RANK", 0),
        _number(environ, "GROUP_WORLD_SIZE", max(1, world_size // local_world_size)),
        environ["MASTER_ADDR"],
        _number(environ, "MASTER_PORT"),
        _number(environ, "TORCHELASTIC_RESTART_COUNT", 0),
        environ["TORCHELASTIC_RUN_ID"],
    )


def _is_task_of_srun(environ: Mapping[str, str]) -> bool:
    """One of several tasks of a step.

    sbatch's script and salloc's shell have SLURM_PROCID and SLURM_NTASKS of the allocation, but no step. A shell of
    `srun --pty` is the only task of its step that anybody can type into.
    """
    return _number(environ, "SLURM_STEP_NUM_TASKS", 1) > 1 and "SLURM_PTY_PORT" not in environ


def _of_srun(environ: Mapping[str, str]) -> Launch:
    node_rank = _number(environ, "SLURM_NODEID")
    tasks = _tasks_of_nodes(environ["SLURM_STEP_TASKS_PER_NODE"])
    job, step = _number(environ, "SLURM_JOB_ID"), _number(environ, "SLURM_STEP_ID")
    return Launch(
        "srun",
        _number(environ, "SLURM_PROCID"),
        _number(environ, "SLURM_STEP_NUM_TASKS"),
        _number(environ, "SLURM_LOCALID"),
        tasks[node_rank],
        node_rank,
        len(tasks),
        environ.get("MASTER_ADDR") or first_node(environ["SLURM_STEP_NODELIST"]),
        _number(environ, "MASTER_PORT", _LOWEST_PORT + (job * 31 + step) % _PORTS),
        0,
        f"{job}.{step}",
    )


def _about_slurm(environ: Mapping[str, str]) -> str:
    """What to say in an allocation whose tasks did not start this process."""
    tasks = _number(environ, "SLURM_NTASKS", 1)
    if "SLURM_JOB_ID" not in environ and tasks == 1:
        return ""
    told = f"In SLURM job {environ.get('SLURM_JOB_ID', '(none)')}, not as one of several tasks of srun: trains alone"
    return f"{told}; srun python train.py ... starts a process for each of {tasks} tasks" if tasks > 1 else told


def first_node(names: str) -> str:
    """Of SLURM's short form of a list: `gpu[003-006,9],cpu1` begins with gpu003."""
    match = re.match(r"([^\[,]*)(?:\[([^\],-]*)[^\]]*\])?([^\[,]*)", names)
    assert match is not None, "everything in it is optional"
    return "".join(part or "" for part in match.groups())


def _tasks_of_nodes(short: str) -> list[int]:
    """`2(x3),1` is [2, 2, 2, 1]."""
    return [int(tasks) for tasks, nodes in _TASKS.findall(short) for _ in range(int(nodes or 1))]


def _number(environ: Mapping[str, str], name: str, otherwise: int | None = None) -> int:
    text = environ.get(name, "" if otherwise is None else str(otherwise))
    if not text.isdigit():
        raise UserError(f"{name}={text!r} in the environment is no number: what starts this process sets it")
    return int(text)
