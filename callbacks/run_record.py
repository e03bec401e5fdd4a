"""What comes out of a run while it trains: validations, speed, results.json, curves."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.checkpoint import CheckpointWriter
from config.errors import UserError
from config.schema import ValidationConfig
from config.stages import stage_config
from data.loader import LoaderWatch
from modules.detection import of_ours
from modules.early_stopping import validations_of
from modules.evaluation.evaluator import EvaluationResult
from modules.evaluation.results import results_dict, write_results
from modules.evaluation.variants import measure_protocols, protocols_dict
from modules.pictures.figures import draw_curves
from modules.run.folder import RunFolder
from modules.run.memory import peak_memory_mb
from modules.run.processes import is_first_process
from modules.run.writing import goes_on_without, write_json
from modules.stage import Stage


@dataclass
class _Totals:
    """Of the batches of an optimizer step."""

    waited_s: float = 0.0
    seconds: float = 0.0  # waiting included
    frames: int = 0


class RunRecord(Callback):
    """Remembers validations and time, also over resumes, and logs speed and data waiting time."""

    def __init__(self, watch: LoaderWatch) -> None:
        self._watch = watch
        self.history: list[dict[str, Any]] = []
        self.stages: list[dict[str, Any]] = []  # those that have ended
        self._seconds_before = 0.0  # of the same run, before it was resumed
        self._started = time.monotonic()
        self._batch_started = 0.0
        self._open = _Totals()  # of the step that is not complete
        self.train_seconds = 0.0
        self.train_steps = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch_started = time.perf_counter()
        _log(pl_module, "lr", of_ours(pl_module).learning_rate)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        waited = self._watch.take_waited_s()
        self._open.waited_s += waited
        self._open.seconds += time.perf_counter() - self._batch_started + waited
        self._open.frames += batch.frames.shape[0] * batch.num_lanes * trainer.world_size
        if not of_ours(pl_module).accumulation.between_steps:
            return
        step, self._open = self._open, _Totals()
        self.train_seconds += step.seconds
        self.train_steps += 1
        _log(pl_module, "system/data_wait_s", step.waited_s)
        _log(pl_module, "system/frames_per_s", step.frames / step.seconds)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.take_waited_s()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.take_waited_s()
        result = of_ours(pl_module).result
        if result is not None:
            stage = of_ours(pl_module).stage
            place = {"stage": stage.number} if stage is not None and stage.is_staged else {}
            now = {"step": trainer.global_step, "epoch": trainer.current_epoch}
            self.history.append({**now, **place, **result.metrics})

    def end_stage(
        self, stage: Stage, step: int, checkpoint: Path | None, at_last: dict[str, Any] | None = None
    ) -> None:
        """Note what came out of a stage: its checkpoint, its own last validation, and that of the last one's frames.

        Which stage is the last may have changed since, so the size of its frames is told, too.
        """
        measured = [entry["AP"] for entry in self.history if entry["step"] == step and entry["AP"] >= 0]
        self.stages.append(
            {
                "stage": stage.number,
                "first_step": stage.first_step,
                "last_step": step,
                "frame_hw": list(stage.config.dataset.loaded_hw),
                "checkpoint": checkpoint.name if checkpoint else None,
                "AP": measured[-1] if measured else None,
                "at_last_stage": at_last,
                "last_stage_frame_hw": list(stage_config(stage.run, stage.of).dataset.loaded_hw),
            }
        )

    def duration(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "seconds": self.duration(), **({"stages": self.stages} if self.stages else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]
        self.stages = state_dict.get("stages", [])
        self._seconds_before, self._started = state_dict["seconds"], time.monotonic()


def _log(pl_module: LightningModule, name: str, value: float) -> None:
    # as a tensor of the host: Lightning would copy a number to the GPU, and wait for all that is queued there
    pl_module.log(name, torch.tensor(value), batch_size=1)


class ResultsFile(Callback):
    """Keeps results.json and curves up to date. Comes after the writer, whose files it names."""

    def __init__(self, run: RunFolder, stage: Stage, record: RunRecord, writer: CheckpointWriter) -> None:
        self._run = run
        self._stage = stage
        self._record = record
        self._writer = writer

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        result = of_ours(pl_module).result
        if trainer.is_global_zero and result is not None:
            self._write(trainer, pl_module, "running")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._record.train_steps and of_ours(pl_module).result is None:
            return  # the run was finished before
        status = "finished early" if trainer.should_stop else "finished"
        if self._stage.is_staged and self._stage.is_last:
            self._record.end_stage(self._stage, trainer.global_step, self._writer.of_stage)
        self._write(trainer, pl_module, status if self._stage.is_last else "running")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not self._record.train_steps and (self._run.path / "results.json").is_file():
            return  # a resumed run that did not get under way: what it had stands
        self._write(trainer, pl_module, _status(exception))

    @goes_on_without("results.json")
    def _write(self, trainer: Trainer, pl_module: LightningModule, status: str) -> None:
        if not trainer.is_global_zero:
            return
        record, history, result = self._record, self._record.history, of_ours(pl_module).result
        validations = validations_of(self._stage, history)  # of frames of one size
        measured = [entry for entry in validations if entry["AP"] >= 0]  # else there were no labelled boxes
        best = max(measured, key=lambda entry: entry["AP"], default=None)
        content = {
            "run_id": self._run.run_id,
            "status": status,
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "duration_s": round(record.duration(), 1),
            "seconds_per_step": record.train_seconds / max(1, record.train_steps),
            "steps_per_s": record.train_steps / max(1e-9, record.train_seconds),
            "peak_memory_mb": peak_memory_mb(),
            "parameters": sum(parameter.numel() for parameter in pl_module.parameters()),
            "best": best,
            "best_checkpoint": self._writer.best[0]["file"] if self._writer.best else None,
            "last": history[-1] if history else None,
            "last_checkpoint": self._writer.last.name if self._writer.last else None,
            **({"stages": record.stages} if self._stage.is_staged else {}),
            **(results_dict(result) if result else {}),  # of the last validation
            "history": history,
        }
        path = self._run.path / "results.json"
        with goes_on_without(path):
            write_json(path, content)
        metrics, path = self._run.path / "metrics.csv", self._run.path / "curves.png"
        with goes_on_without(path):
            curves = draw_curves(metrics) if metrics.is_file() else None
            if curves is not None:
                curves.save(path)


def _status(exception: BaseException) -> str:
    return str(exception).splitlines()[0] if str(exception) else type(exception).__name__


@goes_on_without("results.json")
def note_end_between_stages(run: RunFolder, exception: BaseException) -> None:
    """There is no Trainer then whose callbacks would hear of it, and the run would pass for one that is running."""
    path = run.path / "results.json"
    if is_first_process() and path.is_file():
        write_json(path, {**json.loads(path.read_text()), "status": _status(exception)})


class StoredResults(Callback):
    """Stores the results of a validation without training. Comes before pictures, which may take the last room."""

    def __init__(self, folder: Path, config: ValidationConfig) -> None:
        self._folder, self._config = folder, config
        self._lost: str | None = None
        self.protocols: dict[str, EvaluationResult] = {}  # what those that were asked for found

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, config = of_ours(pl_module), self._config
        result, stored = module.result, dict(module.stored)
        if trainer.is_global_zero and result is not None:
            if stored:
                split = result.protocol["split"]
                self.protocols = measure_protocols(stored, config.protocols, config.dataset, config.evaluation, split)
                del stored[config.model.postprocess]  # which is stored anyway
            more = {"protocols": protocols_dict(self.protocols, config.evaluation)} if self.protocols else {}
            try:
                source = {"checkpoint": str(config.checkpoint), "weights_key": config.weights_key}
                write_results(result, self._folder, stored, **source, **more)
            except OSError as error:  # told when the figures stand on the screen
                self._lost = f"{error.strerror or error}"

    on_test_end = on_validation_end

    def raise_if_lost(self) -> None:
        if self._lost is not None:
            kept = "results.json has the figures" if (self._folder / "results.json").is_file() else "nothing is stored"
            raise UserError(f"{self._folder}: predictions not stored: {self._lost}; {kept}. Make room, run it again")
