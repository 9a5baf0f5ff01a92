"""What `scripts/measure_gpu.py` measured on GPUs, against the shipped profiles: nothing is fitted to it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from throttllem_env.evaluation.document import Section, Table
from throttllem_env.evaluation.fidelity.readings import spread
from throttllem_env.hardware import GPUS, MODELS, ClockTable, IterationWork, Physics, load_profile

KIND, FORMAT = "measure_gpu", 1
PROFILED = {
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA H100 80GB HBM3": "h100-80gb",
    "NVIDIA H200": "h100-80gb",
}
"""Our profile by the driver's name. An H200 is an H100 with 1.43 times the memory bandwidth."""

MAX_BATCH = 256
PHASES = ("prefill", "decode")


class MeasurementError(ValueError):
    """A file that is no result of `scripts/measure_gpu.py`, or of another format."""


def measured_section(folder: Path) -> Section | None:
    """All measurements in a folder, against the profile of the same model on the same GPU at size 1.

    Args:
        folder: Where result files (`*.json`) lie; those of other scripts are passed over.

    Returns:
        The section, or None where the folder has no result file.

    Raises:
        MeasurementError: One of the files is something else; names the file, the field and what is valid.
    """
    files = sorted(file for file in folder.glob("*.json") if not _of_another_kind(file))
    if not files:
        return None
    return Section(
        "Measured on GPUs: not fitted to",
        "Iterations of Llama-shaped models with random weights in CUDA graphs, without host time, at the "
        "clock at which the GPU ran (`scripts/measure_gpu.py`, files in `docs/measurements/`). Its kernels "
        "are PyTorch's and not fused, so it lies above an engine at small batches. Ratios are ours over "
        "measured, median and the 10th to 90th percentile. An H200 is held to the H100's profile, and its "
        "memory is 1.43 times as fast.",
        [
            Table(
                "Ours over measured:",
                ["GPU", "date", "driver", "model", "phase", "cells", "time", "power", "energy"],
                [row for file in files for row in _rows(read_measurement(file))],
            )
        ],
    )


def _of_another_kind(file: Path) -> bool:
    """Whether some other script wrote it; what is no JSON at all is left to be complained of."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("kind") != KIND


def read_measurement(file: Path) -> dict[str, Any]:
    """A result file.

    Args:
        file: Written by `scripts/measure_gpu.py`.

    Raises:
        MeasurementError: It is something else.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MeasurementError(f"{file}: no JSON: {error}") from error
    for name, expected in (("kind", KIND), ("format", FORMAT)):
        found = document.get(name) if isinstance(document, dict) else None
        if found != expected:
            raise MeasurementError(f"{file}: {name} = {found!r}: must be {expected!r}")
    missing = [name for name in ("date", "gpu", "cells") if name not in document]
    if missing:
        raise MeasurementError(f"{file}: {missing[0]} is missing")
    return dict(document)


def _rows(document: dict[str, Any]) -> Iterator[list[str]]:
    """One row per model and phase; what we have no profile of is named, and held to nothing."""
    gpu, cells = document["gpu"], document["cells"]
    head = [gpu["name"], document["date"][:10], gpu.get("driver", "")]
    for model in dict.fromkeys(cell["model"] for cell in cells):
        for phase in PHASES:
            mine = [c for c in cells if (c["model"], c["phase"]) == (model, phase) and _known(c)]
            if gpu["name"] not in PROFILED or model not in MODELS:
                yield [*head, model, phase, str(len(mine)), "no profile", "", ""]
            elif mine:
                yield [*head, model, phase, str(len(mine)), *_ratios(PROFILED[gpu["name"]], model, mine)]


def _known(cell: dict[str, Any]) -> bool:
    """Whether all layers were measured or scaled to, at a batch that profiles are tabulated for."""
    return "iteration_s" in cell["whole"] and cell["batch"] <= MAX_BATCH


def _ratios(gpu: str, model: str, cells: list[dict[str, Any]]) -> list[str]:
    """Time, power and energy, ours over measured; a dash where no power was measured."""
    spec = GPUS[gpu]
    physics = Physics(load_profile(model, gpu), spec, 1, MAX_BATCH)
    times, powers = [], []
    for cell in cells:
        table = physics.at(_nearest(spec.clocks_mhz, _clock_mhz(cell, spec.top_mhz)))
        seconds, watts = _ours(table, cell)
        whole = cell["whole"]
        times.append(seconds / whole["iteration_s"])
        joules = whole.get("energy_j")
        powers.append(watts / (joules / whole["iteration_s"]) if joules else np.nan)
    ratios = np.array(times), np.array(powers), np.array(times) * np.array(powers)
    return [spread(known) if len(known := values[~np.isnan(values)]) else "–" for values in ratios]


def _clock_mhz(cell: dict[str, Any], top_mhz: int) -> float:
    """The clock at which the deepest measurement of a cell ran; the top one where nobody looked."""
    deepest = cell["depths"][max(cell["depths"], key=int)]
    return float(deepest.get("clock_mhz", top_mhz))


def _nearest(clocks_mhz: tuple[int, ...], mhz: float) -> int:
    return min(clocks_mhz, key=lambda clock: abs(clock - mhz))


def _ours(table: ClockTable, cell: dict[str, Any]) -> tuple[float, float]:
    """Seconds of the kernels of an iteration, and watts."""
    if cell["phase"] == "decode":
        batch = cell["batch"]
        time = table.iteration(IterationWork(batch, batch * cell["context"], 0, 0))
        return time.decode_s, table.decode_power_w(batch)
    tokens = cell["tokens"]
    time = table.iteration(IterationWork(0, 0, tokens, tokens**2))
    return time.prefill_s, table.prefill_power_w(tokens)
