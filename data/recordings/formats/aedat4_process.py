"""Decodes an AEDAT4 file with faery, in a process of its own: over damaged bytes faery can end its whole process.

usage: aedat4_process.py FILE           prints the streams of events as JSON: number -> width and height
       aedat4_process.py FILE STREAM    writes packets: a number of events (8 bytes, little-endian), then these, as
                                        `EVENT` has them; a number of 0 behind the last
"""

from __future__ import annotations

import json
import resource
import sys

import numpy as np
from numpy import ndarray

EVENT = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("on", "u1")])


_MOST_MEMORY = 2**32  # bytes of addresses: a few packets, and libraries


def main(path: str, *stream: str) -> None:
    import faery

    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))  # a packet may claim any size
    if not stream:
        with faery.aedat.Decoder(path) as decoder:
            streams = {track.id: track.dimensions for track in decoder.tracks() if track.data_type == "events"}
        print(json.dumps(streams))
        return
    output = sys.stdout.buffer
    for packet in faery.events_stream_from_file(path, track_id=int(stream[0])):
        if len(packet):
            output.write(np.int64(len(packet)).tobytes())
            output.write(_bytes_of(packet))
    output.write(np.int64(0).tobytes())


def _bytes_of(packet: ndarray) -> bytes:
    """As `EVENT`, which is how faery lays out its packets today."""
    if packet.dtype.names == EVENT.names and _sizes(packet.dtype) == _sizes(EVENT):
        return packet.tobytes()
    events = np.empty(len(packet), EVENT)
    for name in EVENT.names or ():
        events[name] = packet[name]
    return events.tobytes()


def _sizes(dtype: np.dtype) -> list[int]:
    return [dtype.itemsize, *(dtype[name].itemsize for name in dtype.names or ())]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BrokenPipeError:  # the reader has enough
        sys.stdout = None
    except Exception as error:
        print(error, file=sys.stderr)
        sys.exit(1)
