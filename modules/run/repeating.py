"""Commands that a run has recorded, and that are taken for what is not typed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from config.errors import UserError
from config.launch import read_launch
from config.names import key_tree
from config.overrides import OVERRIDE, is_of_hydra
from config.record import only_of_this_project
from config.schema import ValidationConfig
from config.schema.base import printable
from config.search_path import RECORDED
from config.sections import is_under
from modules.run.folder import RunFolder, newest_project, run_of_checkpoint

NOT_REPEATED = ("weights", "weights_key", "weights_classes", "weights_partial", "resume", "check", "trust_checkpoint")
LONGEST_COMMAND = 2**16  # characters
# Keys that validation.py knows as well, but that change no number of a validation. All others are repeated.
_WITHOUT_EFFECT = (
    "dataset.train",
    "dataset.data_augmentation",
    "reproduce",
    "training",
    "validation.val_check_interval",
    "validation.check_val_every_n_epoch",
    "batch_size.train",
    "hardware.num_workers.train",
    "logging",
    "logger",
    "wandb",
    "run_root",
    "checkpoint",
)
_WITH_EFFECT = ("training.precision", "training.stages")


def with_recorded_command(overrides: list[str]) -> list[str]:
    """Complete `resume=...` typed without a data set by the overrides of the run that it means.

    What is typed wins over what the run was started with. Anything else is returned as it is.
    """
    typed = {_key(text): _value(text) for text in overrides}
    if "resume" not in typed or "dataset" in typed:
        return overrides
    root = Path(typed.get("run_root", "runs")).expanduser()
    project = typed.get("wandb.project_name")
    if typed["resume"] == "latest" and project is None:  # of all projects
        project = newest_project(root)
        if project is None:
            raise UserError(
                f"resume=latest: no run with a checkpoint under {root.absolute()}. run_root=FOLDER names another"
            )
    run, checkpoint = RunFolder.find(root / (project or "any"), typed["resume"])
    recorded = _recorded(run)
    kept = [text for text in recorded if _key(text) not in {*typed, *NOT_REPEATED}]
    others = [text for text in overrides if _key(text) != "resume"]
    return [*kept, *others, f"resume={(checkpoint or run.path).absolute()}"]


def with_command_of_checkpoint(overrides: list[str]) -> list[str]:
    """Complete `checkpoint=RUN/checkpoints/NAME.ckpt` typed without a data set by what the run was trained with.

    Tells what it takes. What is typed wins. Anything else is returned as it is.
    """
    typed = {_key(text): _value(text) for text in overrides}
    if "checkpoint" not in typed or "dataset" in typed:
        return overrides
    run = run_of_checkpoint(Path(typed["checkpoint"]).expanduser())
    if run is None:
        return overrides
    recorded = overrides_of_validation(["train.py", *_recorded(run)])
    kept = [text for text in recorded if _key(text) not in {*typed, *NOT_REPEATED}]
    if read_launch().rank == 0:
        print(f"As the run was trained: {printable(shlex.join(kept))}", file=sys.stderr)
    return [*kept, *overrides]


def _recorded(run: RunFolder) -> list[str]:
    """Overrides of the last command."""
    try:
        last = (run.path / "command.txt").read_text().splitlines()[-1]
        if len(last) > LONGEST_COMMAND:
            raise ValueError("no command is that long")
        recorded = shlex.split(last)[2:]
    except (OSError, IndexError, ValueError) as error:  # also of quotes and of letters
        raise UserError(f"{run.path}/command.txt does not tell how the run was started: type its overrides") from error
    recorded, refused = only_of_this_project(recorded)
    if refused:
        told = printable(shlex.join(refused))
        left_out = f"{told}: a record sets this project's keys only. Type it if you want it"
        print(f"Left out of what {run.path}/command.txt says: {left_out}", file=sys.stderr)
    return recorded


def overrides_of_validation(argv: Sequence[str]) -> list[str]:
    """Return what validation.py needs of a training command to find the numbers that its validations found."""
    return [text for text in argv[1:] if text.startswith(RECORDED) or _changes_a_validation(text)]


def _changes_a_validation(text: str) -> bool:
    match = OVERRIDE.fullmatch(text.strip())
    if match is None or text.startswith("-") or (is_of_hydra(match["key"]) and match["key"] != "hydra.searchpath"):
        return False
    key = match["key"]
    if key == "validation.limit_val_batches" and match["value"] in ("0", "0.0"):
        return False  # a training without validations
    if "/" in key or is_of_hydra(key):
        return True
    may_hold_one = key == "training" or is_under(key, _WITH_EFFECT)  # a whole section
    has_none = is_under(key, _WITHOUT_EFFECT) and not may_hold_one
    return key_tree(ValidationConfig).knows(key) and not has_none


def _key(override: str) -> str:
    match = OVERRIDE.fullmatch(override.strip())
    return match["key"] if match else override


def _value(override: str) -> str:
    return override.partition("=")[2].strip().strip("'\"")
