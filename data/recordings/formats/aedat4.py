"""AEDAT4, the files of iniVation's DV, decoded by faery."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy import ndarray

from config.errors import UserError
from data.recordings.formats.common import EventFile, RawEvents, Reading, faults_of


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
            f"{path} has no stream {reading.stream} of events, as dataset.preprocessing.stream says: {listed}"
        )
    stream = next(iter(streams)) if reading.stream is None else reading.stream
    width, height = streams[stream]
    return EventFile(path, partial(_pieces, path, stream), (height, width), has_running_clock=True)


def _event_streams(path: Path) -> dict[int, tuple[int, int]]:
    """Width and height by number."""
    import faery

    with faery.aedat.Decoder(str(path)) as decoder:
        return {track.id: track.dimensions for track in decoder.tracks() if track.data_type == "events"}


def _pieces(path: Path, stream: int, size: int) -> Iterator[RawEvents]:
    import faery

    packets: list[ndarray] = []
    with faults_of(path):
        for packet in faery.events_stream_from_file(path, track_id=stream):
            packets.append(packet.copy())
            if sum(map(len, packets)) >= size:
                yield _joined(packets)
                packets = []
        if packets:
            yield _joined(packets)


def _joined(packets: list[ndarray]) -> RawEvents:
    events = np.concatenate(packets)
    return RawEvents(events["x"], events["y"], events["on"].astype(np.int8), events["t"].astype(np.int64))
