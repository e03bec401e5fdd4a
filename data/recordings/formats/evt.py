"""The words of EVT2, EVT2.1 and EVT3, after the format descriptions in Prophesee's documentation.

A high time is repeated by words of type 8 and counts modulo its number of bits; an event adds the low bits. Words of
types that are not named here (triggers, monitoring) say nothing of contrast. Events before the first high time are left
out, as Prophesee's decoders do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt, UInt8, UInt16
from numpy import ndarray

from data.compiled import compiled

WITNESSES = 16  # time words behind a leaping one that are asked


@dataclass(frozen=True)
class Encoding:
    word: str
    type_bit: int  # the type is what stands from this bit on
    time_bit: int  # position and size of the high time in its word
    time_bits: int
    low_bits: int
    near: int  # an ordinary step from one high time to the next

    def high_times(self, words: UInt[ndarray, " n"]) -> Int64[ndarray, " n"]:
        return (words >> self.time_bit & (1 << self.time_bits) - 1).astype(np.int64)


def drop_damaged_times(
    encoding: Encoding, words: UInt[ndarray, " n"], last_high: Int64[ndarray, " 1"], is_complete: bool
) -> tuple[int, int]:
    """Time words that leap, and that most of those behind contradict, get a type that says nothing.

    One such word would move all events up to the next, in EVT3 all later ones by 16.8 s. Returns how many words are
    judged (the others need more words behind them) and how many were damaged.
    """
    dtype = words.dtype.type
    mark, mask = dtype(7 << encoding.type_bit), (1 << encoding.time_bits) - 1
    shifts = dtype(encoding.type_bit), dtype(encoding.time_bit)
    return _drop_damaged_times(words, *shifts, mask, mark, encoding.near, WITNESSES, last_high, is_complete)


def decode(
    encoding: Encoding,
    words: UInt[ndarray, " n"],
    begin: int,
    state: Int64[ndarray, " 6"],
    x: UInt16[ndarray, " m"],
    y: UInt16[ndarray, " m"],
    p: UInt8[ndarray, " m"],
    t: Int64[ndarray, " m"],
) -> tuple[int, int]:
    """Events of `words` from `begin` on, until those are used up or no room is left for another word's.

    Returns the first word not used and the number of events. `state` goes from call to call; its first value is the
    high time, -1 before the first.
    """
    loop = {"<u4": _decode_evt2, "<u8": _decode_evt21, "<u2": _decode_evt3}[encoding.word]
    return loop(words, begin, state, x, y, p, t)


@compiled
def _drop_damaged_times(
    words: ndarray, type_bit: int, time_bit: int, mask: int, mark: int, near: int, witnesses: int,
    last_high: ndarray, is_complete: bool,
) -> tuple[int, int]:  # fmt: skip
    high, damaged = last_high[0], 0
    for i in range(words.size):
        if words[i] >> type_bit != 8:
            continue
        value = np.int64(words[i] >> time_bit) & mask
        step = (value - high) & mask
        if high < 0 or step > near:
            asked, majority_against = 0, 0
            for j in range(i + 1, words.size):
                if words[j] >> type_bit != 8:
                    continue
                other = np.int64(words[j] >> time_bit) & mask
                asked += 1
                is_against = (other - value) & mask > mask >> 1 if high < 0 else (other - high) & mask < step
                majority_against += 1 if is_against else -1
                if asked == witnesses or (majority_against > 0 and high >= 0):
                    break
            if asked < witnesses and majority_against <= 0 and not is_complete:
                last_high[0] = high
                return i, damaged
            if majority_against > 0 or (asked == 0 and high >= 0 and step > mask >> 1):
                words[i] |= mark
                damaged += 1
                continue
        high = value
    last_high[0] = high
    return words.size, damaged


@compiled
def _decode_evt2(
    words: ndarray, begin: int, state: ndarray, x: ndarray, y: ndarray, p: ndarray, t: ndarray
) -> tuple[int, int]:
    high, turns, count = state[0], state[1], 0
    for i in range(begin, words.size):
        if count == t.size:
            begin = i
            break
        word = np.int64(words[i])
        kind = word >> 28
        if kind <= 1:
            if high >= 0:
                x[count], y[count], p[count] = word >> 11 & 0x7FF, word & 0x7FF, kind
                t[count] = turns + (high << 6) + (word >> 22 & 63)
                count += 1
        elif kind == 8:
            if high - (word & 0xFFFFFFF) > 1 << 27:
                turns += 1 << 34
            high = word & 0xFFFFFFF
    else:
        begin = words.size
    state[0], state[1] = high, turns
    return begin, count


@compiled
def _decode_evt21(
    words: ndarray, begin: int, state: ndarray, x: ndarray, y: ndarray, p: ndarray, t: ndarray
) -> tuple[int, int]:
    """Up to 32 events in a word, at the columns from x on whose bits are set."""
    high, turns, count = state[0], state[1], 0
    for i in range(begin, words.size):
        if count + 32 > t.size:
            begin = i
            break
        upper, mask = np.int64(words[i] >> np.uint64(32)), np.int64(words[i] & np.uint64(0xFFFFFFFF))
        kind = upper >> 28
        if kind <= 1:
            if high >= 0:
                time = turns + (high << 6) + (upper >> 22 & 63)
                column = upper >> 11 & 0x7FF
                while mask:
                    if mask & 1:
                        x[count], y[count], p[count], t[count] = column, upper & 0x7FF, kind, time
                        count += 1
                    mask >>= 1
                    column += 1
        elif kind == 8:
            if high - (upper & 0xFFFFFFF) > 1 << 27:
                turns += 1 << 34
            high = upper & 0xFFFFFFF
    else:
        begin = words.size
    state[0], state[1] = high, turns
    return begin, count


@compiled
def _decode_evt3(
    words: ndarray, begin: int, state: ndarray, x: ndarray, y: ndarray, p: ndarray, t: ndarray
) -> tuple[int, int]:
    """A word changes one thing: 0 row, 3 base column and polarity, 6 low time, 8 high time; 2 is an event, 4 and 5 are
    12 and 8 of them from the base column on, which moves on by as many.
    """
    high, turns, low, row, base, polarity = state
    count = 0
    for i in range(begin, words.size):
        if count + 12 > t.size:
            begin = i
            break
        word = np.int64(words[i])
        kind, value = word >> 12, word & 0xFFF
        if kind == 2:
            if high >= 0 and row >= 0:
                x[count], y[count], p[count] = value & 0x7FF, row, value >> 11
                t[count] = turns + (high << 12) + low
                count += 1
        elif kind == 0:
            row = value & 0x7FF
        elif kind == 4 or kind == 5:
            mask = value if kind == 4 else value & 0xFF
            if high >= 0 and row >= 0:
                time, column = turns + (high << 12) + low, base
                while mask:
                    if mask & 1:
                        x[count], y[count], p[count], t[count] = column, row, polarity, time
                        count += 1
                    mask >>= 1
                    column += 1
            base += 12 if kind == 4 else 8
        elif kind == 6:
            low = value
        elif kind == 3:
            base, polarity = value & 0x7FF, value >> 11
        elif kind == 8:
            if high - value >= 1 << 11:
                turns += 1 << 24
            if value != high:
                low = 0  # the low time follows
            high = value
        elif kind == 1:
            row = -1  # what follows are no events of contrast
    else:
        begin = words.size
    state[0], state[1], state[2], state[3], state[4], state[5] = high, turns, low, row, base, polarity
    return begin, count
