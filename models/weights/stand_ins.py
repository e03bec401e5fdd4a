"""What other people's checkpoints hold beside tensors and is mere data, rebuilt without running the classes it names.

Everything here is plain Python: numpy's own unpickling trusts the memory layouts that a file tells.
"""

from __future__ import annotations

import collections
import re
import struct
import typing
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import omegaconf

NUMBER = re.compile(r"[<>|=]?(b1|i[1248]|u[1248]|f[248])")
STRUCT_CODES = {"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
STRUCT_CODES |= {"f2": "e", "f4": "f", "f8": "d"}


class NumpyDtype:
    """numpy.dtype, as far as numbers need it."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def numpy_scalar(dtype: NumpyDtype, raw: bytes = b"") -> bool | int | float:
    """numpy's scalar of a kind of number, as a number."""
    match = NUMBER.fullmatch(dtype.code)
    if match is None:
        raise ValueError(f"numpy scalar of dtype {dtype.code}")
    return struct.unpack(dtype.order + STRUCT_CODES[match[1]], raw)[0]


# What RVT's hyper_parameters are made of. Plain containers: building them runs nothing that the file could choose.
CONTAINERS = (
    omegaconf.DictConfig,
    omegaconf.ListConfig,
    omegaconf.base.ContainerMetadata,
    omegaconf.base.Metadata,
    *(getattr(omegaconf.nodes, f"{kind}Node") for kind in ("Any", "String", "Integer", "Float", "Boolean")),
    collections.defaultdict,
    typing.Any,
    dict,
    list,
    int,
    float,
    str,
    bool,
)
STAND_INS = (
    (NumpyDtype, "numpy.dtype"),
    (numpy_scalar, "numpy._core.multiarray.scalar"),
    (numpy_scalar, "numpy.core.multiarray.scalar"),
    *(
        (PurePosixPath, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath", "Path")
    ),
    *(
        (PureWindowsPath, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("WindowsPath", "PureWindowsPath")
    ),
)
SAFE_CLASSES: list[Any] = [*CONTAINERS, *STAND_INS]
