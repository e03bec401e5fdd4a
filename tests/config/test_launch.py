"""Who started a process, from the variables that torchrun and SLURM set (those of SLURM as 22.05 sets them)."""

from __future__ import annotations

import pytest

from config.errors import UserError
from config.hardware import decide_device
from config.launch import Launch, first_node, read_launch

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "gpu1",
    "MASTER_PORT": "29500",
}
ALLOCATION = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "bash",
    "SLURM_NTASKS": "3",
    "SLURM_NNODES": "2",
    "SLURM_NODELIST": "gpu[01-02]",
}
BATCH_SCRIPT = {**ALLOCATION, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_TASK_PID": "1"}
TASK = {
    **BATCH_SCRIPT,
    "SLURM_PROCID": "2",
    "SLURM_NODEID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_STEP_NODELIST": "gpu[01-02]",
}


def test_torchrun() -> None:
    launch = read_launch(TORCHRUN)
    assert (launch.rank, launch.world_size, launch.local_rank, launch.local_world_size) == (3, 4, 1, 2)
    assert (launch.node_rank, launch.num_nodes, launch.address, launch.port) == (1, 2, "gpu1", 29500)


def test_a_task_of_srun_whatever_the_job_is_called() -> None:
    launch = read_launch(TASK)
    assert (launch.launcher, launch.rank, launch.world_size) == ("srun", 2, 3)
    assert (launch.local_rank, launch.local_world_size, launch.node_rank, launch.num_nodes) == (0, 1, 1, 2)
    assert launch.address == "gpu01"
    assert read_launch({**TASK, "SLURM_STEP_ID": "1"}).port != launch.port  # two trainings in one allocation
    assert read_launch({**TASK, "MASTER_PORT": "4000", "MASTER_ADDR": "here"}).port == 4000


@pytest.mark.parametrize(
    "environ",
    [ALLOCATION, BATCH_SCRIPT, {**TASK, "SLURM_PTY_PORT": "1"}, {"SLURM_NTASKS": "2"}],
    ids=["salloc", "sbatch", "srun --pty", "a variable alone"],
)
def test_an_allocations_shell_trains_alone_and_says_so(environ: dict[str, str]) -> None:
    launch = read_launch(environ)
    assert not launch.has_launcher
    assert (launch.rank, launch.world_size, launch.num_nodes) == (0, 1, 1)
    assert "trains alone; srun python train.py" in launch.note


def test_torchrun_inside_of_a_job_is_torchruns() -> None:
    assert read_launch({**TASK, **TORCHRUN}).launcher == "torchrun"


@pytest.mark.parametrize(
    ("environ", "told"),
    [({"RANK": "1", "WORLD_SIZE": "2"}, "not by torchrun"), ({**TASK, "SLURM_PROCID": "x"}, "SLURM_PROCID='x'")],
)
def test_variables_that_make_no_sense_are_refused(environ: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_launch(environ)


@pytest.mark.parametrize(
    ("names", "first"),
    [("gpu[003-006,9],cpu1", "gpu003"), ("a1,a2", "a1"), ("n[1-2]-ib", "n1-ib"), ("one", "one"), ("r[7]", "r7")],
)
def test_the_first_of_slurms_nodes(names: str, first: str) -> None:
    assert first_node(names) == first


TWO = Launch("torchrun", world_size=4, local_world_size=2, num_nodes=2)


@pytest.mark.parametrize(("gpus", "available"), [("auto", 4), (2, 2), ((1, 3), 4)])
def test_gpus_follow_the_launcher(gpus: str | int | tuple[int, ...], available: int) -> None:
    device = decide_device(gpus, None, available, launch=TWO)
    assert device.indices == (gpus if isinstance(gpus, tuple) else (0, 1))


def test_each_task_of_srun_may_see_its_own_gpu_only() -> None:
    launch = Launch("srun", world_size=4, local_world_size=4, local_rank=3)
    assert decide_device("auto", None, 1, launch=launch).indices == (0,)
    assert decide_device(4, None, 1, launch=launch).indices == (0,)


@pytest.mark.parametrize(("gpus", "available"), [(4, 4), ((0,), 4), ("auto", 1)])
def test_a_launcher_that_contradicts_gpus_is_refused(gpus: str | int | tuple[int, ...], available: int) -> None:
    with pytest.raises(UserError, match=r"torchrun --nnodes=2 --nproc_per_node=\d .*py \.\.\., or hardware\.gpus="):
        decide_device(gpus, None, available, launch=TWO)
