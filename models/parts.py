"""Parts of the network that are a user's own: classes by import path, `module:Name`."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError
from torch import nn

from config import names
from config.errors import UserError
from config.schema import ModelConfig

_PROJECT = Path(__file__).resolve().parents[1]


def is_own(name: str) -> bool:
    """True for an import path; the project's own parts have short names."""
    return ":" in name


def own_parts(config: ModelConfig) -> dict[str, str]:
    """Keys of a network that name a user's own classes, with the import paths."""
    named = {"model.backbone.stage.cell": config.backbone.stage.cell, "model.loss.name": config.loss.name}
    return {key: name for key, name in named.items() if is_own(name)}


def build_own(path: str, key: str, options: Mapping[str, Any], *arguments: Any, is_module: bool = False) -> Any:
    """`Name(*arguments, options)` of an import path `module:Name`.

    Args:
        key: of the configuration that names it; its options stand beside it.
        options: checked by the class's own pydantic model `Options`, if it has one, and given to it as such.
        is_module: the class must derive from `nn.Module`.

    Raises:
        UserError: it cannot be imported, is no such class, or refuses its arguments.
    """
    part: Any = import_part(path, key)
    if not inspect.isclass(part) or (is_module and not issubclass(part, nn.Module)):
        wanted = "a class that derives from torch.nn.Module" if is_module else "a class"
        raise UserError(f"{key}={path}: is {_kind(part)}; wanted is {wanted}")
    build: Any = part
    try:
        return build(*arguments, _checked_options(part, path, key, options))
    except UserError:
        raise
    except Exception as error:
        wanted = ", ".join([*(type(argument).__name__ for argument in arguments), "options"])
        raise UserError(f"{key}={path}: {path.partition(':')[2]}({wanted}) fails: {explained(error)}") from error


@functools.cache
def import_part(path: str, key: str) -> Any:
    """Import what `module:Name` names, and tell once where it comes from: it is code.

    Raises:
        UserError: with the remedy, if that does not work.
    """
    module_name, _, name = path.partition(":")
    module = _import_module(module_name, f"{key}={path}")
    if not hasattr(module, name):
        own = [each for each, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        near = names.nearest(name, own)
        suggestion = f"; did you mean {module_name}:{near}?" if near else f" ({', '.join(own) or 'it defines nothing'})"
        raise UserError(f"{key}={path}: {_file(module)} has no {name}{suggestion}")
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with contextlib.suppress(OSError):
            print(f"{key}: {name} of {_file(module)}", file=sys.stderr, flush=True)
    return getattr(module, name)


def _import_module(name: str, told: str) -> ModuleType:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        raise UserError(f"{told}: {top} is a module of Python itself. Give your file another name")
    if _is_beside_the_program(top):
        remedy = f"If that is meant: PYTHONPATH={_PROJECT} python ..."
        raise UserError(f"{told}: {top} lies in {_PROJECT}, as runs and data sets of others may do. {remedy}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{told}: importing {name} fails: {explained(error)}. Install what it needs") from error
        here = Path.cwd() if any(Path(top).with_suffix(suffix).exists() for suffix in ("", ".py")) else "FOLDER"
        remedy = f"PYTHONPATH={here} python ..." + ("" if here != "FOLDER" else f", the folder that holds {top}.py")
        raise UserError(f"{told}: there is no module {error.name} on Python's path. {remedy}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit as well: any code of the user's runs here
        raise UserError(f"{told}: importing {name} fails: {explained(error)}") from error


def _is_beside_the_program(top: str) -> bool:
    """Python looks there unasked, also into folders that hold no package."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    places = list(spec.submodule_search_locations or [spec.origin or ""])
    asked = [Path(entry or ".").resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    named = bool(os.environ.get("PYTHONPATH")) and _PROJECT in asked
    return not named and any(Path(place).resolve().parent == _PROJECT for place in places)


def _checked_options(part: type, path: str, key: str, options: Mapping[str, Any]) -> Any:
    schema = getattr(part, "Options", None)
    if schema is None:
        return dict(options)
    if not (inspect.isclass(schema) and issubclass(schema, BaseModel)):
        raise UserError(f"{key}={path}: its Options are {_kind(schema)}; wanted is a pydantic model")
    faults = []
    if schema.model_config.get("extra", "ignore") == "ignore":  # a mistyped name would have no effect
        faults = [f"{name}: there is no such option" for name in options if name not in schema.model_fields]
    checked = None
    try:
        checked = schema.model_validate(dict(options))
    except ValidationError as error:
        faults += [f"{'.'.join(map(str, fault['loc'])) or 'options'}: {fault['msg']}" for fault in error.errors()]
    if faults:
        known = ", ".join(schema.model_fields) or "none"
        raise UserError(f"{key}={path}: its options are wrong: {'; '.join(faults)}. It has: {known}")
    return checked


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if inspect.isclass(value) else f"a {type(value).__name__}"


def _file(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def explained(error: BaseException) -> str:
    """The error, and the last line of the user's own that it went through."""
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    places = [f"{frame.filename}:{frame.lineno}" for frame in frames if _is_users(frame.filename)]
    return f"{reason} ({places[-1]})" if places else reason


def _is_users(filename: str) -> bool:
    path = Path(filename)
    others = (Path(os.__file__).parent, Path(__file__).parents[1])
    return path.is_file() and "site-packages" not in path.parts and not any(map(path.is_relative_to, others))
