"""Going on with a run: which one, from which checkpoint, whether anything is left to do, and what it leaves behind."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from config.errors import UserError
from config.freezing import frozen_modules
from config.schema import TrainConfig
from config.stages import STAGES
from models.weights.search import LAST_STEP
from modules.early_stopping import reason_to_stop, validations_of
from modules.run.checkpoint_file import newest_loadable, read_checkpoint
from modules.run.folder import RunFolder
from modules.run.loggers import MetricsCsv
from modules.run.processes import is_first_process, share
from modules.run.requeue import restarts, run_before_restart
from modules.stage import Stage


def open_run(config: TrainConfig, argv: Sequence[str]) -> tuple[RunFolder, Path | None]:
    """Return the run's folder, and the checkpoint to go on from; the same on all processes.

    A job that is started again goes on with the run that it has begun by the command `argv`.
    """
    project = config.run_root.expanduser() / config.wandb.project_name
    locked: list[RunFolder] = []

    def decide() -> list[str | None]:
        wanted = _wanted(config, project, argv)
        if wanted is None:
            locked.append(RunFolder.create(project))
            locked[0].lock()
            return [str(locked[0].path), None]
        run, checkpoint = RunFolder.find(project, wanted)
        run.lock()
        locked.append(run)
        if checkpoint is not None:
            read_checkpoint(checkpoint)
        return [str(run.path), str(checkpoint or newest_loadable(run.checkpoints))]

    path, checkpoint = share("RUN", decide)
    run = locked[0] if locked else RunFolder(Path(path))
    return run, Path(checkpoint) if checkpoint else None


def _wanted(config: TrainConfig, project: Path, argv: Sequence[str]) -> str | None:
    """What `resume=` says, or the run to go on with where a job is started again; None for a new one."""
    count = restarts()
    if config.resume is not None or not count:
        return config.resume
    earlier = run_before_restart(project, argv)
    told = (
        "no run of it with a checkpoint, so a new one begins" if earlier is None else f"goes on with run {earlier.name}"
    )
    print(f"This job has been started again ({count} before): {told}", flush=True)
    return None if earlier is None else str(earlier)


def nothing_to_do(stage: Stage, run: RunFolder, checkpoint: Path) -> str | None:
    """Why nothing of a stage is left to train or validate from a checkpoint, and how to go on; None if something is."""
    content = read_checkpoint(checkpoint)
    if content["callbacks"]["CheckpointWriter"]["validation_pending"]:
        return None
    training, above = stage.config.training, f"{STAGES}.{stage.number - 1}." if stage.is_staged else ""
    step, epochs = content["global_step"], content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    more: dict[str, Any] = {}
    if step >= stage.max_steps:
        key, steps = f"{above}training.max_steps", step - stage.first_step
        reached, more[key] = f"step {step}, {key}={training.max_steps}", 2 * steps
        schedule = training.lr_scheduler
        if schedule.use and schedule.total_steps != training.max_steps:  # else it follows max_steps
            more[f"{above}training.lr_scheduler.total_steps"] = max(schedule.total_steps, 2 * steps)
    elif epochs >= training.max_epochs:
        reached, more["training.max_epochs"] = f"epoch {epochs}, training.max_epochs={training.max_epochs}", 2 * epochs
    elif (reason := reason_to_stop(_history(stage, content), training.early_stopping)) is not None:
        reached, more[f"{'+' if above else ''}{above}training.early_stopping.patience"] = (
            f"step {step} and stopped early: {reason}",
            "null",
        )
    else:
        return None
    command = ["python", "train.py", f"resume={run.path}", *(f"{key}={value}" for key, value in more.items())]
    return f"Nothing to do: {checkpoint} is at {reached}. To train on, for example: {shlex.join(command)}"


def _history(stage: Stage, checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    return validations_of(stage, checkpoint["callbacks"].get("RunRecord", {}).get("history", []))


def check_frozen_parts(config: TrainConfig, checkpoint: Path) -> None:
    """Raises UserError where the checkpoint's optimizer state would be that of other parameters."""
    before = read_checkpoint(checkpoint)["config"]["training"].get("freeze", [])
    now = config.training.freeze
    if frozen_modules(before) != frozen_modules(now):
        told = [f"training.freeze=[{','.join(parts)}]" for parts in (before, now)]
        raise UserError(
            f"{checkpoint}: was trained with {told[0]}, which cannot go on with {told[1]}: the optimizer has no "
            f"state for other parameters. weights={checkpoint} starts a new run from it"
        )


def about_average(config: TrainConfig, checkpoint: Path) -> list[str]:
    """What becomes of a checkpoint's averaged weights where training.ema_decay has been switched on or off since."""
    has_average, wanted = LAST_STEP in read_checkpoint(checkpoint), config.training.ema_decay is not None
    if has_average and not wanted:
        return [f"The averaged weights of {checkpoint} are left behind: training.ema_decay=null"]
    return [f"The average of the weights begins with those of {checkpoint}"] if wanted and not has_average else []


def leave_later_history_behind(run: RunFolder, checkpoint: Path, loggers: Sequence[Logger]) -> None:
    """Put aside what lies beyond the checkpoint: it would mix with what comes now."""
    moved = run.set_aside_later_than(checkpoint) if is_first_process() else []
    if moved:
        names = ", ".join(path.name for path in moved)
        print(f"Later checkpoints are left behind, in {moved[0].parent}: {names}", flush=True)
    step = read_checkpoint(checkpoint)["global_step"]
    for logger in loggers:
        if isinstance(logger, MetricsCsv):
            logger.forget_from(step)


def kept_seed(checkpoint: Path | None) -> Any:
    """The seed of the run that a checkpoint is of, if there is one."""
    return read_checkpoint(checkpoint)["config"]["reproduce"]["seed_everything"] if checkpoint else None
