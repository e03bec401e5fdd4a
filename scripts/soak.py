"""Train under random signals, kills, dying workers and damaged frames; check at the end that nothing was lost.

python scripts/soak.py [minutes=10] [seed=0] [folder=runs/soak]

Every disturbance ends a run that the next one resumes. At the end metrics.csv must hold every step once, and an
undisturbed run of as many steps must have the same losses, bit for bit.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import h5py

from config.command_line import errors_without_traceback
from config.errors import UserError
from modules.run.checkpoint_file import newest_loadable, read_checkpoint
from scripts.programs import Program

ROOT = Path(__file__).resolve().parents[1]
INTERVAL = 10
MARK = ".soak"  # in folders that this program made and may empty
LONGEST_UNDISTURBED_S = 20.0
SIZE_HW = (120, 160)
TRAINING = (
    "dataset=toy",
    f"dataset.resolution_hw=[{SIZE_HW[0]},{SIZE_HW[1]}]",
    "dataset.train.sampling=mixed",
    "dataset.sequence_length=3",
    "+experiment/toy=demo",
    "model.backbone.embed_dim=8",
    "model.backbone.stage.attention.dim_head=8",
    "model.backbone.stage.attention.drop_path=0.1",
    "training.precision=32",
    "training.lr_scheduler.total_steps=10000000",
    f"checkpoint.every_n_steps={INTERVAL}",
    "validation.val_check_interval=37",
    "hardware.gpus=0",
    "hardware.num_workers.train=2",
    "reproduce.seed_everything=1",
    "logger=csv",
    "logging.train.log_every_n_steps=1",
)
ENDINGS = {
    "SIGTERM": 143,
    "SIGHUP to the group": 129,
    "SIGINT to the group": 130,
    "SIGKILL": 137,
    "SIGKILL to a worker": 1,
}


class Soak:
    """One disturbed run and its undisturbed twin."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._random = folder, random.Random(seed)
        self._log = folder / "log.txt"
        self._data = folder / "data"
        self.done: Counter[str] = Counter()

    def make_data(self) -> None:
        raw = self._folder / "raw"
        sizes = ("--train=6", "--val=2", "--test=1", "--seconds=2", "--size=120x160")
        self._run("scripts/make_toy_dataset.py", raw, *sizes)
        self._run("scripts/preprocess.py", raw, self._data, *TRAINING[:2], "layout=both")
        for sequence in sorted((self._data / "train").iterdir())[:2]:
            compact, frames = sorted(sequence.rglob("*.h5"), key=lambda path: path.name, reverse=True)
            compact.unlink()
            damage_frame(frames, 3)

    def disturb(self) -> None:
        """Start or resume the run, wait, and end it in one of the ways; raises AssertionError for a wrong end."""
        runs = list((self._folder / "disturbed").glob("*/checkpoints/*.ckpt"))
        program = self._train("disturbed", "training.max_steps=10000000", *(["resume=latest"] if runs else []))
        program.wait_for_text("training: step")
        program.wait_for(lambda: any(self._folder.glob("disturbed/*/checkpoints/*.ckpt")), "a first checkpoint")
        time.sleep(self._random.uniform(0, LONGEST_UNDISTURBED_S))
        if self._random.random() < 0.3:
            program.kill(signal.SIGUSR1)
            self.done["SIGUSR1"] += 1
        assert program.is_alive(program.pid), f"ended by itself, see {self._log}"
        kind = self._random.choice(list(ENDINGS))
        self._end(program, kind)
        exit_code = program.exit_code()
        assert exit_code == ENDINGS[kind], f"{kind}: exit code {exit_code}, see {self._log}"
        self.done[kind] += 1
        behind = self.last_step("disturbed") + 1 - self.newest_step()
        # A kill between a step and its checkpoint costs a whole interval; everything else that ends the run saves.
        allowed = INTERVAL if kind == "SIGKILL" else 0
        assert behind <= allowed, f"{kind}: the newest checkpoint is {behind} steps behind"

    def compare(self) -> int:
        """Let the run finish, repeat it without disturbance, and compare; return the number of steps."""
        end = self.newest_step() + 5
        for project, more in (("disturbed", ["resume=latest"]), ("undisturbed", [])):
            exit_code = self._train(project, f"training.max_steps={end}", *more).exit_code(patience_s=3600)
            assert exit_code == 0, f"{project}: exit code {exit_code}, see {self._log}"
        disturbed, undisturbed = self._losses("disturbed"), self._losses("undisturbed")
        steps = [step for step, _ in disturbed]
        assert steps == list(range(end)), f"steps of metrics.csv: {[s for s in range(end) if steps.count(s) != 1]}"
        different = [step for (step, loss), (_, twin) in zip(disturbed, undisturbed, strict=True) if loss != twin]
        assert not different, f"losses differ from step {different[0]} on"
        return end

    def newest_step(self) -> int:
        (run,) = (self._folder / "disturbed").iterdir()
        try:
            return read_checkpoint(newest_loadable(run / "checkpoints"))["global_step"]
        except UserError as error:
            raise AssertionError(str(error)) from error

    def last_step(self, project: str) -> int:
        rows = self._losses(project)
        return rows[-1][0] if rows else -1

    def _losses(self, project: str) -> list[tuple[int, str]]:
        rows = []
        for path in (self._folder / project).glob("*/metrics.csv"):
            with path.open(newline="") as file:
                rows += [(int(row["step"]), row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
        return rows

    def _end(self, program: Program, kind: str) -> None:
        if kind == "SIGKILL to a worker":
            os.kill(self._random.choice(program.workers()), signal.SIGKILL)
            return
        signum = signal.Signals[kind.split()[0]]
        (program.kill_group if "group" in kind else program.kill)(signum)

    def _train(self, project: str, *overrides: str) -> Program:
        where = (f"dataset.path={self._data}", f"run_root={self._folder}", f"wandb.project_name={project}")
        return Program([*TRAINING, *where, *overrides], self._log)

    def _run(self, *command: object) -> None:
        with self._log.open("ab") as log:
            subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, stdout=log, stderr=log, check=True)


def damage_frame(path: Path, index: int) -> None:
    """Turn a byte of one frame over, as a failing disk does."""
    with h5py.File(path, "r") as file:
        chunk = file["data"].id.get_chunk_info(index)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    path.write_bytes(content)


def parse(arguments: Sequence[str]) -> tuple[float, int, Path]:
    """Minutes, seed and folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE")
    options = {"minutes": "10", "seed": "0", "folder": str(ROOT / "runs" / "soak")}
    for text in parser.parse_args(arguments).options:
        key, _, value = text.partition("=")
        if key not in options or not value:
            raise UserError(f"{text}: the options are minutes=NUMBER, seed=NUMBER and folder=FOLDER")
        options[key] = value
    try:
        return float(options["minutes"]), int(options["seed"]), Path(options["folder"])
    except ValueError as error:
        raise UserError(f"minutes={options['minutes']} seed={options['seed']}: not a number") from error


def clear(folder: Path) -> None:
    """Make the folder, anew if it is one of ours."""
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARK).is_file():
            raise UserError(f"{folder} holds something else, and would be emptied: name another with folder=")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def main() -> int:
    with errors_without_traceback():
        minutes, seed, folder = parse(sys.argv[1:])
        clear(folder)
    soak = Soak(folder, seed)
    soak.make_data()
    started = time.monotonic()
    try:
        while not soak.done or time.monotonic() - started < 60 * minutes:
            soak.disturb()
            print(f"step {soak.newest_step()}: " + ", ".join(f"{n} x {k}" for k, n in soak.done.items()), flush=True)
        steps = soak.compare()
    except AssertionError as error:
        print(f"FAILED: {error}")
        return 1
    damaged = next((folder / "disturbed").glob("*/damaged_chunks.txt")).read_text().count("\n")
    print(f"{steps} steps, each done once, as in an undisturbed run; {damaged} damaged chunks skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
