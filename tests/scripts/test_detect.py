"""Behaviour of scripts/detect.py."""

from __future__ import annotations

import csv
import json
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from config.errors import UserError
from config.loading import load_dataset_config
from data.boxes import BOX_DTYPE
from data.recordings.formats.common import Reading
from data.recordings.growth import Growth
from data.recordings.preprocessing import RecordingFiles, preprocess_recording
from data.sequence import Sequence
from modules.deployment.checkpoint import config_of_checkpoint, load_detector
from modules.deployment.description import Description
from modules.deployment.outs import Boxes, Film, check_outs, end_writers, open_writers
from modules.deployment.windows import FrameCounter, Late, open_recording, windows
from scripts.detect import parse, run
from scripts.programs import Program
from tests.deployment import SENSOR_HW, SMALL, WRITING, moving_square, write_checkpoint
from tests.event_files import write_hdf5

SECONDS = 0.6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "last.ckpt")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    height, width = SENSOR_HW
    write_hdf5(tmp_path / "street_td.h5", moving_square(SECONDS), height=height, width=width)
    return tmp_path / "street_td.h5"


def detect(*arguments: object) -> str:
    """Its summary."""
    text, exit_code = run(parse([str(argument) for argument in arguments]))
    assert exit_code == 0
    return text


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def description_of(checkpoint: Path) -> Description:
    return Description.of(config_of_checkpoint(checkpoint, []))


def sequence_of(recording: Path, out: Path) -> Sequence:
    """What preprocessing makes of the recording, with a label at the end of every window."""
    boxes = np.zeros(round(SECONDS * 20), BOX_DTYPE)
    boxes["t"], boxes["w"], boxes["h"] = 50_000 * np.arange(1, len(boxes) + 1), 30, 30
    np.save(recording.with_name("street_bbox.npy"), boxes)
    files = RecordingFiles("val", "street", recording, recording.with_name("street_bbox.npy"))
    overrides = [word for word in SMALL if word.startswith("dataset")]
    settings = ["dataset.preprocessing.first_label_ms=0", "dataset.preprocessing.label_interval_ms=50"]
    dataset = load_dataset_config([*overrides, *settings])
    preprocess_recording(out, dataset, files)
    return Sequence(out / "val" / "street", dataset)


def test_frames_and_boxes_are_those_of_preprocessing_and_validation(
    recording: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Frames to the bit; boxes up to the rounding of other kernels."""
    description = description_of(checkpoint)
    count = FrameCounter(description)
    found = windows(open_recording(recording, description, Reading()), description, rate_hz=20)
    frames, t_us = zip(*((count(window.events).copy(), window.end_us) for window in found), strict=True)
    sequence = sequence_of(recording, tmp_path / "data")
    expected = sequence.frames(0, len(sequence))
    assert len(expected) == SECONDS * 20
    assert np.array_equal(np.stack(frames), expected)
    assert list(t_us) == sequence.t_us(0, len(sequence)).tolist()

    detect(recording, f"checkpoint={checkpoint}", f"out={tmp_path / 'a.jsonl'}")
    detector = load_detector(config_of_checkpoint(checkpoint, []), checkpoint)
    with torch.no_grad():
        features, _ = detector.encode(torch.from_numpy(expected)[:, None], None)
        detections = detector.detect(detector.select(features, torch.arange(len(expected))))
    for line, own in zip(lines_of(tmp_path / "a.jsonl"), detections, strict=True):
        scores = own[:, 4] * own[:, 5]
        assert [box["score"] for box in line["boxes"]] == pytest.approx(scores.tolist(), abs=1e-4)
        xywh = [[box[name] for name in "xywh"] for box in line["boxes"]]
        assert np.array(xywh) == pytest.approx(torch.cat((own[:, :2], own[:, 2:4] - own[:, :2]), 1).numpy(), abs=0.01)
    assert sum(map(len, detections)) > 20


def test_every_file_holds_the_same_boxes(recording: Path, checkpoint: Path, tmp_path: Path) -> None:
    outs = [f"out={tmp_path / name}" for name in ("a.npy", "a.json")]
    both = f"out=[{tmp_path / 'a.jsonl'},{tmp_path / 'a.csv'}]"
    told = detect(recording, f"checkpoint={checkpoint}", both, *outs, "rate_hz=40", "threshold=0.05")
    lines = lines_of(tmp_path / "a.jsonl")
    assert [line["t_us"] for line in lines] == list(range(50_000, 600_001, 25_000))
    flat = [
        (line["t_us"], *(box[name] for name in "xywh"), box["class_id"], box["score"])
        for line in lines
        for box in line["boxes"]
    ]
    assert f"{len(flat):,} boxes in {len(lines)} windows" in told
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("t_us", *"xywh", "class_id", "score")
    assert [tuple(float(row[name]) for name in names) for row in rows] == flat
    assert {row["class"] for row in rows} <= set(description_of(checkpoint).classes)
    array = np.load(tmp_path / "a.npy")
    assert array.dtype == BOX_DTYPE
    columns = [array[name].astype(float) for name in ("t", *"xywh", "class_id", "class_confidence")]
    assert np.stack(columns, axis=1) == pytest.approx(np.array(flat), abs=0.006)
    coco = json.loads((tmp_path / "a.json").read_text())
    times = {image["id"]: image["t_us"] for image in coco["images"]}
    assert list(times.values()) == [line["t_us"] for line in lines]
    assert [(times[a["image_id"]], *a["bbox"], a["category_id"], a["score"]) for a in coco["annotations"]] == flat
    assert {path.name for path in tmp_path.glob("a.*")} == {"a.jsonl", "a.csv", "a.npy", "a.json"}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("rate_hz", "shown_ms"), [(100, 60), (40, 150), (0.5, 12_000)])
def test_a_film_keeps_real_time_also_where_windows_are_left_out(
    checkpoint: Path, tmp_path: Path, rate_hz: float, shown_ms: int
) -> None:
    """At 100 Hz every second window is shown; window 4 comes after two that were left out. A GIF counts in 10 ms."""
    description = description_of(checkpoint)
    film = Film(tmp_path / "a.gif", description, rate_hz, live=False)
    frame = np.zeros((20, *SENSOR_HW), np.uint8)
    found = np.array([[10, 10, 40, 30, 0.9, 0.9, 2]], np.float32)
    for number, skipped in ((0, 0), (1, 0), (4, 2), (5, 0)):
        film.add(Boxes.of(found, 10_000 * number, skipped, frame, description))
    film.finish()
    with Image.open(tmp_path / "a.gif") as picture:
        assert sum(each.info["duration"] for each in ImageSequence.Iterator(picture)) == shown_ms


def test_a_full_disk_leaves_no_piece_and_stops_no_other_file(checkpoint: Path, tmp_path: Path) -> None:
    """Files may grow to 2 kB; the .csv stays below."""
    description = description_of(checkpoint)
    found = np.tile(np.array([10, 10, 40, 30, 0.9, 0.9, 2], np.float32), (40, 1))
    boxes = Boxes.of(found, 50_000, 0, np.zeros((20, *SENSOR_HW), np.uint8), description)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        for whole, left in ((True, ["a.csv"]), (False, [])):
            outs = [tmp_path / str(whole) / f"a.{suffix}" for suffix in ("npy", "json", "jsonl", "csv")]
            writers = open_writers(outs, description, 20, live=False)
            for writer in writers[:3]:
                for _ in range(5):
                    writer.add(boxes)
            with pytest.raises(UserError, match=r"a\.npy cannot be written") if whole else nullcontext():
                end_writers(writers, whole)
            assert [path.name for path in (tmp_path / str(whole)).iterdir()] == left
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["dat", "raw"])
def test_a_growing_file_gives_what_the_whole_one_gives(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    """A writer at real speed, which cuts words in two."""
    path, whole = tmp_path / f"live.{kind}", tmp_path / f"whole.{kind}"
    header, words = WRITING[kind]
    events = moving_square(0.8)
    content = header() + words(events)
    whole.write_bytes(content)
    writer = threading.Thread(target=write_slowly, args=(path, content, 0.8))
    path.touch()
    writer.start()
    told = detect(
        path, f"checkpoint={checkpoint}", f"out={tmp_path / 'live.jsonl'}", "follow=true", "idle_s=0.4", "late=none"
    )
    writer.join()
    detect(whole, f"checkpoint={checkpoint}", f"out={tmp_path / 'whole.jsonl'}")
    assert (tmp_path / "live.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert len(lines_of(tmp_path / "live.jsonl")) == 16
    assert "late: 0 (0.0%; late=none)" in told
    assert "behind real time" in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.rename(path.with_name("a.0.dat")), "moved away, deleted or replaced"),
        (lambda path: (path.unlink(), path.write_bytes(WRITING["dat"][0]())), "moved away, deleted or replaced"),
        (lambda path: path.write_bytes(WRITING["dat"][0]()), "became shorter"),
    ],
    ids=["moved", "replaced", "cut"],
)
def test_a_file_that_is_no_longer_the_one_that_grew(
    tmp_path: Path, checkpoint: Path, change: Callable[[Path], object], words: str
) -> None:
    """All whole windows come first; waiting for more of it would last for ever."""
    path = tmp_path / "a.dat"
    path.write_bytes(WRITING["dat"][0]() + WRITING["dat"][1](moving_square(1.0)))
    description = description_of(checkpoint)
    found = windows(open_recording(path, description, Reading(), Growth()), description, rate_hz=20)
    assert next(found).end_us == 50_000
    change(path)
    with pytest.raises(UserError, match=words):
        assert [window.end_us for window in found] == list(range(100_000, 900_000, 50_000))


def write_slowly(path: Path, content: bytes, seconds: float) -> None:
    parts = 60
    size = len(content) // parts | 1
    with path.open("wb", buffering=0) as file:
        for begin in range(0, len(content), size):
            file.write(content[begin : begin + size])
            time.sleep(seconds / parts)


def test_windows_that_come_late_are_left_out_whole(tmp_path: Path, checkpoint: Path) -> None:
    """All of a file is there at once, and each window takes as long as three."""
    header, words = WRITING["dat"]
    (tmp_path / "a.dat").write_bytes(header() + words(moving_square(3.0)))
    description = description_of(checkpoint)
    recording = open_recording(tmp_path / "a.dat", description, Reading(), Growth(idle_s=0.2))
    found = []
    for window in windows(recording, description, 20, Late("newest", after_ms=200)):
        found.append((window.end_us, window.skipped, len(window.events)))
        time.sleep(0.05)
    skipped = sum(number for _, number, _ in found)
    assert skipped + len(found) == 60
    assert skipped > 40
    assert found[-1][0] == 3_000_000
    assert all(count > 250 for *_, count in found)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_whole_files(checkpoint: Path, tmp_path: Path, signum: int) -> None:
    header, words = WRITING["dat"]
    path = tmp_path / "live.dat"
    path.write_bytes(header() + words(moving_square(1.0)))
    outs = [tmp_path / name for name in ("a.jsonl", "a.npy", "a.json")]
    arguments = [str(path), f"checkpoint={checkpoint}", *(f"out={out}" for out in outs), "follow=true"]
    program = Program(arguments, tmp_path / "log", script="scripts/detect.py")
    try:
        program.wait_for(lambda: outs[0].is_file() and outs[0].read_text().count("\n") >= 2)
        program.kill(signum)
        assert program.exit_code() == 0
    finally:
        program.end()
    lines = lines_of(outs[0])
    assert len(np.load(outs[1])) == sum(len(line["boxes"]) for line in lines)
    assert len(json.loads(outs[2].read_text())["images"]) == len(lines)
    assert f"ended by {signal.Signals(signum).name}" in program.output()


def other_sensor(folder: Path) -> Path:
    write_hdf5(folder / "other.h5", moving_square(0.1), height=100, width=128)
    return folder / "other.h5"


def no_events(folder: Path) -> Path:
    (folder / "empty.dat").write_bytes(WRITING["dat"][0]())
    return folder / "empty.dat"


def half_outside(folder: Path) -> Path:
    events = moving_square(0.1)
    events[:, 0] += 115
    write_hdf5(folder / "wide.h5", events)
    return folder / "wide.h5"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (other_sensor, r"sensor of 100 x 128 pixels .* trained for 64 x 128"),
        (no_events, r"empty\.dat holds no events"),
        (half_outside, r"events outside the sensor .* of another sensor"),
        (lambda folder: folder, "is a folder"),
    ],
)
def test_recordings_that_it_cannot_take(
    tmp_path: Path, checkpoint: Path, make: Callable[[Path], Path], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        detect(make(tmp_path), f"checkpoint={checkpoint}", f"out={tmp_path / 'a.jsonl'}")
    assert not list(tmp_path.glob("*a.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.raw", "checkpoint=a"], "at least one out=FILE"),
        (["a.raw", "out=a.csv"], "one of checkpoint=FILE and model=FILE.onnx"),
        (["a.raw", "out=a.csv", "checkpoint=a", "model=b.onnx"], "one of checkpoint=FILE and model=FILE.onnx"),
        (["a.raw", "out=a.csv", "model=b.onnx", "precision=bf16"], "as it was exported"),
        (["a.raw", "out=a.csv", "checkpoint=a", "rate_hz=2000"], "rate_hz=2000: give a number from 0.01 to 1000"),
        (["a.raw", "out=a.csv", "checkpoint=a", "rate_hz=nan"], "rate_hz=nan"),
        (["a.raw", "out=a.csv", "checkpoint=a", "follow=yes"], "follow=yes: give true or false"),
        (["a.raw", "out=a.csv", "checkpoint=a", "late=none"], "late is of a file that grows"),
        (["a.raw", "out=a.csv", "checkpoint=a", "follow="], "follow=: give true or false"),
        (
            ["a.raw", "out=a.csv", "model=b.onnx", "evaluation.score=class"],
            "evaluation.score=class: an exported model is",
        ),
        (
            ["a.raw", "out=a.csv", "model=b.onnx", "treshold=0.3"],
            r"treshold=0.3: no such option; did you mean threshold\?",
        ),
        (
            ["a.raw", "out=a.csv", "checkpoint=a", "x=1"],
            "x=1: no such option; there are out, follow, checkpoint, model",
        ),
        (["a.raw", "out=a.csv", "checkpoint=a", "precision=8"], "precision=8: give one of 32, bf16, auto"),
    ],
)
def test_mistakes_of_the_command(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(arguments)


def test_files_of_boxes_are_not_replaced_unasked_and_never_the_recording(tmp_path: Path) -> None:
    source, there = tmp_path / "events.csv", tmp_path / "a.csv"
    source.write_text("0 1 2 1")
    there.write_text("mine")
    (tmp_path / "link.csv").symlink_to(source)
    for outs, overwrite, words in (
        ([there], False, "exists already.*overwrite=true"),
        ([tmp_path / "a.avi"], False, r"\.jsonl, \.npy"),
        ([tmp_path / "b.csv", tmp_path / "c" / ".." / "b.csv"], False, "named twice"),
        ([source], True, "is the recording itself"),
        ([tmp_path / "link.csv"], True, "is the recording itself"),
    ):
        with pytest.raises(UserError, match=words):
            check_outs(outs, source, overwrite)
    check_outs([there], source, overwrite=True)


def test_a_stream_is_chosen_only_where_there_are_streams(recording: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave stream=1 out"):
        detect(recording, f"checkpoint={checkpoint}", f"out={tmp_path / 'a.csv'}", "stream=1")


def test_follow_needs_a_file_that_can_be_read_before_it_is_whole(
    recording: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"follow=true reads \.raw and \.dat"):
        detect(recording, f"checkpoint={checkpoint}", f"out={tmp_path / 'a.csv'}", "follow=true", "idle_s=0.1")
