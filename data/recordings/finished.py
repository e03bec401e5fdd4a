"""Sequences that are finished: whether this command's settings would make the same, and what was reported of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from config.errors import UserError
from config.schema import DatasetConfig
from data.arrays import read_npy
from data.checks.sequence import check_sequence
from data.frame_files import told_by
from data.layout import REPORT_KEY, RULE_KEY, SETTINGS_KEY, SequenceLayout
from data.recordings.label_grid import frame_grid
from data.recordings.recording import Recording
from data.recordings.usable import RecordingFiles, Report, reading_of, usable_boxes

_YOUNGER = ("time_unit", "label_time_unit", "label_clock", "stream")
_LABEL_RULE = "from the labelled frame before"  # older sets have none: there all were measured from the first one
_TOLD = TypeAdapter(Report)  # as a frames file's attribute has it


def attributes_of(report: Report, dataset: DatasetConfig) -> dict[str, str]:
    """What a file of frames tells of how it was made."""
    return {SETTINGS_KEY: _settings(dataset), RULE_KEY: _LABEL_RULE, REPORT_KEY: json.dumps(asdict(report))}


def finished_report(folder: Path, files: RecordingFiles, dataset: DatasetConfig) -> Report:
    """The report of a finished sequence. One that RVT's own script made carries none: then it has counts of 0."""
    target = SequenceLayout.of(folder, dataset)
    reports = [_report_of(path, target, files, dataset) for path in target.present_frames]
    refuse_faults(folder, dataset)
    report = next((report for report in reports if report is not None), Report())
    return replace(report, split=files.split, name=files.name, was_present=True)


def _report_of(path: Path, target: SequenceLayout, files: RecordingFiles, dataset: DatasetConfig) -> Report | None:
    """The report that a file of frames carries. Raises UserError where other settings, or an older rule, made it."""
    attributes = told_by(path)
    if not attributes:
        return None
    remedy = f"Give another output folder, or delete {target.folder}"
    settings = json.loads(_settings(dataset))
    try:
        stored = json.loads(attributes.get(SETTINGS_KEY, json.dumps(settings)))
        report = _TOLD.validate_json(attributes.get(REPORT_KEY, "{}"), strict=True)
    except (ValueError, TypeError, RecursionError) as error:
        told = f"{path} tells damaged settings or a damaged report of how it was made"
        raise UserError(f"{told}. Delete {target.folder} and run this again") from error
    is_older = SETTINGS_KEY in attributes and RULE_KEY not in attributes
    if is_older:
        del settings["preprocessing"]["label_interval_follows_rate"]
    if stored != settings:
        raise UserError(f"{path} was made with other settings than this command's. {remedy}")
    if is_older and not _has_todays_labels(target, files, dataset):
        raise UserError(f"{target.folder} has labelled frames by an older rule, not RVT's. {remedy}")
    return report


def _has_todays_labels(target: SequenceLayout, files: RecordingFiles, dataset: DatasetConfig) -> bool:
    """Whether a sequence that an older version made has the labelled frames that this one would choose."""
    recording = Recording(files.events, dataset.resolution_hw, reading_of(dataset))
    boxes, _ = usable_boxes(files, dataset, recording, Report(files.split, files.name))
    chosen_us = frame_grid(np.unique(boxes["t"]), dataset.preprocessing, dataset.representation.window_us).label_us
    label_us = read_npy(target.label_times, f"Delete {target.folder} and start again")
    return len(label_us) <= len(chosen_us) and np.array_equal(label_us, chosen_us[: len(label_us)])


def refuse_faults(target: Path, dataset: DatasetConfig) -> None:
    """Raises UserError where a sequence is not whole."""
    for fault in check_sequence(target, dataset, num_samples=0).faults:
        if fault.blocks_training:
            raise UserError(f"{fault.path}: {fault.what}. Delete {target} and run this again")


def _settings(dataset: DatasetConfig) -> str:
    """What a sequence folder depends on, to tell a finished one from one that was made differently."""
    keys = {"classes", "representation", "resolution_hw", "preprocessing"}
    settings = dataset.model_dump(mode="json", include=keys) | {"classes": list(dataset.label_classes)}
    for key in _YOUNGER:  # than many a finished folder, which was made as without them
        if settings["preprocessing"][key] is None:
            del settings["preprocessing"][key]
    return json.dumps(settings, sort_keys=True)
