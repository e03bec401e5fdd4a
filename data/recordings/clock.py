"""A recording's clock: counters that start again go on, and single garbage times are left out.

The reference makes times ascend by a running maximum, which is repeated here to the bit on sound data: a time that lies
up to a second before an earlier event's becomes equal to it. But under that rule one garbage time far ahead puts all
later events at its time. So a time that leaps is compared with those of the events behind it: most of them tell whether
the leap is real (silence, a counter that started again) or garbage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from data.compiled import compiled

WITNESSES = 512  # events behind a leap that are asked
_FEW = 8  # events, the last of a recording, whose word is not taken for a silence longer than `_UNCONFIRMED_US`
_LEAP_US = 1_000  # a time that is ahead of the events behind it by no more is the reference's jitter
_STEP_BACK_US = 1_000_000  # further back than this is no jitter
_UNCONFIRMED_US = 600_000_000  # the longest silence before a recording's last event that is believed
_HOUR_US = 3_600_000_000  # no recording is silent for an hour behind its first event
_DAY_US = 86_400_000_000  # and none for a day anywhere
_LIMITS_US = (_LEAP_US, _STEP_BACK_US, _UNCONFIRMED_US, _HOUR_US, _DAY_US)
_COUNTERS = ((1 << 24, 1_000_000), (1 << 31, 60_000_000), (1 << 32, 60_000_000))  # period, longest silence, in ticks
_UNKNOWN = -(2**63)
_FAR = 2**61  # garbage times are cut off here, so that differences fit into 64 bits


class SetBackError(ValueError):
    """The clock goes back, or ahead by more than a day, for good: two recordings in one."""


@dataclass
class Clock:
    """Feed it a recording's times in order, each call's with the following ones behind them.

    `period`: ticks after which the counter starts again, None where that is not known.
    """

    ticks_per_s: int = 10**6
    period: int | None = None
    last: int = _UNKNOWN  # accepted time, in unwrapped ticks
    turns: int = 0  # ticks that restarts of a counter of unknown period have added
    backwards: int = 0
    leaps: int = 0

    def accept(self, t: Int64[ndarray, " n"], count: int) -> Int64[ndarray, " d"]:
        """Judge the first `count` of `t`, which become us on a clock that only goes forward; the others are only asked.

        Returns the places of those that are to be left out. Raises SetBackError where the clock is set for good.
        """
        dropped = np.empty(count, np.int64)
        limits = [max(us * self.ticks_per_s // 10**6, 1) for us in _LIMITS_US]
        done = num_dropped = 0
        while done < count:
            done, num_dropped, self.last, backwards = _accept(
                t, count, done, num_dropped, dropped, self.last, self.turns, self.period or 0, *limits, WITNESSES, _FEW
            )
            self.backwards += int(backwards)
            if done < count:
                self._start_again(int(t[done]))
        self.leaps += int(num_dropped)
        if self.ticks_per_s < 10**6:
            t[:count] *= 10**6 // self.ticks_per_s
        elif self.ticks_per_s > 10**6:
            t[:count] //= self.ticks_per_s // 10**6
        return dropped[:num_dropped]

    @property
    def last_us(self) -> int:
        return self.last * 10**6 // self.ticks_per_s

    def _start_again(self, t: int) -> None:
        """At a time far away that the following ones confirm: a counter that ran over, or a clock that was set."""
        before, after = self.last / self.ticks_per_s, (t + self.turns) / self.ticks_per_s
        if after > before:
            raise SetBackError(
                f"the clock of its events leaps from {before:,.6f} s to {after:,.6f} s and stays there: its times are "
                "damaged, or these are two recordings in one. Cut it there"
            )
        for period, silence in _COUNTERS:
            if 0 <= t + self.turns + period - self.last <= silence:
                self.turns += period
                return
        raise SetBackError(
            f"the clock of its events goes back from {before:,.6f} s to {after:,.6f} s and stays there, which is no "
            "counter that ran over: these are two recordings in one. Cut it there"
        )


@compiled
def _accept(
    t: ndarray, count: int, begin: int, num_dropped: int, dropped: ndarray,
    last: int, turns: int, period: int, leap: int, back: int, silence: int, hour: int, day: int,
    witnesses: int, few: int,
) -> tuple[int, int, int, int]:  # fmt: skip
    """From `begin` on; stops early, at that event, where a step back, or one of more than a day, is confirmed."""
    backwards = 0
    low = -(period >> 1)  # a known counter's step is the shorter way round
    for i in range(begin, count):
        step = t[i] + turns - last
        if 0 <= step <= leap:
            last += step
            t[i] = last
            continue
        time, first = min(max(t[i], -_FAR), _FAR) + turns, last == _UNKNOWN
        if first:
            last = time  # on trial
        step = time - last
        if period and (step < low or step >= period + low):
            step = (step - low) % period + low
        if first or step > leap or step < -back:
            # Ask the events behind it until most are against it; all of them are not: they overtake a short leap
            last_witness = min(i + witnesses, t.size - 1)
            majority_against, needed = 0, 2 if first else 0  # the second event may be the one that is garbage
            for j in range(i + 1, last_witness + 1):
                other = min(max(t[j], -_FAR), _FAR) + turns - last
                if period and (other < low or other >= period + low):
                    other = (other - low) % period + low
                if first:
                    is_against = other < -leap or other > hour
                elif step > 0:
                    if other < -back:
                        continue  # behind a counter's new start, say: that says nothing of this leap
                    is_against = other < step - leap
                else:
                    is_against = other >= -back
                majority_against += 1 if is_against else -1
                if majority_against > needed or -majority_against > last_witness - j:
                    break
            is_unwitnessed = i + few > last_witness and not first and (step > silence or step < -back)
            if majority_against > 0 or is_unwitnessed:
                dropped[num_dropped] = i
                num_dropped += 1
                if first:
                    last = _UNKNOWN
                continue
            if step < -back or step > day:
                return i, num_dropped, last, backwards
        backwards += step < 0
        last += max(step, 0)
        t[i] = last
    return count, num_dropped, last, backwards
