"""AEDAT4, the files of iniVation's DV, decoded by faery."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy import ndarray

from config.errors import UserError
from data.recordings.formats import aedat4_process
from data.recordings.formats.aedat4_process import EVENT
from data.recordings.formats.common import EventFile, RawEvents, Reading, faults_of

_PIPE = 2**20  # bytes, the most that Linux gives everybody: a packet of events
_MOST_EVENTS = 2**24  # in a packet; DV writes some thousands


def open_aedat4(path: Path, reading: Reading) -> EventFile:
    streams = _event_streams(path)
    if not streams:
        raise UserError(f"{path} has no stream of events")
    listed = ", ".join(f"{number} ({height} x {width})" for number, (width, height) in streams.items())
    if reading.stream is None and len(streams) > 1:
        raise UserError(
            f"{path} has several streams of events: {listed}, as number (height x width). Choose one by "
            f"dataset.preprocessing.stream={next(iter(streams))}"
        )
    if reading.stream is not None and reading.stream not in streams:
        raise UserError(
            f"{path} has no stream {reading.stream} of events, which dataset.preprocessing.stream asks for. It has "
            f"{listed}"
        )
    stream = next(iter(streams)) if reading.stream is None else reading.stream
    width, height = streams[stream]
    return EventFile(path, partial(_pieces, path, stream), (height, width), has_running_clock=True)


def _event_streams(path: Path) -> dict[int, tuple[int, int]]:
    """Width and height by number."""
    with _decoder(str(path)) as output:
        text = output.read()
    return {int(number): (width, height) for number, (width, height) in json.loads(text).items()}


@contextmanager
def _decoder(*arguments: str) -> Generator[IO[bytes]]:
    """Output of `aedat4_process`. Raises ValueError if that ends by a fault, after its output has been read."""
    command = [sys.executable, aedat4_process.__file__, *arguments]
    with TemporaryFile() as errors:
        environment = {**os.environ, "RUST_BACKTRACE": "0"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
        assert process.stdout is not None
        with suppress(OSError):  # a user's pipes may be many
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE)
        try:
            yield process.stdout
            process.stdout.close()
            if process.wait():
                errors.seek(0)
                reasons = errors.read(4096).decode(errors="replace").strip().splitlines()
                raise ValueError("it makes the reader crash" if process.returncode < 0 else "".join(reasons[-1:]))
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def _pieces(path: Path, stream: int, size: int) -> Iterator[RawEvents]:
    packets: list[ndarray] = []
    with faults_of(path), _decoder(str(path), str(stream)) as output:
        while len(packet := _read_packet(output)):
            packets.append(packet)
            if sum(map(len, packets)) >= size:
                yield _joined(packets)
                packets = []
        if packets:
            yield _joined(packets)


def _read_packet(output: IO[bytes]) -> ndarray:
    """Empty at the end, also at that of a decoder that died."""
    head = output.read(8)
    count = int(np.frombuffer(head, "<i8")[0]) if len(head) == 8 else 0
    if not 0 <= count <= _MOST_EVENTS:
        raise ValueError(f"a packet claims {count:,} events")
    data = output.read(count * EVENT.itemsize)
    return np.frombuffer(data[: len(data) // EVENT.itemsize * EVENT.itemsize], EVENT)


def _joined(packets: list[ndarray]) -> RawEvents:
    x, y, on, t = (np.concatenate([packet[name] for packet in packets]) for name in ("x", "y", "on", "t"))
    return RawEvents(x, y, on, t)
