"""Which reader opens which file of events; the readers stand in `data.recordings.formats`."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from config.errors import UserError
from data.recordings.formats.aedat2 import open_aedat2
from data.recordings.formats.aedat4 import open_aedat4
from data.recordings.formats.common import EventFile, Reading, faults_of
from data.recordings.formats.dat import open_dat
from data.recordings.formats.hdf5 import open_hdf5
from data.recordings.formats.npz import open_npz
from data.recordings.formats.raw import open_raw
from data.recordings.formats.text import open_text

_READERS: dict[str, Callable[[Path, Reading], EventFile]] = {
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".dat": open_dat,
    ".raw": open_raw,
    ".aedat4": open_aedat4,
    ".aedat": open_aedat2,
    ".npz": open_npz,
    ".txt": open_text,
    ".csv": open_text,
}
SUFFIXES = tuple(_READERS)
# Files of these are often something else than recordings: they are taken for one where boxes stand beside them
LOOSE_SUFFIXES = (".npz", ".txt", ".csv")
_LONGEST_OPENING_S = 60  # of the processor's time
_LARGEST_SENSOR = 2**12
_ANY_UNIT = {".h5", ".hdf5", ".npz", ".txt", ".csv"}


def open_event_file(path: Path, reading: Reading) -> EventFile:
    """Raises UserError for a missing file, another format, or one that is damaged as far as that shows at once."""
    suffix = path.suffix.lower()
    if not path.is_file():
        raise UserError(f"{path} not found")
    if suffix not in _READERS:
        raise UserError(f"{path}: events are read from {', '.join(SUFFIXES)}, not from {path.suffix or 'such a file'}")
    if reading.time_unit not in (None, "us") and not takes_time_unit(path):
        raise UserError(
            f"{path}: times of {suffix} are in us by the format's definition, but dataset.preprocessing.time_unit is "
            f"{reading.time_unit}. Leave that setting out"
        )
    with faults_of(path), _end_of_endless_loops():
        file = _READERS[suffix](path, reading)
    if file.sensor_hw is not None and not all(0 < size <= _LARGEST_SENSOR for size in file.sensor_hw):
        raise UserError(
            f"{path} claims a sensor of {file.sensor_hw} pixels (height, width), which none has: it is damaged. "
            "Get the recording anew"
        )
    return file


@contextmanager
def _end_of_endless_loops() -> Generator[None]:
    """libhdf5 may search a damaged heap of strings for ever. Only a signal ends that, and with it a worker's process,
    whose end is told with the file; never the main one.
    """
    is_worker = multiprocessing.parent_process() is not None
    if is_worker:
        signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST_OPENING_S)
    try:
        yield
    finally:
        if is_worker:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def takes_time_unit(path: Path) -> bool:
    """Whether the unit of times is open in a file's format."""
    return path.suffix.lower() in _ANY_UNIT


def has_streams(path: Path) -> bool:
    """Whether a file's format may hold several streams of events."""
    return path.suffix.lower() == ".aedat4"
