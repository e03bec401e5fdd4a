"""A data set's settings against each other."""

from __future__ import annotations

from collections.abc import Iterator

from config.errors import Problem
from config.inherited import check_class_names
from config.schema import DatasetConfig, representation_of


def check_dataset_settings(dataset: DatasetConfig) -> Iterator[Problem]:
    """Names of classes, representation, augmentation ranges."""
    twice = sorted({name for name in dataset.classes if dataset.classes.count(name) > 1})
    if twice:
        yield Problem("dataset.classes", f"names twice: {', '.join(twice)}")
    yield from check_class_names(dataset)
    yield from _check_frame_size(dataset)
    yield from _check_class_map(dataset)
    yield from _check_representation(dataset)
    yield from _check_augmentation(dataset)


def _check_frame_size(dataset: DatasetConfig) -> Iterator[Problem]:
    """Boxes are filtered by one length for both axes, and an event becomes no more than one count."""
    (height, width), (sensor_height, sensor_width) = dataset.loaded_hw, dataset.resolution_hw
    if height > sensor_height or width > sensor_width:
        message = f"is {[height, width]} (height, width), more than the sensor's {[sensor_height, sensor_width]}"
        yield Problem("dataset.frame_hw", message)
    elif dataset.stride is None and _distorts(height, width, dataset.resolution_hw):
        is_turned = not _distorts(width, height, dataset.resolution_hw)
        fitting = [width, height] if is_turned else [height, round(height * sensor_width / sensor_height)]
        sensor = [sensor_height, sensor_width]
        message = f"is {[height, width]} (height, width), which distorts the sensor's {sensor}: {fitting} does not"
        yield Problem("dataset.frame_hw", message)


def _distorts(height: int, width: int, sensor_hw: tuple[int, int]) -> bool:
    """By a pixel and more."""
    return abs(height * sensor_hw[1] - width * sensor_hw[0]) >= max(sensor_hw)


def _check_class_map(dataset: DatasetConfig) -> Iterator[Problem]:
    """Each stored class becomes one of ours, and each of ours has one."""
    key, classes, stored = "dataset.class_map", dataset.classes, dataset.stored_classes
    if stored is None:
        if dataset.class_map:
            message = "maps stored classes, and dataset.stored_classes does not say which those are"
            yield Problem("dataset.stored_classes", message)
        return
    twice = sorted({name for name in stored if stored.count(name) > 1})
    if twice:
        yield Problem("dataset.stored_classes", f"names twice: {', '.join(twice)}")
    for name in dataset.class_map:
        if name not in stored:
            yield Problem(f"{key}.{name}", f"is no class of dataset.stored_classes: {', '.join(stored)}")
    for name in stored:
        if dataset.class_map.get(name, name) not in classes:
            told = f"does not say which of {', '.join(classes)} the stored class {name!r} is"
            yield Problem(key, told)
    empty = set(classes) - {dataset.class_map.get(name, name) for name in stored}
    if empty:
        yield Problem(key, f"no stored class becomes {', '.join(sorted(empty))}")


def _check_representation(dataset: DatasetConfig) -> Iterator[Problem]:
    told, stated = representation_of(dataset.ev_repr_name), dataset.representation
    if told is None:
        yield Problem(
            "dataset.ev_repr_name",
            f"{dataset.ev_repr_name!r} is no stacked histogram; allowed: stacked_histogram_dt=<ms>_nbins=<bins>",
        )
    elif told != (stated.window_ms, stated.bins):
        yield Problem(
            "dataset.ev_repr_name",
            f"{dataset.ev_repr_name!r} says {told[0]} ms and {told[1]} bins, but dataset.representation says "
            f"window_ms={stated.window_ms}, bins={stated.bins}",
        )


def _check_augmentation(dataset: DatasetConfig) -> Iterator[Problem]:
    for kind, settings in (("random", dataset.data_augmentation.random), ("stream", dataset.data_augmentation.stream)):
        key = f"dataset.data_augmentation.{kind}"
        if settings.rotate.min_angle_deg > settings.rotate.max_angle_deg:
            yield Problem(f"{key}.rotate.min_angle_deg", "is greater than max_angle_deg")
        for direction in ("zoom_in", "zoom_out"):
            zoom = getattr(settings.zoom, direction)
            if zoom is not None and zoom.factor.min > zoom.factor.max:
                yield Problem(f"{key}.zoom.{direction}.factor.min", "is greater than max")
    if dataset.data_augmentation.stream.zoom.zoom_in is not None:
        yield Problem(
            "dataset.data_augmentation.stream.zoom.zoom_in",
            "streams only zoom out: a window to zoom into would have to be chosen before later boxes are known",
        )
