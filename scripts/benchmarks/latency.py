"""From a window's events to its boxes, one stream at a time, by all that can run the network."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

from config.errors import UserError
from config.processor import has_bfloat16
from data.recordings.events import Events
from models.cells.cell import State
from models.detector import Detector
from models.layers.kernels import using
from models.postprocess import decode, postprocess
from modules.deployment.description import Description
from modules.deployment.network import Found, Network, warm_up
from modules.deployment.onnx_network import OnnxNetwork
from modules.deployment.timing import Latency
from modules.deployment.torch_network import TorchNetwork
from modules.deployment.windows import FrameCounter
from scripts.benchmarks import plain_network
from scripts.benchmarks.measuring import Row
from scripts.benchmarks.network import OURS, PLAIN, Case
from scripts.benchmarks.recordings import Scene

TARGET = {"float32": "", "bfloat16": "", "ONNX Runtime, float32": ">= 1.8 x"}


class PlainNetwork:
    """The reference's way: a float frame through the plain layers, with autograd's bookkeeping off."""

    def __init__(self, detector: Detector, description: Description) -> None:
        self.description, self._detector = description, detector.eval()
        self._device = next(detector.parameters()).device
        self._state: list[State] | None = None

    def reset(self) -> None:
        self._state = None

    @torch.no_grad()
    def __call__(self, frame: UInt8[ndarray, "c h w"]) -> tuple[Found, tuple[float, float, float]]:
        started = time.perf_counter()
        frames = [torch.from_numpy(frame)[None].to(self._device)]
        copied = self._now()
        with using(**PLAIN.kernels):
            selected, state = plain_network.encode(
                self._detector,
                frames,
                torch.zeros(1, dtype=torch.int64),
                self._state,  # type: ignore[bad-argument-type]  # an LSTM's pairs
            )
            decoded = decode(self._detector.predict(selected))
        self._state = list(state)
        computed = self._now()
        limits = (self.description.confidence_threshold, self.description.nms_threshold)
        found = postprocess(decoded, *limits)[0].cpu().numpy()
        return found, (copied - started, computed - copied, time.perf_counter() - computed)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass
class _Entrant:
    network: Network
    latency: Latency
    costs: list[float]


def latency(case: Case, scene: Scene, num_windows: int) -> list[Row]:
    """All of them on the same windows, which take turns at being first; `case.cpu_time` says what a cost is."""
    case = replace(case, batch_size=1, length=1)
    description = Description.of(case.config())
    scene = replace(scene, sensor_hw=description.sensor_hw)
    columns = scene.events(2, np.random.default_rng(0))
    events = Events(columns["x"], columns["y"], columns["p"], columns["t"].astype(np.int64))
    entrants = {name: _Entrant(each, Latency(), []) for name, each in _networks(case, description).items()}
    count = FrameCounter(description)
    for entrant in entrants.values():
        warm_up(entrant.network)
    clock = time.process_time if case.cpu_time else time.perf_counter
    half = len(events) // 2
    for number in range(num_windows):
        window = events[:half] if number % 2 else events[half:]
        for name in list(entrants)[:: 1 if number % 2 else -1]:
            entrant = entrants[name]
            begun, started = clock(), time.perf_counter()
            frame = count(window)
            counted = time.perf_counter()
            _, seconds = entrant.network(frame)
            entrant.costs.append(1000 * (clock() - begun))
            entrant.latency.add((counted - started, *seconds))
    plain = entrants.pop("plain")
    unit = "CPU ms" if case.cpu_time else "ms"
    height, width = description.frame_hw
    about = f"{case.model} at {height} x {width}, {half:,} events"
    rows = [
        Row(f"events -> boxes, {name}", unit, each.costs, plain.costs, TARGET[name], about)
        for name, each in entrants.items()
    ]
    for name, each in {"plain way": plain, **entrants}.items():
        print(f"{name}, on the clock on the wall\n{each.latency.table()}\n", flush=True)
    return rows


def _networks(case: Case, description: Description) -> dict[str, Network]:
    config = case.config()
    ours = case.detector(OURS).eval()
    networks: dict[str, Network] = {
        "plain": PlainNetwork(case.detector(PLAIN), description),
        "float32": TorchNetwork(ours, config),
    }
    if has_bfloat16(case.device):
        networks["bfloat16"] = TorchNetwork(ours, config, torch.bfloat16)
    if case.device == "cpu":
        from modules.deployment.export import Wish, export

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            try:
                path.write_bytes(export(ours, description, Wish(lanes=1), "benchmark").SerializeToString())
                networks["ONNX Runtime, float32"] = OnnxNetwork(path)
            except UserError as error:
                print(f"note: without ONNX Runtime: {error}")
    return networks
