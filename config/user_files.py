"""Experiments and models as users of RVT and its forks have written them: what means the same here is rewritten.

It happens file by file as Hydra reads them, so that what wins over what stays as the user has ordered it.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.config_repository import ConfigRepository
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from config.errors import UserError
from config.schema import TrainConfig, ValidationConfig
from config.yaml_files import LARGEST_BYTES

GROUPS = ("experiment", "model")
GLOBAL_PACKAGE = "_global_"
FOLDER, PACKAGE = "file", "pkg"  # schemes of Hydra's sources
# ours: theirs
SPELLINGS = {
    "model.loss.size_weight.weight": "model.head.size_aware_weight",
    "model.loss.size_weight.small_area": "model.head.small_threshold",
    "model.loss.size_weight.medium_area": "model.head.medium_threshold",
    "model.postprocess.confidence_threshold": "validation.confidence_threshold",
    "model.postprocess.nms_threshold": "validation.nms_threshold",
}
KIND, SWITCH, TYPE = "model.loss.size_weight.kind", "model.head.size_aware_loss", "model.head.weight_type"
DEFAULT_TYPE = "exponential"
# A key at the top of an experiment with one of these words in it is a note
_NOTE_WORDS = """
    experiment description hypothesis note notes comment motivation rationale goal goals target success criteria
    expected metrics baseline comparison improvement improvements phase status author date version tags reference
    references metadata
"""
NOTE_WORDS = frozenset(_NOTE_WORDS.split())
_SKELETON = "/model/rnndet@_here_"


def rewritten(config_path: str, package: str | None, content: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A file's content and package as this project writes them. Raises UserError for what says two things."""
    group = config_path.partition("/")[0]
    content = copy.deepcopy(content)
    if group == "experiment":
        content = _without_plus(content, config_path)
        _choose_model(content, config_path)
        _spell(content, config_path)
        _collect_notes(content)
        return content, package or GLOBAL_PACKAGE  # config.trust tells where the line is missing
    if content.keys() <= {"defaults", "model"} and isinstance(content.get("model"), dict):  # RVT's: of all sections
        entries = content.get("defaults", [])
        bases = [f"/model/{_choice(entry)}@_here_" for entry in entries if _chooses_model(entry)] or [_SKELETON]
        after = [entry for entry in entries if not _chooses_model(entry) and entry != "_self_"]
        content, package = {"defaults": [*bases, *after, "_self_"], **content["model"]}, "model"
    defaults = {"defaults": content.pop("defaults")} if "defaults" in content else {}
    whole = {"model": content}
    _spell(whole, config_path)
    return {**defaults, **whole["model"]}, package


def _without_plus(content: dict[str, Any], path: str) -> dict[str, Any]:
    """`+model:` as if a file were a command line."""
    if "+model" in content and isinstance(content.get("model"), str):  # its name, and what is changed about it
        content["defaults"] = [*(content.get("defaults") or []), {"model": content.pop("model")}]
    out: dict[str, Any] = {}
    for name, value in content.items():
        plain = str(name).lstrip("+")
        if plain in out:
            raise UserError(f"{path}.yaml has the section {plain} twice, once with a plus. Join the two")
        out[plain] = value
    return out


def _choose_model(content: dict[str, Any], path: str) -> None:
    """All ways to name a network become `override /model: NAME`, which stands last as Hydra wants it."""
    if not isinstance(content.get("defaults", []), list):
        return  # Hydra tells it
    entries = list(content.get("defaults", []))
    if isinstance(content.get("model"), str):
        entries.append({"model": content.pop("model")})
    choices = list(dict.fromkeys(_choice(entry) for entry in entries if _chooses_model(entry)))
    if len(choices) > 1:
        raise UserError(f"{path}.yaml chooses several networks: {', '.join(choices)}. Leave one")
    if choices:
        others = [entry for entry in entries if not _chooses_model(entry)]
        overrides = [entry for entry in others if _is_override(entry)]
        files = [entry for entry in others if not _is_override(entry)]
        content["defaults"] = [*files, *overrides, {"override /model": choices[0]}]


def _split(entry: Any) -> tuple[str, str]:
    """Group and choice of an entry such as `override /model/maxvit_yolox: plain_lstm`."""
    if isinstance(entry, dict) and len(entry) == 1:
        ((group, choice),) = entry.items()
        return str(group).removeprefix("override ").strip().lstrip("/"), str(choice)
    text = str(entry)
    return (text.lstrip("/").rpartition("/")[0], text.rpartition("/")[2]) if text.startswith("/") else ("", text)


def _chooses_model(entry: Any) -> bool:
    group, choice = _split(entry)
    return group.partition("/")[0] == "model" and "@" not in group + choice


def _choice(entry: Any) -> str:
    group, choice = _split(entry)
    return "/".join([*group.split("/")[1:], choice.removesuffix(".yaml")])


def _is_override(entry: Any) -> bool:
    return isinstance(entry, dict) and any(str(group).startswith("override ") for group in entry)


def _spell(content: dict[str, Any], path: str) -> None:
    """Keys of the size-aware head, and thresholds in `validation`, under our names."""
    switch, kind = _take(content, SWITCH), _take(content, TYPE)
    if switch is not None and not isinstance(switch, bool):
        raise UserError(f"{path}.yaml: {SWITCH} is {switch!r}; allowed: true or false")
    if switch is None and kind is not None:
        raise UserError(f"{path}.yaml: {TYPE}={kind} without {SWITCH}: true. Add it, or take {TYPE} out")
    for ours, theirs in SPELLINGS.items():
        value = _take(content, theirs)
        if value is not None and not (switch is False and theirs.startswith("model.head.")):
            _put(content, ours, value, theirs, path)
    if switch is not None:
        _put(content, KIND, (kind or DEFAULT_TYPE) if switch else None, SWITCH, path)


def _collect_notes(content: dict[str, Any]) -> None:
    sections = {*TrainConfig.model_fields, *ValidationConfig.model_fields, "defaults", "hydra"}
    found = [name for name in content if name not in sections and NOTE_WORDS & set(str(name).lower().split("_"))]
    if found:
        told, notes = {name: content.pop(name) for name in found}, content.get("notes") or {}
        content["notes"] = {**notes, **told} if isinstance(notes, dict) else notes  # the schema refuses that


def _get(content: dict[str, Any], key: str) -> Any:
    node: Any = content
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _take(content: dict[str, Any], key: str) -> Any:
    section, _, name = key.rpartition(".")
    node = _get(content, section)
    return node.pop(name, None) if isinstance(node, dict) else None


def _put(content: dict[str, Any], key: str, value: Any, theirs: str, path: str) -> None:
    *sections, name = key.split(".")
    node = content
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise UserError(f"{path}.yaml: {theirs} means {key}, but {section} is no section there")
    if name in node and node[name] != value:
        raise UserError(f"{path}.yaml: {theirs} means {key}={value}, which is {node[name]} there. Leave one of them")
    node[name] = value


class _RewritingSource:
    """Where Hydra finds files, whose experiments and models are rewritten.

    A config is composed several times before a run has begun. What a file holds is parsed once, in this process.
    """

    parsed: ClassVar[dict[tuple[str, str], tuple[bytes, bytes]]] = {}  # what a file held, and what it says

    def __init__(self, source: ConfigSource) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def load_config(self, config_path: str) -> ConfigResult:
        content, file = self._content(config_path), (self._source.full_path(), config_path)
        if content is None:
            return self._parse(config_path)
        if self.parsed.get(file, (None,))[0] != content:
            self.parsed[file] = content, pickle.dumps(self._parse(config_path))
        return pickle.loads(self.parsed[file][1])  # Hydra takes the defaults list out of it; copying takes longer

    def _content(self, config_path: str) -> bytes | None:
        """Of a file of a folder; None of what is none or too large, which the reader refuses."""
        if self._source.scheme() == PACKAGE:
            return b""  # Hydra's own stay as they are
        path = Path(self._source.path, self._source._normalize_file_name(config_path))
        return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST_BYTES else None

    def _parse(self, config_path: str) -> ConfigResult:
        result = self._source.load_config(config_path)
        if config_path.partition("/")[0] not in GROUPS or not OmegaConf.is_dict(result.config):
            return result
        before: Any = OmegaConf.to_container(result.config, resolve=False)
        package = result.header.get("package")
        after, new_package = rewritten(config_path.removesuffix(".yaml"), package, before)
        if (after, new_package) != (before, package):
            result.config = OmegaConf.create(after)
            result.header["package"] = new_package
        return result


def _rewriting(find: Callable[..., Any]) -> Callable[..., Any]:
    def find_source(repository: ConfigRepository, config_path: str, object_type: Any) -> Any:
        source = find(repository, config_path, object_type)
        return _RewritingSource(source) if source is not None and source.scheme() in (FOLDER, PACKAGE) else source

    return find_source


def rewrite_user_files() -> None:
    """From here on Hydra reads files through `rewritten`, in its own main program as well."""
    if ConfigRepository._find_object_source.__module__ != __name__:
        ConfigRepository._find_object_source = _rewriting(ConfigRepository._find_object_source)  # type: ignore[bad-assignment]
