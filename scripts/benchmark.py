"""Measure what this project is fast at, beside a plain rendition of the usual way (scripts/benchmarks/plain_*.py).

python scripts/benchmark.py                        # everything that the table in the README shows: some minutes
python scripts/benchmark.py train infer            # parts of it: train, infer, load, preprocess, evaluate, start
python scripts/benchmark.py measures               # what each measure brings to training, alone and when taken away
python scripts/benchmark.py latency                # from events to boxes, one stream; bfloat16, ONNX Runtime
python scripts/benchmark.py savings                # what each saving of inference brings, one stream frame by frame
python scripts/benchmark.py kernels                # each choice that depends on the processor, against its other ways
python scripts/benchmark.py roofline               # how near a training step is to the processor's matrix products
python scripts/benchmark.py growth                 # frames/s against frames a chunk, lanes, pixels, boxes, sequences
python scripts/benchmark.py scale                  # index, plan, evaluation, all-reduce of many processes
python scripts/benchmark.py --device cuda          # every size of the network on a GPU, and the loader with 8 workers
python scripts/benchmark.py train model.backbone.compile.enable=true     # any key of the config
python scripts/benchmark.py train batch_size.train=2 --cpu-time          # fewer lanes than 6, for a busy machine

The plain way and ours take turns; a ratio is that of the medians, and "rounds" the least and largest of a round.
Networks run in processes of their own, since an allocator's settings cannot be taken back.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from config.command_line import errors_without_traceback
from models.layers.kernels import describe_kernels, kernels_for, other_ways
from scripts.benchmarks.measuring import Measure, Row, alternate, alternate_remotely, machine, markdown
from scripts.benchmarks.network import (
    CHECK_SIZE,
    OURS,
    PLAIN,
    Case,
    Way,
    fastest,
    megabytes_of_training,
    seconds_of_inference,
    seconds_of_training,
    ways_by_precision,
)
from scripts.benchmarks.recordings import Scene

PARTS = ("train", "infer", "load", "preprocess", "evaluate", "start")
OTHERS = ("measures", "kernels", "roofline", "growth", "scale", "sizes", "latency", "savings")
MODELS = ("tiny", "small", "base")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HALF_AGAIN = ("dataset.resolution_hw=[360,640]",)  # frames of 180 x 320


@dataclass(frozen=True)
class Effort:
    """How much work the parts do."""

    rounds: int = 3
    scene: Scene = field(default_factory=Scene)
    frames: int = 2_000  # to evaluate
    workers: int = 8
    own_processes: bool = True
    models: tuple[str, ...] = MODELS
    values_of_growth: int | None = None  # of each parameter; all


CHECK = Effort(
    rounds=1,
    scene=Scene((128, 256), num_windows=12, events_per_window=2_000),
    frames=50,
    workers=1,
    own_processes=False,
    models=MODELS[:1],
    values_of_growth=1,
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join((*PARTS, *OTHERS))}; or key=value")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, help="how often each takes its turn (3)")
    parser.add_argument("--cpu-time", action="store_true", help="of train, infer, measures: for a busy machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--check", action="store_true", help="tiny sizes, to see that everything runs")
    options = parser.parse_args(arguments)
    overrides = tuple(part for part in options.parts if "=" in part)
    parts = [part for part in options.parts if "=" not in part] or (PARTS if options.device == "cpu" else ["sizes"])
    if unknown := set(parts) - {*PARTS, *OTHERS}:
        parser.error(f"{', '.join(sorted(unknown))}: no such part")
    effort = CHECK if options.check else Effort()
    effort = replace(effort, rounds=options.rounds or effort.rounds)
    check_size = CHECK_SIZE if options.check else ()
    case = Case(options.device, (*overrides, *check_size), cpu_time=options.cpu_time)
    if options.check:
        case = replace(case, batch_size=2, length=2)
    case = _of_typed_size(case)
    on = machine(options.device)
    precisions = ways_by_precision(options.device)
    chosen = {name: describe_kernels(options.device, PRECISIONS[name]) for name in precisions}
    print(on, *(f"{name}: {', '.join(kernels.values())}" for name, kernels in chosen.items()), sep="\n")
    left_out = [f"{name}: left out of all parts, no hardware for it" for name in PRECISIONS if name not in precisions]
    print(*left_out, "", sep="\n", flush=True)
    results: dict[str, Any] = {
        "machine": on,
        "chosen_kernels": chosen,
        "command": " ".join(["python scripts/benchmark.py", *sys.argv[1:]]),
    }
    for part in parts:
        results[part] = RUN[part](case, effort)
        print(flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))
    return 0


def _of_typed_size(case: Case) -> Case:
    """With the lanes and frames a chunk that the overrides name, if any."""
    typed = {text.partition("=")[0].lstrip("+") for text in case.overrides}
    if "batch_size.train" in typed:
        case = replace(case, batch_size=case.config().batch_size.train)
    if "dataset.sequence_length" in typed:
        case = replace(case, length=case.config().dataset.sequence_length)
    return case


def train(case: Case, effort: Effort) -> list[Row]:
    costs = _alternate(seconds_of_training, case, {"plain": PLAIN, **ways_by_precision(case.device)}, effort)
    rows = [
        Row(f"training step, {name}", case.unit, costs[name], costs["plain"], target, case.description)
        for name, target in (("float32", ">= 1.3 x"), ("bfloat16", ">= 2.2 x"))
        if name in costs
    ]
    checkpointing = replace(OURS, activation_checkpointing=True)
    memory = _alternate(megabytes_of_training, case, {"plain": OURS, "ours": checkpointing}, effort)
    what = "memory of a training step, without and with activation checkpointing"
    return [*rows, Row(what, "MB", **memory, target=">= 2.5 x", note=case.description)]


def infer(case: Case, effort: Effort) -> list[Row]:
    case = replace(case, batch_size=1)
    ways = {"plain": PLAIN, **ways_by_precision(case.device)}
    costs = _alternate(seconds_of_inference, case, ways, effort, repeats=15)
    return [
        Row(f"inference, {name}", case.unit, costs[name], costs["plain"], target, case.description)
        for name, target in (("float32", ""), ("bfloat16", ">= 1.8 x"))
        if name in costs
    ]


def measures(case: Case, effort: Effort) -> list[Row]:
    """Each measure alone, on top of the plain way; then what its absence costs."""
    best = fastest(case.device)
    flags = [name for name, wanted in asdict(best).items() if wanted != getattr(PLAIN, name)]
    flags.remove("folded_norm")  # in inference only
    alone = {flag: replace(PLAIN, **{flag: getattr(best, flag)}) for flag in flags}
    costs = _alternate(seconds_of_training, case, {"plain": PLAIN, **alone}, effort)
    rows = [Row(f"{flag} alone", case.unit, costs[flag], costs["plain"], note=case.description) for flag in flags]
    without = {flag: replace(best, **{flag: getattr(PLAIN, flag)}) for flag in flags}
    costs = _alternate(seconds_of_training, case, {"all": best, **without}, effort)
    return rows + [
        Row(f"{flag}, the last of all", case.unit, costs["all"], costs[flag], note=case.description) for flag in flags
    ]


def kernels(case: Case, effort: Effort) -> list[Row]:
    """What each choice's other ways cost, one at a time; then all of them together."""
    rows = []
    for name, way in ways_by_precision(case.device).items():
        ours = kernels_for(case.device, PRECISIONS[name])
        others = other_ways(ours)
        for make, what in ((seconds_of_training, "training"), (seconds_of_inference, "inference")):
            ways = {
                "chosen": way,
                **{f"{choice} {by}": replace(way, other_kernels=((choice, by),)) for choice, by in others},
            }
            ways["all of these"] = replace(way, other_kernels=tuple(others))
            costs = _alternate(make, case, ways, effort, repeats=3)
            rows += [
                Row(f"{what}, {name}: {other}", case.unit, costs["chosen"], costs[other], note=case.description)
                for other in list(ways)[1:]
            ]
    return rows


def _alternate(
    make: Callable[[Case, Way], Measure], case: Case, ways: dict[str, Way], effort: Effort, repeats: int = 1
) -> dict[str, list[float]]:
    if not effort.own_processes:
        return alternate({name: make(case, way) for name, way in ways.items()}, effort.rounds)
    makers = {name: partial(way.remote, make, case) for name, way in ways.items()}
    return alternate_remotely(makers, effort.rounds, repeats)


def load(case: Case, effort: Effort) -> list[Row]:
    from scripts.benchmarks import streams

    return streams.load(effort.scene, effort.rounds)


def preprocess(case: Case, effort: Effort) -> list[Row]:
    from scripts.benchmarks import streams

    return streams.preprocess(effort.scene, effort.rounds)


def evaluate(case: Case, effort: Effort) -> list[Row]:
    from scripts.benchmarks import evaluation

    return evaluation.evaluate(effort.rounds, effort.frames)


def start(case: Case, effort: Effort) -> list[Row]:
    from scripts.benchmarks import start

    return start.start(effort.scene, effort.rounds, case.overrides)


def latency(case: Case, effort: Effort) -> list[Row]:
    from scripts.benchmarks import latency

    return latency.latency(_one_stream(case), effort.scene, 20 * effort.rounds)


def savings(case: Case, effort: Effort) -> list[Row]:
    from scripts.benchmarks import savings

    return savings.savings(_one_stream(case), 10 * effort.rounds)


def _one_stream(case: Case) -> Case:
    return replace(case, model="tiny", overrides=case.overrides or HALF_AGAIN)


def _told(part: Callable[[Case, Effort], list[Row]], case: Case, effort: Effort) -> list[dict[str, Any]]:
    rows = part(case, effort)
    print(markdown(rows), flush=True)
    return [row.as_dict() for row in rows]


def _roofline(case: Case, effort: Effort) -> list[dict[str, Any]]:
    from scripts.benchmarks import roofline

    results = {name: roofline.roofline(case, way) for name, way in ways_by_precision(case.device).items()}
    for name, result in results.items():
        print(roofline.markdown(name, result), flush=True)
    return [{"precision": name, **asdict(result)} for name, result in results.items()]


def _growth(case: Case, effort: Effort) -> list[dict[str, str]]:
    from scripts.benchmarks import growth

    rows = growth.growth(replace(case, model="tiny"), min(effort.rounds, 3), effort.values_of_growth)
    return _listed(("what grows", "to", "figure"), rows)


def _scale(case: Case, effort: Effort) -> list[dict[str, str]]:
    from scripts.benchmarks import scale

    return _listed(("what", "of", "figure"), scale.scale(case, effort.values_of_growth))


def _listed(header: tuple[str, str, str], rows: Sequence[tuple[str, str, str]]) -> list[dict[str, str]]:
    print(f"| {' | '.join(header)} |\n|---|---|---|")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows), flush=True)
    return [dict(zip(("what", "value", "figure"), row, strict=True)) for row in rows]


def _sizes(case: Case, effort: Effort) -> dict[str, Any]:
    from scripts.benchmarks import sizes, streams

    results = sizes.sizes(case, effort.rounds, effort.models)
    rate = streams.loader_rate(effort.scene, effort.workers, case.device)
    print(sizes.markdown(results))
    print(f"\nloader, {effort.workers} workers: {rate:.0f} frames/s", flush=True)
    loader = {"workers": effort.workers, "frames_per_s": rate}
    return {"networks": [asdict(row) for row in results], "loader": loader}


PARTS_OF_TABLES = (train, infer, load, preprocess, evaluate, start, measures, kernels, latency, savings)
RUN: dict[str, Callable[[Case, Effort], Any]] = {
    **{part.__name__: partial(_told, part) for part in PARTS_OF_TABLES},
    "roofline": _roofline,
    "growth": _growth,
    "scale": _scale,
    "sizes": _sizes,
}

if __name__ == "__main__":
    with errors_without_traceback():
        sys.exit(main())
