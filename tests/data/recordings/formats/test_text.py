from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from data.recordings.cleaning import LEAPS, OUTSIDE
from data.recordings.formats.common import Reading
from tests.event_files import EventRows, make_events, read_events

EVENTS = make_events(3000, 2_000_000)
X, Y, P, T = EVENTS.T


def lines(template: str, events: EventRows = EVENTS, end: str = "\n") -> str:
    return "".join(
        template.format(x=x, y=y, p=p, t=t, s=t / 1e6, sign=2 * p - 1) + end for x, y, p, t in events.tolist()
    )


@pytest.mark.parametrize(
    "text",
    [
        lines("{t} {x} {y} {p}"),
        lines("{t} {x} {y} {p}")[:-1],
        lines("{t},{x},{y},{p}", end="\r\n"),
        "\ufeff" + lines("{t}\t{x}\t{y}\t{sign}"),
        "# a recording of 2026\n\n" + lines("  {t:.1f} {x:d}.0 {y} {p}"),
        lines("{x} {y} {t} {p}"),
        "640 480\n" + lines("{x} {y} {p} {t}"),
        "x,y,p,t\n" + lines("{x},{y},{p},{t}"),
        "# t x y p\n" + lines("{t} {x} {y} {p}"),
        "timestamp_us;polarity;column;row;label\n" + lines("{t};{p};{x};{y};3"),
        "x y pol t [us]\n" + lines("{x:.18e} {y:.18e} {p:.18e} {t:.18e}"),
    ],
)
def test_columns_are_told_by_a_header_line_or_by_their_values(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    rows, recording = read_events(tmp_path / "a.csv")
    assert np.array_equal(rows, EVENTS)
    assert recording.last_t_us == EVENTS[-1, 3]
    assert recording.sensor_hw_of_file == ((480, 640) if text.startswith("640") else None)


@pytest.mark.parametrize("template", ["{s:.6f} {x} {y} {p}", "{s:.9e} {x} {y} {p}", "{s!r} {x} {y} {p}"])
def test_times_in_seconds_are_read_to_the_microsecond_once_that_is_said(tmp_path: Path, template: str) -> None:
    events = EVENTS + np.array([0, 0, 0, 0 if "e" in template else 1_600_000_000_000_000])
    (tmp_path / "a.txt").write_text(lines(template, events))
    assert np.array_equal(read_events(tmp_path / "a.txt", Reading(time_unit="s"))[0], events)
    with pytest.raises(UserError, match=r"a.txt: column 1 has fractions.*dataset.preprocessing.time_unit=s"):
        read_events(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("t_s x y p\n" + lines(template, events))
    rows, recording = read_events(tmp_path / "b.txt")
    assert np.array_equal(rows, events)
    assert recording.notes == ("times are in s, as the file says",)


def test_unix_times_in_nanoseconds_keep_all_their_digits(tmp_path: Path) -> None:
    events = EVENTS + np.array([0, 0, 0, 1_600_000_000_123_456])
    (tmp_path / "a.txt").write_text(lines("{t}789 {x} {y} {p}", events))
    rows, recording = read_events(tmp_path / "a.txt", Reading(time_unit="ns"))
    assert np.array_equal(rows, events)
    assert recording.last_t_us == events[-1, 3]


def test_what_is_no_pixel_or_no_time_is_left_out_and_counted(tmp_path: Path) -> None:
    text = lines("{t} {x} {y} {p}").splitlines()
    text[10:15] = [f"{T[10]} nan 5 1", f"{T[11]} -1 5 1", f"{T[12]} 65541 5 1", f"{T[13]} 5 1e40 0", "nan 5 5 1"]
    (tmp_path / "a.txt").write_text("\n".join(text))
    rows, recording = read_events(tmp_path / "a.txt")
    assert np.array_equal(rows, np.delete(EVENTS, range(10, 15), axis=0))
    assert recording.faults == {OUTSIDE: 4, LEAPS: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no line of an event"),
        ("notes on the recordings\n", "names no columns x, y, p and t"),
        ("# notes\n1 2 3 4 5\n", "line 2: an event has 5 numbers, not four"),
        (lines("{t} {x} {y} {p}") + "end of recording\n", "line 3001: 'end of recording' is no event"),
        (
            lines("{t} {x} {y} {p}", EVENTS[:100]) + "5 6 7\n" + lines("{t} {x} {y} {p}"),
            "line 101: '5 6 7' is no event",
        ),
        ("x y t\n" + lines("{x} {y} {t}"), "line 1: 'x y t' names no columns"),
        (lines("{t} {x} {y} 2"), "four columns whose values are no t x y p"),
        ("t x y p\n" + lines("{t} {x} {y} 2"), "polarities 2"),
        (lines("{t} {x}.5 {y} {p}"), "column 2 has fractions"),
        ("\0" * 100, "no text in UTF-8"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UserError, match=f"a.txt.*{message}"):
        read_events(tmp_path / "a.txt")


def test_pieces_are_cut_between_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.recordings.formats.common.PIECE_EVENTS", 7)
    (tmp_path / "a.txt").write_text(lines("{t} {x} {y} {p}"))
    assert np.array_equal(read_events(tmp_path / "a.txt")[0], EVENTS)
