"""A run as a folder to be committed, without this machine's paths, name and secrets."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from config.errors import UserError
from config.secret_values import SHORTEST, is_secret
from config.yaml_files import read_yaml
from modules.evaluation.evaluator import matches_of
from modules.evaluation.protocol import apply_box_filter, box_filter_of
from modules.evaluation.results import StoredResults, read_predictions, read_results
from modules.reports.measurement import checkpoint_of, newest_validation, weighted_by_sequence
from modules.reports.resolutions import about_sizes
from modules.reports.run_table import RunRow, difference_table, read_run, run_table, stages_of
from modules.reports.significance import difference_rows, group_runs, interval_table
from modules.reports.stages import stages_table
from modules.reports.tables import Table, figures_table, measured, sequences_table

LOCAL = "<local>"
# a path from the root, not the middle of an address, a fraction or a relative path
_ABSOLUTE = re.compile(r"""(?:file://|(?<![\w.:/>~*]))(?:/[^\s/'"`,;\])}]+)+/?""")
_FIGURES = ("curves.png", "confusion_matrix")


def export(run: Path, out: Path, baseline: Path | None, checkpoint_url: str | None, split: str) -> None:
    """Write the folder. Raises UserError where the run cannot be read, OUT is in use or a secret would leak."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run's folder: it holds no config.yaml")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already, and not empty. Give a new folder")
    run = run.resolve()
    row, validation = read_run(run), newest_validation(run, split)
    texts = {
        "README.md": _readme(run, row, validation, baseline, checkpoint_url, split),
        "config.yaml": yaml.safe_dump(
            without_places(read_yaml(run / "config.yaml")), sort_keys=False, allow_unicode=True
        ),
    }
    for name, source in (("command.txt", run), ("environment.json", run), ("results.json", run)):
        texts |= _copied(name, source / name)
    if validation is not None:
        texts |= _copied("validation.json", validation / "results.json")
    figures = [path for folder in (run, validation or run) for name in _FIGURES for path in _files(folder / name)]
    told = {path: path.read_text(errors="replace") for path in figures if path.suffix == ".csv"}
    for name, text in (*texts.items(), *told.items()):
        check_leaks(str(name), text)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text)
        for path in figures:
            target = out / ("confusion_matrix" if path.parent.name == "confusion_matrix" else "") / path.name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
    except OSError as error:
        raise UserError(f"{error.filename or out} cannot be written: {error.strerror or error}") from error


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.*")) if path.is_dir() else [path] if path.is_file() else []


def _copied(name: str, source: Path) -> dict[str, str]:
    if not source.is_file():
        return {}
    text = source.read_text(errors="replace")
    if source.suffix != ".json":
        return {name: without_places(text)}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source} is no JSON: {error}") from error
    return {name: json.dumps(without_places(content), indent=2) + "\n"}


def without_places(value: Any) -> Any:
    """Text, lists and mappings without absolute paths and the machine's name."""
    if isinstance(value, dict):
        return {key: without_places(each) for key, each in value.items() if key != "host"}
    if isinstance(value, list):
        return [without_places(each) for each in value]
    if isinstance(value, str):
        return _ABSOLUTE.sub(lambda match: f"{LOCAL}/{Path(match[0]).name}", value)
    return value


def check_leaks(name: str, text: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises UserError for a secret of the environment, the home folder or the machine's name in a text."""
    for variable, secret in environment.items():
        if is_secret(variable) and len(secret) >= SHORTEST and secret in text:
            raise UserError(
                f"{name} would hold the secret {variable} of the environment. Take it out of the run's file"
            )
    home, host = str(Path.home()), platform.node()
    for what, found in (
        ("home folder", home if len(home) > 1 else ""),
        ("machine's name", host if len(host) > 3 else ""),
    ):
        if found and re.search(rf"(?<![\w-]){re.escape(found)}(?![\w-])", text):
            raise UserError(f"{name} would hold this {what}, {found}. Take it out of the run's file")


def _readme(
    run: Path, row: RunRow, validation: Path | None, baseline: Path | None, checkpoint_url: str | None, split: str
) -> str:
    config = row.config
    lines = [f"# {config.get('experiment.name') or row.cells['experiment']}", ""]
    hypothesis = config.get("experiment.hypothesis") or "none was stated (experiment.hypothesis)"
    lines += [f"**Hypothesis:** {hypothesis}", ""]
    notes = {key.removeprefix("notes."): value for key, value in config.items() if key.startswith("notes.")}
    lines += [*(f"- {key}: {value}" for key, value in notes.items()), *([""] if notes else [])]
    lines += ["## Command", "", *_block(run / "command.txt"), "The whole config is [config.yaml](config.yaml).", ""]
    lines += ["## Result", "", _result(row).format("markdown")]
    lines += [stages_table(stages).format("markdown")] if (stages := stages_of(run)) else []
    if validation is not None:
        lines += _of_validation(validation)
    else:
        lines += [f"No predictions of the {split} split are stored: no intervals, and no comparison.", ""]
    if baseline is not None:
        lines += _comparison(row, baseline, split)
    lines += ["## Code and checkpoint", "", *_code(run), *_checkpoint(run, checkpoint_url), ""]
    return without_places("\n".join(lines))


def _result(row: RunRow) -> Table:
    """All that is known of the run."""
    known = {name: cell for name, cell in row.cells.items() if cell is not None}
    return Table("", list(known), [list(known.values())])


def _block(path: Path) -> list[str]:
    return ["```", path.read_text(errors="replace").rstrip() if path.is_file() else "not recorded", "```", ""]


def _of_validation(folder: Path) -> list[str]:
    results = read_results(folder)
    protocol = results["protocol"]
    kept = apply_box_filter(read_predictions(folder), box_filter_of(protocol))
    matches = matches_of(kept, len(protocol["classes"]), protocol["score"])
    intervals = interval_table(weighted_by_sequence(matches, kept)[0], protocol["classes"])
    height, width = protocol["resolution_hw"]
    facts = [
        f"Measured on {protocol['evaluated_frames']:,} frames of the {protocol['split']} split of "
        f"{protocol['dataset']}, at {width} x {height}, with the {checkpoint_of(results)}; ranked by "
        f"{protocol['score']}, confidence ≥ {protocol['confidence_threshold']}, NMS {protocol['nms_threshold']}. "
        "[validation.json](validation.json) has all of it.",
        *([f"Compares with: {protocol['compares_with']}."] if protocol.get("compares_with") else []),
        "Areas of AP_S, AP_M, AP_L are in pixels of these frames, those of AP_S_sensor, ... in pixels of the sensor.",
        "",
    ]
    tables = [_metrics(results), figures_table("Classes", [asdict(each) for each in results["classes"]])]
    tables += [sequences_table("Sequences, the worst first", [asdict(each) for each in results.get("sequences", [])])]
    told = [f"Intervals: {intervals}.", ""] if isinstance(intervals, str) else [intervals.format("markdown")]
    return [*facts, *told, *(table.format("markdown") for table in tables if table.rows)]


def _metrics(results: StoredResults) -> Table:
    rows = [[name, measured(value)] for name, value in results["metrics"].items() if "/" not in name]
    return Table("Metrics", ["metric", "value"], rows)


def _comparison(row: RunRow, baseline: Path, split: str) -> list[str]:
    if not (baseline / "config.yaml").is_file():
        raise UserError(f"--baseline {baseline}: no run's folder, it holds no config.yaml")
    other = read_run(baseline.resolve())
    groups, notes = group_runs([row, other], split)
    told = difference_rows(groups, None) if len(groups) > 1 else ["both are of one config, as far as it decides AP"]
    table = difference_table([row, other])
    if (note := about_sizes([row.cells, other.cells], [row.config, other.config])) is not None:
        notes = [*notes, note]
    both = run_table([row, other]).format("markdown")
    lines = [f"- {line}" for line in (*told, *notes)]
    differing = [table.format("markdown")] if table.rows else ["Their configs are the same.", ""]
    return ["## Against the baseline", "", *lines, "", both, *differing]


def _code(run: Path) -> list[str]:
    path = run / "environment.json"
    try:
        environment = json.loads(path.read_text()) if path.is_file() else {}
        if not isinstance(environment, dict):
            raise ValueError(f"{type(environment).__name__} in place of keys and values")
    except ValueError as error:
        raise UserError(f"{path} is not what a run writes: {error}. Move it away to export without it") from error
    lines = [f"- Code: commit {environment.get('git_commit') or 'not recorded'}"]
    if environment.get("git_uncommitted_changes"):
        patch = run / "uncommitted.patch"
        size = f", {len(patch.read_text(errors='replace').splitlines()):,} lines" if patch.is_file() else ""
        lines[0] += (
            f", with uncommitted changes{size}: uncommitted.patch in the run's folder has those of tracked files"
        )
    return lines


def _checkpoint(run: Path, url: str | None) -> list[str]:
    path = run / "results.json"
    name = json.loads(path.read_text()).get("best_checkpoint") if path.is_file() else None
    file = run / "checkpoints" / Path(str(name)).name if name else None
    if file is None or not file.is_file():
        return ["- Checkpoint: none"] if url is None else [f"- Checkpoint: {url}"]
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    where = f"[{file.name}]({url})" if url else f"{file.name}, in the run {run.name}"
    return [f"- Checkpoint: {where}; {file.stat().st_size:,} bytes, sha256 {digest}"]
