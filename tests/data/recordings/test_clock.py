"""The clock against what the reference does with sound times, and against the sound times that garbage was put into."""

import numpy as np
import pytest

from data.recordings.clock import Clock, SetBackError

Times = np.ndarray


def run(t: Times, clock: Clock | None = None) -> tuple[Times, list[int], Clock]:
    clock = clock or Clock()
    times = t.astype(np.int64)
    dropped = clock.accept(times, len(times))
    return np.delete(times, dropped), dropped.tolist(), clock


def sound(num_events: int = 5000, step_us: int = 100, seed: int = 0) -> Times:
    return np.cumsum(np.random.default_rng(seed).integers(0, 2 * step_us, num_events))


@pytest.mark.parametrize("step_us", [0, 1, 100, 5000, 2_000_000])
@pytest.mark.parametrize("disorder_us", [0, 900])
def test_sound_times_become_their_running_maximum(step_us: int, disorder_us: int) -> None:
    t = sound(step_us=max(step_us, 1)) * (step_us > 0)
    t[::7] -= disorder_us
    t[:1] = t[0] + disorder_us
    times, dropped, clock = run(t)
    assert np.array_equal(times, np.maximum.accumulate(t))
    assert dropped == []
    assert clock.backwards == (np.diff(np.maximum.accumulate(t), prepend=t[0]) + t < np.maximum.accumulate(t)).sum()


@pytest.mark.parametrize("bit", [11, 13, 17, 20, 30, 31, 40, 62])
@pytest.mark.parametrize("place", [0, 1, 3000, 4998, 4999])
def test_one_garbage_time_costs_itself_alone(bit: int, place: int) -> None:
    t = sound()
    t[place] |= 1 << bit
    damaged = (sound() != t).any()
    times, dropped, clock = run(t)
    silence_is_believed = place == 4999 and bit < 29  # nothing behind it speaks against it
    assert dropped == ([place] if damaged and not silence_is_believed else [])
    assert np.array_equal(times, np.delete(t, dropped))
    assert (clock.leaps, clock.backwards) == (len(dropped), 0)


def test_many_garbage_times_and_blocks_of_them() -> None:
    rng = np.random.default_rng(1)
    t = sound(20_000)
    bad = np.unique(np.concatenate([rng.choice(15_000, 1000, replace=False), np.arange(16_000, 16_200)]))
    t[bad] = rng.integers(10**9, 10**15, len(bad))
    t[16_000:16_200] = 10**12 + np.arange(200)
    times, dropped, _ = run(t)
    assert dropped == bad.tolist()
    assert np.array_equal(times, np.delete(sound(20_000), bad))


def test_a_time_far_back_is_left_out_and_a_little_back_is_mended() -> None:
    t = sound() + 5_000_000
    t[2000], t[3000] = 0, t[3000] - 500_000
    times, dropped, clock = run(t)
    assert dropped == [2000]
    assert times[2999] == times[2998]
    assert (clock.leaps, clock.backwards) == (1, 1)


def test_silence_is_no_leap() -> None:
    t = sound()
    t[2500:] += 3_000_000_000
    times, dropped, _ = run(t)
    assert dropped == []
    assert np.array_equal(times, t)


@pytest.mark.parametrize("period_bits", [24, 31, 32])
@pytest.mark.parametrize("is_known", [False, True])
def test_counters_go_on(period_bits: int, is_known: bool) -> None:
    t = sound() + 2**period_bits - 250_000
    times, dropped, _ = run(t % 2**period_bits, Clock(period=2**period_bits if is_known else None))
    assert dropped == []
    assert np.array_equal(times, t)


def test_garbage_beside_a_counters_new_start() -> None:
    t = sound() + 2**32 - 250_000
    wrapped = t % 2**32
    first_behind = int((t >= 2**32).argmax())
    bad = [first_behind - 3, first_behind + 2, first_behind + 40]
    wrapped[bad] ^= 1 << 30
    times, dropped, _ = run(wrapped, Clock(period=2**32))
    assert dropped == bad
    assert np.array_equal(times, np.delete(t, bad))


def test_a_clock_that_is_set_back_is_told() -> None:
    t = sound(step_us=1000)
    t[3000:] -= t[3000]
    with pytest.raises(SetBackError, match=r"goes back from 3\.064598 s to 0\.000000 s and stays there"):
        run(t)


def test_a_clock_that_is_set_ahead_by_more_than_a_day_is_told() -> None:
    t = sound(step_us=1000)
    t[3000:] += 90_000_000_000
    with pytest.raises(SetBackError, match=r"leaps from 3\.06\d+ s to 90,003\.06\d+ s and stays there"):
        run(t)


@pytest.mark.parametrize("bit", [31, 40])
def test_two_garbage_times_in_a_row_cost_themselves_alone_even_at_the_ends(bit: int) -> None:
    for place in (0, 1000, len(sound(step_us=1000)) - 2):
        t = sound(step_us=1000)
        t[place : place + 2] ^= 1 << bit
        _, dropped, _ = run(t)
        assert dropped == [place, place + 1]


@pytest.mark.parametrize("ticks_per_s", [1, 1000, 10**6, 10**9])
def test_ticks_become_microseconds(ticks_per_s: int) -> None:
    t = sound(step_us=5)
    times, _, clock = run(t, Clock(ticks_per_s))
    assert np.array_equal(times, t * 10**6 // ticks_per_s)
    assert clock.last_us == times[-1]


@pytest.mark.parametrize("size", [1, 7, 600, 4096])
def test_pieces_change_nothing(size: int) -> None:
    t = sound()
    t[[900, 901, 2000]] = 10**10
    t[3000] -= 300
    expected, expected_dropped, _ = run(t)
    clock, times, dropped = Clock(), t.astype(np.int64), []
    for begin in range(0, len(t), size):
        dropped += (begin + clock.accept(times[begin:], min(size, len(t) - begin))).tolist()
    assert dropped == expected_dropped
    assert np.array_equal(np.delete(times, dropped), expected)
