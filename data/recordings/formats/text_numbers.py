"""Lines of decimal numbers, as whole numbers and fractions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from config.errors import UserError
from data.compiled import compiled

_SEPARATOR, _NEWLINE, _COMMENT, _DIGIT, _POINT = 1, 2, 3, 4, 5
_KINDS = np.zeros(256, np.uint8)
for _characters, _kind in (
    (b" \t\r,;", _SEPARATOR),
    (b"\n", _NEWLINE),
    (b"#%", _COMMENT),
    (b"0123456789", _DIGIT),
    (b".", _POINT),
):
    _KINDS[list(_characters)] = _kind
_POWERS = 10 ** np.arange(19)  # the last that fits into 64 bits


class Numbers(NamedTuple):
    """Without loss: times of 10^18 ns do not fit into a float's digits."""

    whole: Int64[ndarray, "n c"]
    fraction: Float64[ndarray, "n c"]  # of the same sign; NaN for what is no finite number

    def column(self, index: int) -> ndarray:
        fraction = self.fraction[:, index]
        return self.whole[:, index] + fraction if fraction.any() else self.whole[:, index]


def parse(path: Path, data: bytes, num_columns: int, first_line: int) -> Numbers:
    """Rows of `num_columns` numbers. Raises UserError with the line of what is none."""
    num_lines = data.count(b"\n") + 1
    whole, fraction = np.empty((num_lines, num_columns), np.int64), np.zeros((num_lines, num_columns))
    num_rows, bad_line = _parse(np.frombuffer(data + b"\n", np.uint8), _KINDS, _POWERS, whole, fraction)
    if bad_line >= 0:
        line = data.split(b"\n", bad_line + 1)[bad_line].decode(errors="replace").strip()
        raise UserError(
            f"{path}, line {first_line + bad_line}: {line[:80]!r} is no event, which has {num_columns} numbers here"
        )
    return Numbers(whole[:num_rows], fraction[:num_rows])


@compiled
def _parse(data: ndarray, kinds: ndarray, powers: ndarray, whole: ndarray, fraction: ndarray) -> tuple[int, int]:
    """Number of rows, and the line that is none, -1 without such a one. `data` ends with a newline."""
    at, row, line, column = 0, 0, 0, 0
    while at < data.size:
        kind = kinds[data[at]]
        if kind == 1:
            at += 1
            continue
        if kind == 2 or (kind == 3 and column == 0):
            while kinds[data[at]] != 2:
                at += 1
            at += 1
            if column > 0:
                if column < whole.shape[1]:
                    return row, line
                row += 1
            line, column = line + 1, 0
            continue
        if column == whole.shape[1]:
            return row, line
        is_negative = data[at] == 45
        at += is_negative or data[at] == 43
        # Digits and the point; those that do not fit only move the point
        mantissa, decimals, exponent = np.int64(0), 0, 0
        num_digits, has_point = 0, False
        while kinds[data[at]] == 4 or (kinds[data[at]] == 5 and not has_point):
            if kinds[data[at]] == 5:
                has_point = True
            else:
                num_digits += 1
                if mantissa < 922_337_203_685_477_580:  # a tenth of 2^63
                    mantissa = mantissa * 10 + np.int64(data[at] - 48)
                    decimals += has_point
                else:
                    exponent += not has_point
            at += 1
        if num_digits and data[at] | 32 == 101:
            # The exponent, behind an e
            at += 1
            is_down = data[at] == 45
            at += is_down or data[at] == 43
            power, digits = 0, 0
            while kinds[data[at]] == 4:
                power = min(power * 10 + np.int64(data[at] - 48), 9999)
                digits += 1
                at += 1
            exponent += -power if is_down else power
            num_digits *= digits > 0
        elif num_digits == 0 and at + 3 < data.size:
            word = np.int64(data[at] | 32) << 16 | np.int64(data[at + 1] | 32) << 8 | np.int64(data[at + 2] | 32)
            if word == 0x6E616E or word == 0x696E66:
                at += 3  # nan, inf
                num_digits = -1
        if num_digits == 0 or not 1 <= kinds[data[at]] <= 2:
            return row, line
        shift, part = decimals - exponent, 0.0
        if shift > 18:
            part = mantissa * 10.0**-shift
            mantissa = 0
        elif shift > 0:
            part = (mantissa % powers[shift]) / powers[shift]
            mantissa = mantissa // powers[shift]
        elif shift < 0 and mantissa > 0:
            fits = -shift <= 18 and mantissa <= 4 * 10**18 // powers[min(-shift, 18)]
            mantissa = mantissa * powers[-shift] if fits else np.int64(4 * 10**18)
        whole[row, column] = -mantissa if is_negative else mantissa
        fraction[row, column] = np.nan if num_digits < 0 else (-part if is_negative else part)
        column += 1
    return row, -1
