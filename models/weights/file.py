"""Opening a file with weights: whole, undamaged, and without running code from it."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from config.errors import UserError
from models.weights.portable import is_portable, read_portable
from models.weights.stand_ins import SAFE_CLASSES


class HoldsCodeError(UserError):
    """A file that is more than data. Loading it could run whatever its author wants."""


def read_file(path: Path, *, trust: bool = False, mapped: bool = True) -> dict[str, Any]:
    """The content of a checkpoint of any kind, tensors on the host.

    Args:
        trust: unpickle a file that is more than data, which runs any code hidden in it.
        mapped: leave the tensors in the file until they are used.

    Raises:
        UserError: no such file, empty, damaged, no checkpoint, or only loadable with `trust` (`HoldsCodeError`).
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is an empty file: it was never completely written. {another(path)}")
    try:
        if is_portable(path):
            return read_portable(path)
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            stat = path.stat()
            _check_sums(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        with torch.serialization.safe_globals(SAFE_CLASSES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about protocols of pickles
            content = torch.load(path, map_location="cpu", weights_only=not trust, mmap=mapped and is_zip)
    except UserError:
        raise
    except (OSError, MemoryError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except ImportError as error:
        raise UserError(f"{path} holds objects of {error.name or 'a module'}, which is not installed here") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        _refuse_code(path, error, trust)
        raise UserError(
            f"{path} cannot be read as a checkpoint: damaged, cut short, or none at all. {another(path)}"
        ) from error
    if isinstance(content, torch.nn.Module):  # only ever with `trust`
        return content.state_dict()
    return content if isinstance(content, dict) else {}


def another(path: Path) -> str:
    """What to do about a broken file: the others beside it."""
    others = sorted(other.name for other in path.parent.glob("*.ckpt") if other.name != path.name)
    shown = ", ".join(others[-4:])
    return f"Take another checkpoint; beside it: {shown}" if others else "Take another checkpoint"


def require_finite(tensors: Mapping[str, Tensor], path: Path, what: str = "weights") -> None:
    """Raises UserError for tensors that are not plain ones of the host, or hold NaN or infinity."""
    odd = [name for name, tensor in tensors.items() if not _is_plain(tensor)]
    if odd:
        raise UserError(f"{path}: {what} that are no plain tensors ({len(odd)}, {odd[0]} first). {another(path)}")
    broken = [name for name, tensor in tensors.items() if not is_finite(tensor)]
    if broken:
        raise UserError(
            f"{path}: {len(broken)} of {len(tensors)} {what} hold NaN or infinity ({broken[0]} first): "
            f"the training that wrote it had failed. {another(path)}"
        )


def is_finite(tensor: Tensor) -> bool:
    """Several times as fast as torch.isfinite, which makes a mask: NaN passes through minimum and maximum."""
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    if not values.is_floating_point() or values.numel() == 0:
        return True
    values = values.detach()
    return bool(torch.stack(torch.aminmax(values if values.itemsize > 1 else values.float())).isfinite().all())


def _is_plain(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized


@lru_cache(maxsize=8)
def _check_sums(path: Path, inode: int, size: int, mtime_ns: int) -> None:
    """Compare all parts of the archive with their checksums, which torch does not; once for each state of a file."""
    with zipfile.ZipFile(path) as archive:
        damage = _first_damage(archive)
    if damage is not None:
        raise UserError(f"{path} is damaged: {damage}. {another(path)}")


def _first_damage(archive: zipfile.ZipFile) -> str | None:
    parts = archive.infolist()
    if len({part.filename for part in parts}) < len(parts):
        return "a part is there twice"
    for part in parts:
        if part.compress_type != zipfile.ZIP_STORED:
            return f"{part.filename} is compressed, as torch never writes it"
        try:
            with archive.open(part) as stream:
                while stream.read(1 << 20):
                    pass
        except Exception:  # the header of a part may be damaged in any way
            return f"{part.filename} differs from its checksum"
    return None


def _refuse_code(path: Path, error: Exception, trust: bool) -> None:
    blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if not trust and isinstance(error, pickle.UnpicklingError) and blocked is not None:
        raise HoldsCodeError(
            f"{path} holds more than weights ({blocked[1]}), and loading that could run code from the file. "
            "Set trust_checkpoint=true if you know where the file comes from"
        ) from error


def nested_tensors(value: object) -> Iterable[Tensor]:
    """All tensors in lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from nested_tensors(part)
