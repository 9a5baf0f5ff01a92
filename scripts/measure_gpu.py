"""Measure a GPU: time, power and energy of Llama-shaped iterations, at the clock at which it runs.

    python measure_gpu.py --models llama3-8b,llama2-13b --budget-s 600 --out h100.json

Needs PyTorch, and `nvidia-ml-py` for power and energy; nothing else, so `measure_gpu*.py` may be copied to
any machine. It only reads: no clock, no power limit and no mode is ever set. Weights are random. The result
is written after every cell, and the same command goes on where it stopped. `--device cpu --models tiny`
tries the script out; there is no power then.

What is measured is kernels in a CUDA graph, without an engine's host time: RMS norm, projections, PyTorch's
flash attention, SwiGLU, the head, the choice of a token; no rotary embedding, and no kernels fused by hand.
"""

import argparse
import importlib
import json
import random
import statistics
import sys
import time
from collections import deque
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from measure_gpu_llama import SHAPES, Cell, Llama, Shape, Step
from measure_gpu_nvml import Nvml, Reading, energy_of, spread

KIND, FORMAT = "measure_gpu", 1
WARM_UP = 3
LEAST_REPEATS = 5
WINDOWS_PER_PERIOD = 20
"""An energy window spans so many updates of the counter, so that it is off by at most a twentieth."""


class Bench:
    """Runs a step again and again: on a GPU as a graph, timed by events; on a CPU as it is."""

    def __init__(self, device: torch.device, nvml: Nvml | None, cell_s: float, window_s: float) -> None:
        """Measure on a device: times for about `cell_s`, energy over `window_s`."""
        self._cuda, self._nvml = device.type == "cuda", nvml
        self._cell_s, self._window_s = cell_s, window_s

    @property
    def cost_s(self) -> float:
        """About how long a measurement takes, seconds."""
        return self._cell_s + (self._window_s if self._nvml else 0.0)

    def measure(self, step: Step) -> dict[str, Any]:
        """Seconds of an iteration, joules and watts, and the clock meanwhile."""
        replay = self._captured(step)
        times_s = self._times(replay)
        energy = self._busy(replay, statistics.median(times_s), self._nvml) if self._nvml else {}
        return {"iteration_s": spread(times_s), **energy}

    def _captured(self, step: Step) -> Step:
        for _ in range(WARM_UP):
            step()
        if not self._cuda:
            return step
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        graph.replay()
        torch.cuda.synchronize()
        return graph.replay

    def _times(self, replay: Step) -> list[float]:
        times_s: list[float] = []
        end_s = time.perf_counter() + self._cell_s
        while len(times_s) < LEAST_REPEATS or time.perf_counter() < end_s:
            times_s.append(self._once_cuda(replay) if self._cuda else self._once_cpu(replay))
        return times_s

    @staticmethod
    def _once_cpu(replay: Step) -> float:
        begin_s = time.perf_counter()
        replay()
        return time.perf_counter() - begin_s

    def _once_cuda(self, replay: Step) -> float:
        begin, end = (self._event() for _ in range(2))
        begin.record()
        replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    @staticmethod
    def _event() -> Any:
        return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def _busy(self, replay: Step, iteration_s: float, nvml: Nvml) -> dict[str, Any]:
        """Keep the GPU busy without gaps: two bundles are always under way; read while they run."""
        bundle = max(1, round(0.05 / iteration_s))
        count, samples, ahead = 0, list[Reading](), deque[Any]()
        begin, begin_s = nvml.sample(), time.perf_counter()
        while not count or time.perf_counter() - begin_s < self._window_s:
            for _ in range(bundle):
                replay()
            count += bundle
            ahead.append(self._event())
            ahead[-1].record()
            if len(ahead) > 2:
                ahead.popleft().synchronize()
                samples.append(nvml.sample())
        torch.cuda.synchronize()
        end, elapsed_s = nvml.sample(), time.perf_counter() - begin_s
        return energy_of(begin, end, samples or [end], elapsed_s, count)


def whole(depths: dict[int, dict[str, Any]], layers: int) -> dict[str, Any]:
    """Time and energy of all layers: measured, or by a straight line through the two deepest measurements.

    Where all layers and two fewer were measured, the error of that line at all layers is told too.
    """
    fewer = sorted(depth for depth in depths if depth < layers)[-2:]
    line = {name: _extended(depths, fewer, layers, name) for name in ("iteration_s", "energy_j")}
    if layers in depths:
        found = {"how": "measured"} | {name: _value(depths[layers], name) for name in line}
        if len(fewer) == 2:
            found["scaling_error"] = line["iteration_s"] / found["iteration_s"] - 1
    elif len(fewer) == 2:
        found = {"how": f"scaled from {fewer[0]} and {fewer[1]} of {layers} layers", **line}
    else:
        return {"how": "not known: a single depth says nothing of what does not grow with the layers"}
    return {name: value for name, value in found.items() if value is not None}


def _value(reading: dict[str, Any], name: str) -> Any:
    value = reading.get(name)
    return value["median"] if isinstance(value, dict) else value


def _extended(depths: dict[int, dict[str, Any]], fewer: list[int], layers: int, name: str) -> Any:
    if len(fewer) < 2:
        return None
    (a, b), (low, high) = fewer, (_value(depths[depth], name) for depth in fewer)
    return None if low is None else high + (layers - b) * (high - low) / (b - a)


class Results:
    """The result file: written anew after every cell, in one piece."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """Begin, or go on with a file of the same GPU, software and options.

        Raises:
            SystemExit: The file is of another kind, GPU, driver, PyTorch or option.
        """
        self.path = path
        self.document: dict[str, Any] = {
            "kind": KIND,
            "format": FORMAT,
            "date": today(),
            **identity,
            "cells": [],
        }
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            for name in ("kind", "format", *identity):
                if found.get(name) != self.document[name]:
                    now = f"{name} = {found.get(name)!r}, and now {self.document[name]!r}"
                    raise SystemExit(f"--out {path}: was made with {now}; name another file")
            self.document = found

    def of(self, cell: Cell) -> dict[str, Any]:
        """The entry of a cell, a new one if need be."""
        entries: list[dict[str, Any]] = self.document["cells"]
        for entry in entries:
            if all(entry[name] == value for name, value in asdict(cell).items()):
                return entry
        entries.append({**asdict(cell), "depths": {}, "whole": {}})
        return entries[-1]

    def add(self, cell: Cell, layers: int, reading: dict[str, Any]) -> None:
        """Take in a measurement and write the file."""
        entry = self.of(cell)
        entry["depths"][str(layers)] = reading
        depths = {int(depth): found for depth, found in entry["depths"].items()}
        entry["whole"] = whole(depths, SHAPES[cell.model].layers)
        self.write()

    def write(self) -> None:
        """Replace the file."""
        self.document["last"] = today()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        draft.replace(self.path)


def today() -> str:
    """Date and time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cells_of(model: str, given: argparse.Namespace) -> list[Cell]:
    """All cells of a model in an order that covers the grid early, should time run out."""
    decode = [Cell(model, "decode", b, c, 0) for b in given.batches for c in given.contexts]
    cells = decode + [Cell(model, "prefill", 0, 0, n) for n in given.prompts]
    random.Random(0).shuffle(cells)
    return cells


def depths_of(shape: Shape, asked: list[str], free_bytes: float, cell: Cell) -> list[int]:
    """How many layers to measure: as asked; `auto`: all, or a quarter and a half where all do not fit."""

    def fits(layers: int) -> bool:
        return 1.1 * shape.bytes_needed(layers, cell.cached_tokens) < free_bytes

    if asked != ["auto"]:
        return [n for n in sorted({shape.layers if a == "all" else int(a) for a in asked}) if fits(n)]
    if fits(shape.layers):
        return [shape.layers]
    fewer = [max(1, shape.layers // 4), shape.layers // 2]
    return fewer if fits(fewer[-1]) else []


def missing_from(
    results: Results, given: argparse.Namespace, free_bytes: float
) -> list[tuple[Cell, int, int]]:
    """What is still to be measured: cell, layers, and the most layers that the cell is measured at.

    Cells with the same weights follow each other; what does not fit is noted.
    """
    found = []
    for model in given.models:
        asked = [(c, depths_of(SHAPES[model], given.layers, free_bytes, c)) for c in cells_of(model, given)]
        for cell, depths in sorted(asked, key=lambda pair: -max(pair[1], default=0)):
            entry = results.of(cell)
            if not depths:
                entry["whole"] = {"how": "does not fit into the memory"}
            found += [(cell, n, max(depths)) for n in depths if str(n) not in entry["depths"]]
    return found


def measure_all(given: argparse.Namespace, bench: Bench, results: Results, free_bytes: float) -> int:
    """Measure what is missing until the budget is spent.

    Returns:
        How many measurements are still missing.
    """
    end_s, device = time.perf_counter() + given.budget_s, torch.device(given.device)
    missing = missing_from(results, given, free_bytes)
    results.write()
    llama, loaded = None, ("", 0)
    for done, (cell, layers, deepest) in enumerate(missing):
        if time.perf_counter() + bench.cost_s >= end_s:
            return len(missing) - done
        if llama is None or loaded != (cell.model, deepest):
            llama = None  # the old weights go before the new ones come
            llama = Llama(SHAPES[cell.model], deepest, device)
            loaded = cell.model, deepest
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what the last cell held
        reading = bench.measure(llama.step(cell, layers))
        results.add(cell, layers, reading)
        print(f"{cell}, {layers} layers: {1e3 * reading['iteration_s']['median']:.3f} ms")
    return 0


def open_nvml(device: torch.device) -> Nvml | str:
    """The driver's view of the GPU that PyTorch uses, or why there is none."""
    if device.type == "cpu":
        return "on a CPU there is no power to be read"
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    if uuid is None:
        return "this PyTorch does not tell the GPU's UUID; 2.4 does"
    try:
        pynvml = importlib.import_module("pynvml")
    except ImportError:
        return "pynvml is missing: pip install nvidia-ml-py"
    try:
        return Nvml(pynvml, f"GPU-{uuid}")
    except pynvml.NVMLError as error:
        return f"the driver does not answer: {error}"


def identity_of(device: torch.device, nvml: Nvml | str) -> dict[str, Any]:
    """What must not change between two parts of a measurement."""
    if device.type == "cpu":
        gpu: dict[str, Any] = {"name": "none: CPU"}
    else:
        properties = torch.cuda.get_device_properties(device)
        gpu = {"name": properties.name, "memory_bytes": properties.total_memory}
    driver = nvml.describe() if isinstance(nvml, Nvml) else {"power": f"not measured: {nvml}"}
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "cuda": torch.version.cuda}
    return {"gpu": gpu | driver, "versions": versions, "dtype": "bfloat16"}


def look_around(nvml: Nvml) -> dict[str, Any]:
    """Update periods, cost of reads, and power at rest."""
    before, begin_s = nvml.sample(), time.perf_counter()
    periods = {name: nvml.update_period_s(name) for name in ("energy_mj", "power_mw")}
    after, elapsed_s = nvml.sample(), time.perf_counter() - begin_s
    idle = energy_of(before, after, [before, after], elapsed_s, 1)
    return {"update_period_s": periods, "read_cost_us": nvml.cost_us(), "idle": idle}


def names(text: str) -> list[str]:
    """A list on the command line."""
    return [part for part in text.split(",") if part]


def numbers(text: str) -> list[int]:
    """A list of numbers on the command line."""
    return [int(part) for part in names(text)]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    parser.add_argument("--models", type=names, default=["llama3-8b"], help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--contexts", type=numbers, default=[128, 512, 1024, 2048, 4096, 8192])
    parser.add_argument("--prompts", type=numbers, default=[16, 64, 128, 256, 512, 1024, 2048, 4096, 8192])
    parser.add_argument(
        "--layers", type=names, default=["auto"], help="auto, or numbers and `all`, such as 8,16,all"
    )
    parser.add_argument("--cell-s", type=float, default=1.0, help="length of a loop, seconds (default: 1)")
    parser.add_argument("--budget-s", type=float, default=600.0, help="stop after (default: 600)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given = parser.parse_args(arguments)
    for model in given.models:
        if model not in SHAPES:
            parser.error(f"--models {model}: choose from {', '.join(SHAPES)}")
    for depth in given.layers:
        if depth not in ("auto", "all") and not depth.isdecimal():
            parser.error(f"--layers {depth}: must be auto, all, or whole numbers")
        least = min(SHAPES[model].layers for model in given.models)
        if depth.isdecimal() and not 1 <= int(depth) <= least:
            parser.error(f"--layers {depth}: must be from 1 to {least}")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU; --device cpu --models tiny tries the script out")
    return given


def main(arguments: list[str] | None = None) -> int:
    """Measure.

    Returns:
        The exit status: 0 if everything is measured, 3 if the budget was spent before.
    """
    given = parse(arguments)
    device = torch.device(given.device)
    nvml = open_nvml(device)
    results = Results(given.out, identity_of(device, nvml))
    free_bytes = torch.cuda.mem_get_info()[0] if device.type == "cuda" else 2.0**31
    window_s = given.cell_s
    if isinstance(nvml, Nvml):
        if "nvml" not in results.document:
            results.document["nvml"] = look_around(nvml)
        period_s = results.document["nvml"]["update_period_s"]["energy_mj"] or 0.0
        window_s = max(window_s, WINDOWS_PER_PERIOD * period_s)
    else:
        print(f"power and energy: not measured: {nvml}", file=sys.stderr)
    bench = Bench(device, nvml if isinstance(nvml, Nvml) else None, given.cell_s, window_s)
    with torch.inference_mode():
        missing = measure_all(given, bench, results, free_bytes)
    print(f"{given.out}: {missing} measurements are missing" if missing else f"{given.out}: complete")
    return 3 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
