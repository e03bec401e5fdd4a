from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from data.recordings.formats import aedat4
from data.recordings.formats.common import Reading
from tests.event_files import make_events, read_events, write_aedat2, write_aedat4, write_dat

CHIP = "eu.seebetter.ini.chips.davis."


@pytest.mark.parametrize(
    ("chip", "size"), [("DAVIS346blue", (260, 346)), ("DAVIS240C", (180, 240)), ("Davis346mini", (260, 346))]
)
def test_aedat2_tells_the_sensor_by_its_chip(tmp_path: Path, chip: str, size: tuple[int, int]) -> None:
    events = make_events(1)
    write_aedat2(tmp_path / "a.aedat", events, CHIP + chip)
    assert read_events(tmp_path / "a.aedat", sensor_hw=size)[1].sensor_hw_of_file == size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((CHIP + "Davis640", "ch.unizh.ini.jaer.chip.retina.DVS128"), "addresses of .*DVS128 are not read"),
        (("# AEChip", "# Chip"), "addresses of an unnamed chip"),
        (("#!AER-DAT2.0", "#!AER-DAT3.1"), "is AEDAT 3.1"),
        (("#!AER-DAT2.0", "# no version"), "is AEDAT 1.0"),
    ],
)
def test_other_aedat_files_are_refused_by_name(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    write_aedat2(tmp_path / "a.aedat", make_events(10))
    data = (tmp_path / "a.aedat").read_bytes()
    (tmp_path / "a.aedat").write_bytes(data.replace(*(text.encode() for text in change)))
    with pytest.raises(UserError, match=f"a.aedat.*{message}"):
        read_events(tmp_path / "a.aedat")


def test_aedat2_counters_go_on_after_71_minutes(tmp_path: Path) -> None:
    events = make_events(start_us=2**32 - 20_000_000)
    wrapped = events % np.array([2**16, 2**16, 2, 2**32])
    write_aedat2(tmp_path / "a.aedat", wrapped)
    assert np.array_equal(read_events(tmp_path / "a.aedat")[0], events)


def test_one_of_several_streams_is_chosen_by_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No writer at hand gives a file of two streams of events: the list of streams is changed."""
    write_aedat4(tmp_path / "a.aedat4", make_events())
    monkeypatch.setattr(aedat4, "_event_streams", lambda path: {0: (640, 480), 7: (346, 260)})
    message = r"a.aedat4 has several streams of events: 0 \(480 x 640\), 7 \(260 x 346\).*preprocessing.stream=0"
    with pytest.raises(UserError, match=message):
        read_events(tmp_path / "a.aedat4")
    with pytest.raises(UserError, match=r"a.aedat4 has no stream 3"):
        read_events(tmp_path / "a.aedat4", Reading(stream=3))
    assert len(read_events(tmp_path / "a.aedat4", Reading(stream=0))[0]) == 4000


def test_a_dat_of_triggers_is_refused(tmp_path: Path) -> None:
    write_dat(tmp_path / "a.dat", make_events(), event_type=0x0E)
    with pytest.raises(UserError, match=r"a.dat is a DAT of external triggers \(its events are of type 0x0e\)"):
        read_events(tmp_path / "a.dat")


def test_units_are_refused_where_the_format_defines_them(tmp_path: Path) -> None:
    write_dat(tmp_path / "a.dat", make_events())
    with pytest.raises(UserError, match=r"a.dat: times of .dat are in us by the format's definition"):
        read_events(tmp_path / "a.dat", Reading(time_unit="ns"))
