"""A detector's weights from a file: all of them, or as much as was asked for, and told what was taken.

Read are our own checkpoints, checkpoints of RVT (github.com/uzh-rpg/RVT), of its forks with a `PlainLSTM2d` and of its
sister with S5 cells (github.com/uzh-rpg/ssms_event_cameras), bare state dicts of any, and safetensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from config.errors import UserError
from config.freezing import frozen_modules
from config.schema import Config, ModelConfig, S5Config, TrainConfig, recorded_hw
from models.detector import Detector
from models.weights.comparison import CLASS_PREDICTORS, Comparison, compare
from models.weights.description import WITHOUT_SHAPE, typed
from models.weights.file import read_file, require_finite
from models.weights.published_names import is_published_s5
from models.weights.search import choose


@dataclass(frozen=True)
class Wanted:
    """What is to be taken of a file.

    Attributes:
        key: of the set of weights, where the file holds several.
        classes: names of the data set's.
        frame_hw: height and width of the frames that the detector will see.
        new_classes: leave the class predictors as they were initialised.
        partial: take what fits.
        trust: unpickle a file that is more than data, which runs any code hidden in it.
        offered: the command has keys for `new_classes` and `partial`, which a refusal may name.
        frozen: parts that are not trained, as in training.freeze: the file must have the whole of them.
    """

    key: str | None = None
    classes: tuple[str, ...] = ()
    new_classes: bool = False
    partial: bool = False
    trust: bool = False
    offered: bool = False
    frozen: tuple[str, ...] = ()
    frame_hw: tuple[int, int] | None = None

    @classmethod
    def of(cls, config: Config) -> Wanted:
        common = cls(
            key=config.weights_key,
            classes=config.dataset.classes,
            trust=config.trust_checkpoint,
            frame_hw=config.dataset.loaded_hw,
        )
        if not isinstance(config, TrainConfig):
            return common
        return replace(
            common,
            new_classes=config.weights_classes == "new",
            partial=config.weights_partial,
            offered=True,
            frozen=config.training.freeze,
        )


EVERYTHING = Wanted()


def load_into(detector: Detector, config: ModelConfig, path: Path, wanted: Wanted = EVERYTHING) -> list[str]:
    """Give a detector the weights of a file; returns what its user should know about them, a line each.

    Args:
        config: what the detector was built from.

    Raises:
        UserError: as `read_file`, `choose` and `check_compatible`; or nothing in the file fits.
    """
    content = read_file(path, trust=wanted.trust)
    own = detector.state_dict()
    candidate, choice = choose(content, path, own, wanted.key)
    require_finite(candidate.weights, path)
    notes = [choice] if choice else []
    if wanted.new_classes or wanted.partial:
        comparison = compare(candidate.weights, own, aligned=wanted.partial)
        if wanted.new_classes:
            _check_others(comparison, path, wanted)
            comparison = comparison.dropping(CLASS_PREDICTORS)
        _check_frozen(comparison, path, wanted)
        taken = comparison.loaded
        if not taken:
            raise UserError(f"{path}: nothing in it fits the config's model. {comparison.by_part()}")
        notes += comparison.table(path) if wanted.partial else [_about_new_classes(comparison, path, wanted)]
    else:
        check_compatible(candidate.weights, own, path, wanted)
        taken = candidate.weights
        notes += _about_classes(content, path, wanted)
    detector.load_state_dict({**own, **taken})
    notes += _about_frames(content, path, wanted)
    notes += [f"{path} was trained with {change}" for change in changes_without_shape(content, config)]
    is_s5 = is_published_s5(candidate.published) and config.backbone.stage.s5 is not None
    return notes + (_about_the_state(path, config.backbone.stage.s5) if is_s5 else [])


def load_weights(
    path: Path, own: Mapping[str, Tensor], trust: bool = False, key: str | None = None
) -> dict[str, Tensor]:
    """The weights in a file, by our names, without a detector's being changed. Raises UserError as `load_into`."""
    candidate, _ = choose(read_file(path, trust=trust), path, own, key)
    require_finite(candidate.weights, path)
    return candidate.weights


def check_compatible(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path, wanted: Wanted = EVERYTHING
) -> None:
    """Make sure that a detector with the state `own` can take `weights`.

    Raises:
        UserError: it cannot; the message names `path`, the settings that the weights ask for, the parts that differ,
            and the keys that take a part of them.
    """
    comparison = compare(weights, own)
    if comparison.fits:
        return
    remedy = " weights_partial=true takes what fits" if wanted.offered and comparison.loaded else ""
    if comparison.only_classes_differ:
        theirs, ours = comparison.class_counts
        message = f"{path} was trained for {theirs} classes, and here there are {ours}. "
        if wanted.offered:
            raise UserError(f"{message}weights_classes=new keeps all but the class predictors")
        raise UserError(f"{message}It needs a dataset with {theirs} classes")
    if comparison.settings:
        raise UserError(
            f"{path} belongs to another model than the config describes. It needs {', '.join(comparison.settings)}. "
            f"{comparison.by_part()}.{remedy}"
        )
    raise UserError(
        f"{path} does not fit the config's model: {comparison.by_part()}. "
        f"Compare model.* with the config that it was trained with.{remedy}"
    )


def _check_others(comparison: Comparison, path: Path, wanted: Wanted) -> None:
    """Raises UserError where more than the class predictors differs, and that was not asked for."""
    others = comparison.without(CLASS_PREDICTORS)
    if not wanted.partial:
        check_compatible(others.theirs, others.own, path, wanted)


def _check_frozen(comparison: Comparison, path: Path, wanted: Wanted) -> None:
    """Raises UserError where a part would stay as it was drawn at random."""
    frozen = tuple(f"{module}." for module in frozen_modules(wanted.frozen))
    drawn = [name for name in comparison.new if name.startswith(frozen)]
    if drawn:
        raise UserError(
            f"training.freeze={','.join(wanted.frozen)}: {len(drawn)} tensors, {drawn[0]} first, are not taken from "
            f"{path} and would stay as they are drawn at random. Leave their part out of training.freeze"
        )


def _about_new_classes(comparison: Comparison, path: Path, wanted: Wanted) -> str:
    theirs, ours = comparison.class_counts
    return (
        f"{path}: all but the class predictors is kept; those start anew for {ours} classes, "
        f"{', '.join(wanted.classes)} (the file's had {theirs})"
    )


def _about_classes(content: Mapping[Any, Any], path: Path, wanted: Wanted) -> Iterator[str]:
    """As many classes under other names are other classes, or the same in another order."""
    section = _section(content, "dataset")
    before = section.get("classes") if isinstance(section, dict) else None
    if isinstance(before, list) and wanted.classes and list(wanted.classes) != before:
        remedy = "; weights_classes=new starts the class predictors anew" if wanted.offered else ""
        yield (
            f"{path} was trained for the classes {', '.join(map(str, before))}; here they are called "
            f"{', '.join(wanted.classes)}{remedy}"
        )


def _about_frames(content: Mapping[Any, Any], path: Path, wanted: Wanted) -> Iterator[str]:
    before, now = recorded_hw(_section(content, "dataset")), wanted.frame_hw
    if before is not None and now is not None and before != now:
        yield (
            f"{path} was trained with frames of {before[0]} x {before[1]}; here they are {now[0]} x {now[1]}. Its "
            "weights fit any size; what is large and small in pixels, and the windows of attention, change with it"
        )


def _section(content: Mapping[Any, Any], name: str) -> Any:
    config = content.get("config")
    return config.get(name) if isinstance(config, dict) else None


def changes_without_shape(content: Mapping[Any, Any], config: ModelConfig) -> Iterator[str]:
    """Settings that tell in no shape, where a checkpoint of ours was trained with others."""
    for key in WITHOUT_SHAPE:
        before: Any = _section(content, "model")
        now: Any = config
        for name in key.split(".")[1:]:
            now = getattr(now, name, None)
            before = before.get(name) if isinstance(before, dict) else None
        if None not in (before, now) and before != now:
            yield f"{key}={typed(before)}; here it is {typed(now)}"


def _about_the_state(path: Path, config: S5Config | None) -> list[str]:
    trained = f"{path} comes from the published code for S5, which starts every chunk of frames from a state of zeros"
    assert config is not None, "the weights fit, so the cell is S5"
    if config.carry_state:
        return [
            f"{trained}; here the state goes on from chunk to chunk, as S5 is defined. "
            "model.backbone.stage.s5.carry_state=false does as that code does, as its published results need it"
        ]
    return [f"{trained}; so it is here, as model.backbone.stage.s5.carry_state=false asks"]
