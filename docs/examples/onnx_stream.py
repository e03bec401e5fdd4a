"""Boxes of a stream of events by an exported network. It needs numpy and onnxruntime, and nothing of this project.

    python docs/examples/onnx_stream.py network.onnx events.npz

network.onnx comes from `python scripts/export.py checkpoint=FILE network.onnx nms=true`. events.npz holds columns x, y,
p (0 or 1) and t (us, ascending). Each line that is printed is one box: time in us, class, score, and left, top, width,
height in pixels of the sensor.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime


def count(x, y, p, t, about):
    """A window's events as the network was trained on them: [2 * bins, height, width], polarity by time."""
    bins, (height, width), (rows, columns) = about["bins"], about["frame_hw"], about["sensor_hw"]
    time_bin = _time_bin(t, bins)
    if is_half(about):  # pixels of odd rows and columns
        kept = (x % 2 == 1) & (y % 2 == 1)
        x, y, p, time_bin = x[kept] // 2, y[kept] // 2, p[kept], time_bin[kept]
    else:  # the cell that holds the middle of the pixel
        x, y = (2 * x + 1) * width // (2 * columns), (2 * y + 1) * height // (2 * rows)
    cell = ((p.astype(np.int64) * bins + time_bin) * height + y) * width + x
    counts = np.bincount(cell, minlength=2 * bins * height * width)
    return np.minimum(counts, about["count_cutoff"]).astype(np.uint8).reshape(2 * bins, height, width)


def is_half(about):
    return about["frame_hw"] == [size // 2 for size in about["sensor_hw"]]


def _time_bin(t, bins):
    """Bins run from the window's first event to its last."""
    if len(t) == 0:
        return t
    return np.minimum((t - t[0]) * bins // max(t[-1] - t[0], 1), bins - 1)


def main() -> None:
    network_file, events_file = sys.argv[1:]
    session = onnxruntime.InferenceSession(network_file, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["streamrvt"])
    down, across = (s / f for s, f in zip(about["sensor_hw"], about["frame_hw"], strict=True))
    if is_half(about):  # of odd sizes, too
        down = across = 2.0
    window_us = 1000 * about["window_ms"]
    with np.load(events_file) as arrays:
        x, y, p, t = (arrays[name].astype(np.int64) for name in "xypt")

    states = session.get_inputs()[1:]  # zeros at the start; what comes out goes in again with the next frame
    state = {part.name: np.zeros((1, *part.shape[1:]), np.float32) for part in states}
    for end in range(int(t[0]) // window_us * window_us + window_us, int(t[-1]) + window_us, window_us):
        window = slice(*np.searchsorted(t, (end - window_us, end + 1)))
        frame = count(x[window], y[window], p[window], t[window], about)
        detections, *after = session.run(None, {"frames": frame[None], **state})
        state = dict(zip(state, after, strict=True))
        for _, left, top, right, bottom, objectness, confidence, class_id in detections:
            sides = (across * left, down * top, across * (right - left), down * (bottom - top))
            box = " ".join(f"{value:.1f}" for value in sides)
            print(f"{end} {about['classes'][int(class_id)]} {objectness * confidence:.3f} {box}")


if __name__ == "__main__":
    main()
