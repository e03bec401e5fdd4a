"""A job that is started again, by SLURM or by torchrun: which run was its own, and how SLURM is asked for it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from config.errors import UserError
from config.launch import read_launch
from modules.run.company import node
from modules.run.meeting import company

TIMEOUT_S = 30


def slurm_job(environ: Mapping[str, str] = os.environ) -> str | None:
    """The id that scontrol takes; of an array's task, that of the array and its number."""
    if "SLURM_ARRAY_JOB_ID" in environ and "SLURM_ARRAY_TASK_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ.get("SLURM_JOB_ID")


def own_agent() -> str:
    """What has started this process and starts it again if it fails: torchrun's agent of this node."""
    if read_launch().launcher != "torchrun":
        return ""
    try:
        started = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = "?"
    return f"torchrun:{node()}:{os.getppid()}:{started}"


def job_names() -> list[str]:
    """What a run's record is found by when its job is started again."""
    job, fellows = slurm_job(), company()
    agents = fellows.agents if fellows is not None else [own_agent()]
    slurm = [f"slurm:{os.environ.get('SLURM_CLUSTER_NAME', '')}:{job}"] if job else []
    return [*slurm, *filter(None, agents)]


def restarts(environ: Mapping[str, str] = os.environ) -> int:
    """How often the job has been started before."""
    count = environ.get("SLURM_RESTART_COUNT", "0")
    return max(int(count) if count.isdigit() else 0, read_launch(environ).attempt)


def run_before_restart(project: Path, argv: Sequence[str]) -> Path | None:
    """The run that this job has begun with the same command; None if there is none with a checkpoint."""
    names, command = set(job_names()), shlex.join(["python", *argv])
    found = []
    for record in project.glob("*/environment.json"):
        try:
            jobs = json.loads(record.read_text()).get("job", [])
            same = command in (record.parent / "command.txt").read_text().splitlines()
        except (OSError, ValueError, AttributeError):
            continue
        if same and names & set(jobs) and any((record.parent / "checkpoints").glob("*.ckpt")):
            found.append(record.parent)
    if len(found) > 1:
        runs = ", ".join(sorted(run.name for run in found))
        raise UserError(f"this job has begun several runs with the same command ({runs}): resume=ID names one")
    return found[0] if found else None


def requeue(run_id: str) -> str:
    """Have SLURM start this job again; return what to say."""
    job = slurm_job()
    if "SUBMITIT_EXECUTOR" in os.environ:
        return "Not requeued here: submitit does that, on its own signal"
    if job is None:
        return f"No SLURM job, so nothing is started again: go on with resume={run_id}"
    if shutil.which("scontrol") is None:
        return f"Not requeued: there is no scontrol here (a container?). On a login node: scontrol requeue {job}"
    state = _scontrol("show", "job", "--oneliner", os.environ.get("SLURM_JOB_ID", job))
    if "JobState=RUNNING" not in state.stdout:
        return f"Not requeued: SLURM is ending job {job} for good (cancelled, or out of time)"
    done = _scontrol("requeue", job)
    if done.returncode:
        return f"Not requeued: scontrol requeue {job}: {done.stderr.strip() or done.returncode}"
    return f"Requeued: SLURM starts job {job} again, which goes on with run {run_id}"


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(arguments, 1, "", str(error))
