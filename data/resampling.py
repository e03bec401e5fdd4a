"""Frames of smaller sizes from those of the sensor's size, for sets whose recordings are gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from config.errors import UserError
from config.schema import DatasetConfig
from data.checks.sequence import check_sequence
from data.frame_files import add_frame_files, frame_writers, open_frames, told_by
from data.layout import SETTINGS_KEY, FrameFiles, SequenceLayout, without_frames
from data.recordings.representation import resample_frame
from data.sequence import FrameReader
from data.workplace import not_written, workplace

_WORKPLACE = ".partial_resampled"  # in the representation's folder


@dataclass(frozen=True)
class Resampled:
    """What became of one sequence."""

    num_sizes: int  # written
    num_files_added: int  # to sizes that were there, in the other layout
    tells_settings: bool  # of how its frames were counted: those of this project do


def resample_sequence(
    dataset: DatasetConfig,
    sizes: Sequence[tuple[int, int]],
    folder: Path,
    on_frame: Callable[[], None] = lambda: None,
    *,
    files: FrameFiles = "compact",
    wait: bool = False,
) -> Resampled:
    """Write the frames of `sizes` (height, width) that a sequence lacks, as `preprocess_recording` would have.

    Equal to the bit, since one cut-off serves all sizes (`resample_frame`). Raises UserError where there are no frames
    of the sensor's size, or where they were counted up to another cut-off; BusyError where another process is writing
    them, whose end it waits for with `wait`.
    """
    full = dataset.with_frames_of(dataset.resolution_hw)
    source_path = _source_path(folder, full)
    wanted = [dataset.with_frames_of(size) for size in sizes]
    missing: list[DatasetConfig] = []
    if without_frames(folder, wanted):
        try:
            place = source_path.parent / _WORKPLACE
            with workplace(place, folder, wait=wait) as partial:
                if missing := without_frames(folder, wanted):  # by now
                    with closing(open_frames(source_path, SequenceLayout.of(folder, full))) as source:
                        _write(source, partial, folder, missing, files, on_frame)
        except OSError as error:
            raise not_written(folder, error) from error
    layouts = [SequenceLayout.of(folder, each) for each in wanted]
    num_added = sum(add_frame_files(layout, on_frame, files=files, wait=wait) for layout in layouts)
    return Resampled(len(missing), num_added, SETTINGS_KEY in told_by(source_path))


def _source_path(folder: Path, full: DatasetConfig) -> Path:
    """The file of frames to read. Raises UserError where it may not be."""
    layout = SequenceLayout.of(folder, full)
    if not layout.present_frames:
        raise UserError(
            f"{layout.frames} not found: frames are made from those of the sensor's size alone, {full.resolution_hw}. "
            "scripts/preprocess.py makes any size from the recordings"
        )
    for fault in check_sequence(folder, full, num_samples=0).faults:
        if fault.blocks_training:
            raise UserError(f"{fault.path}: {fault.what}. {fault.remedy}")
    path = layout.present_frames[0]
    settings, cutoff = told_by(path).get(SETTINGS_KEY), full.representation.count_cutoff
    if settings is not None and (told := json.loads(settings)["representation"]["count_cutoff"]) != cutoff:
        raise UserError(f"{path} has counts up to {told}. Give dataset.representation.count_cutoff={told}")
    return path


def _write(
    source: FrameReader,
    partial: Path,
    folder: Path,
    datasets: Sequence[DatasetConfig],
    files: FrameFiles,
    on_frame: Callable[[], None],
) -> None:
    """All sizes in one pass over the frames of `source`.

    `datasets`: one for each, and the same in all else.
    """
    places = [SequenceLayout.of(partial, dataset) for dataset in datasets]
    frames = [np.empty((dataset.channels, *dataset.loaded_hw), np.uint8) for dataset in datasets]
    places[0].representation.mkdir(parents=True)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(frame_writers(place, files, frame.shape))
            for place, frame in zip(places, frames, strict=True)
        ]
        read = np.empty((1, *source.frame_chw), np.uint8)
        cutoff = datasets[0].representation.count_cutoff
        for index in range(len(source)):
            source.read(index, index + 1, read)
            _require_cutoff(read, cutoff, source.path)
            for frame, writers_of_size in zip(frames, writers, strict=True):
                resample_frame(read[0], cutoff, frame)
                for writer in writers_of_size:
                    writer.append(frame)
            on_frame()
        for writer in (writer for writers_of_size in writers for writer in writers_of_size):
            writer.attributes.update(told_by(source.path))
    for path in (path for place in places for path in place.present_frames):
        path.replace(folder / path.relative_to(partial))


def _require_cutoff(frame: UInt8[ndarray, "one c h w"], cutoff: int, path: Path) -> None:
    if (found := int(frame.max())) > cutoff:
        raise UserError(
            f"{path} has counts of {found}, above dataset.representation.count_cutoff={cutoff}. "
            "Give the cut-off that it was made with"
        )
