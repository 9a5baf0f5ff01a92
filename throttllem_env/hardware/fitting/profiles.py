"""Puts the fits together: one profile per model and GPU, with sources, assumptions and errors."""

import datetime
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from throttllem_env.hardware.fitting import a800, grids, h100, splitwise
from throttllem_env.hardware.fitting.grids import GridFit, roofline
from throttllem_env.hardware.profile import ResponseCoefficients
from throttllem_env.hardware.specs import GPUS, MODELS, GpuSpec, kv_capacity_tokens

COMMAND = "python scripts/fit_hardware.py --calibration ../shared/calibration"
SYSTEMS = {"a100-40gb": "a100_sxm", "a100-80gb": "a100_sxm", "h100-80gb": "h100_sxm"}

# The kernel tables are of the 80 GB board; the A800 has its memory, too.
MEASURED = {"a100_sxm": GPUS["a100-80gb"], "h100_sxm": GPUS["h100-80gb"]}
MEMORY_BOUND = ("weights", "per_kv_token", "prefill_floor")

# Measured LLaMA-13B on A100-80GB (calibration README): intercept and slope of a decode iteration, ms.
# What the kernel sums leave unexplained is host time. TP4's slope is not published: TP2's is assumed.
MEASURED_13B_MS = {1: (19.7, 0.099), 2: (15.1, 0.070), 4: (15.0, 0.070)}
SLOPE_BATCH = 64

# Idle A100: 70 to 73 W with a model loaded (calibration README); how it falls with the clock is assumed.
A100_IDLE = {"idle_w": 55.0, "idle_dynamic_w": 16.0, "idle_knee": 1.0, "idle_knee_exponent": 0.0}

SOURCES_A100 = {
    "decode, prefill": "kernel tables of PyPI aiconfigurator-core 0.12.0, TRT-LLM 1.0 on A100 SXM 80 GB "
    "(Apache-2.0)",
    "host": "published LLaMA-13B measurements on A100-80GB less the kernel sums",
    "response, decode power": "decode on A800-80GB at six locked clocks, public fork of SGLang (Apache-2.0)",
    "prefill power": "splitwise-sim (MIT): peak power of Llama2-70B prompts on A100-80GB",
    "idle": "published A100 figures: 70 to 73 W with a model loaded",
}
SOURCES_H100 = {
    "decode, prefill": "kernel tables of PyPI aiconfigurator-core 0.12.0, TRT-LLM 1.0 on H100 SXM "
    "(Apache-2.0)",
    "host": "ML.ENERGY v3 (Apache-2.0): inter-token latency of Llama3.1-8B TP1 and -70B TP4, vLLM, less the "
    "kernel sums",
    "decode power": "ML.ENERGY v3 (Apache-2.0): dense bf16 models serving text on H100",
    "prefill power, idle": "Llama3-70B prefill at seven locked clocks, public fork of DistServe",
}
ASSUMED_A100 = [
    "TP4 and TP8 against the clock: extrapolated through batch per GPU and size^-exponent; TP1 and TP2 "
    "are measured",
    "host time of TP4 per request as TP2's, of TP8 as TP4's, of Llama3 models as Llama2-13B's",
    "a long prefill draws just the board's limit at the top clock, at every size",
    "idle power falls linearly by 16 W from the top clock to clock 0",
    "prefill time grows as 1/clock",
]
ASSUMED_40GB = (
    "memory-bound terms (weights, KV reads, prefill floor) scaled by the ratio of data-sheet bandwidths, "
    "2039/1555: no kernel table is of the 40 GB board. The clock response is the A800's as it is: so decode "
    "loses 5.6 % at 1050 MHz (Llama2-13B TP4, batch 192), where throttLL'eM measured 6.25 % on this board; "
    "scaled by bandwidth too it would lose 3.7 %"
)
ASSUMED_H100 = [
    "decode time against the clock: the A800's response, its clock-bound share scaled by bandwidth over "
    "FLOP/s (3350/989 against 2039/312); no H100 data",
    "decode power against the clock: knee and base of prefill; only the top clock is measured",
    "host time of sizes 1 and 2 as Llama3.1-8B TP1's, of 4 and 8 as Llama3.1-70B TP4's",
    "prefill time grows as 1/clock, and not beyond the clock that the power cap leaves",
    "idle power above 1830 MHz and prefill power of sizes 1 and 8: extrapolated",
]


class ProfileBuilder:
    """Fits once what profiles share, then builds any of them."""

    def __init__(self, calibration: Path) -> None:
        """Load the calibration figures.

        Args:
            calibration: Folder with the CSV files.
        """
        self._grid = grids.load_grid(calibration, grids.SHIPPED)
        self._a800 = a800.load_a800(calibration)
        self._h100_prefill = h100.load_prefill_power(calibration)
        self._h100_decode = h100.load_decode_power(calibration)
        self._peak = splitwise.load_peak_power(calibration)
        self._fits: dict[tuple[str, str, int], GridFit] = {}

    def grid_fit(self, model: str, system: str, size: int) -> GridFit:
        """Kernel times of a model at a size, fitted once."""
        key = (model, system, size)
        if key not in self._fits:
            g = self._grid
            rows = g[(g.model == model) & (g.system == system) & (g.tp == size)]
            self._fits[key] = grids.fit_grid(rows, grids.SHIPPED)
        return self._fits[key]

    def sizes(self, model: str, gpu: GpuSpec) -> list[int]:
        """Sizes in the grid at which the model and one longest request fit."""
        g = self._grid
        spec = MODELS[model]
        known = sorted(g[(g.model == model) & (g.system == SYSTEMS[gpu.name])].tp.unique().tolist())
        return [s for s in known if kv_capacity_tokens(gpu, spec, s) >= spec.max_model_len]

    @cached_property
    def _response(self) -> tuple[ResponseCoefficients, dict[str, float]]:
        return a800.fit_response(self._a800)

    @cached_property
    def _a100_power(self) -> tuple[dict[str, float], dict[str, Any]]:
        decode, decode_errors = a800.fit_decode_power(self._a800)
        prefill, prefill_error = splitwise.fit_prefill_power(self._peak, decode)
        errors = {"decode_power": decode_errors, "prefill_power": {"in_sample": prefill_error}}
        return decode | prefill | A100_IDLE, errors

    @cached_property
    def _h100_power(self) -> tuple[dict[str, float], dict[str, Any]]:
        decode, decode_errors = h100.fit_decode_power(self._h100_decode)
        prefill, prefill_errors = h100.fit_prefill_power(self._h100_prefill)
        idle, idle_errors = h100.fit_idle_power(self._h100_prefill)
        errors = {"decode_power": decode_errors, "prefill_power": prefill_errors, "idle_power": idle_errors}
        return prefill | h100.decode_power_of(decode, prefill) | idle, errors

    @cached_property
    def _h100_host_ms(self) -> dict[str, tuple[float, float, float]]:
        rows = self._h100_decode
        named = {"8B": ("llama3-8b", 1), "70B": ("llama3-70b", 4)}
        return {
            name: h100.fit_host_ms(
                rows[rows.model.str.contains(f"Llama-3.1-{name}")], self.grid_fit(model, "h100_sxm", size)
            )
            for name, (model, size) in named.items()
        }

    def _host_ms(self, gpu: GpuSpec, size: int) -> tuple[float, float]:
        """Host time per iteration and per request."""
        if SYSTEMS[gpu.name] == "h100_sxm":
            per_iteration, per_request, _ = self._h100_host_ms["8B" if size <= 2 else "70B"]
            return per_iteration, per_request
        measured = min(size, max(MEASURED_13B_MS))
        intercept_ms, slope_ms = MEASURED_13B_MS[measured]
        d = self.grid_fit("llama2-13b", "a100_sxm", measured).decode_ms
        kernel_slope_ms = (
            d["per_request"]
            + (float(roofline(d["weights"], d["compute_per_request"] * SLOPE_BATCH)) - d["weights"])
            / SLOPE_BATCH
        )
        return intercept_ms - d["weights"], slope_ms - kernel_slope_ms

    def _latency(self, model: str, gpu: GpuSpec, size: int) -> dict[str, float]:
        """Coefficients of a size, seconds."""
        system = SYSTEMS[gpu.name]
        fit = self.grid_fit(model, system, size)
        slower = MEASURED[system].bandwidth_gb_s / gpu.bandwidth_gb_s
        kernels_ms = {
            name: ms * (slower if name in MEMORY_BOUND else 1.0)
            for name, ms in (fit.decode_ms | fit.prefill_ms).items()
        }
        host_ms, per_request_ms = self._host_ms(gpu, size)
        rows_ms = {"host": host_ms, "host_per_request": per_request_ms} | kernels_ms
        return {f"{name}_s": _rounded(ms / 1e3) for name, ms in rows_ms.items()}

    def _response_of(self, gpu: GpuSpec) -> dict[str, float]:
        """The A800's response on A100 silicon; else bandwidth per FLOP/s scales the clock-bound share."""
        fitted, _ = self._response
        a800_gpu = MEASURED["a100_sxm"]
        if SYSTEMS[gpu.name] == "a100_sxm":
            return {name: _rounded(value) for name, value in asdict(fitted).items()}
        scale = (gpu.bandwidth_gb_s / gpu.bf16_tflops) / (a800_gpu.bandwidth_gb_s / a800_gpu.bf16_tflops)
        scaled = replace(
            fitted,
            clock_bound=fitted.clock_bound * scale,
            clock_bound_per_request=fitted.clock_bound_per_request * scale,
        )
        return {name: _rounded(value) for name, value in asdict(scaled).items()}

    def build(self, model: str, gpu_name: str) -> dict[str, Any] | None:
        """Everything that a profile's YAML file holds; None where the model fits at no size."""
        gpu = GPUS[gpu_name]
        sizes = self.sizes(model, gpu)
        if not sizes:
            return None
        is_h100 = SYSTEMS[gpu_name] == "h100_sxm"
        power, power_errors = self._h100_power if is_h100 else self._a100_power
        assumed = ASSUMED_H100 if is_h100 else ASSUMED_A100
        errors: dict[str, Any] = {
            f"tp{size}": self.grid_fit(model, SYSTEMS[gpu_name], size).errors for size in sizes
        }
        if is_h100:
            errors["host"] = {f"{k} in_sample": v[2] for k, v in self._h100_host_ms.items()}
        errors |= {"response": self._response[1]} | power_errors
        return {
            "name": f"{model}_{gpu_name}",
            "fitted": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "command": COMMAND,
            "sources": SOURCES_H100 if is_h100 else SOURCES_A100,
            "assumed": [*assumed, ASSUMED_40GB] if gpu_name == "a100-40gb" else list(assumed),
            "errors": _rounded_tree(errors),
            "latency": {size: self._latency(model, gpu, size) for size in sizes},
            "response": self._response_of(gpu),
            "power": {name: _rounded(value) for name, value in power.items()},
        }


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _rounded_tree(tree: Any) -> Any:
    """Errors are fractions: four decimals say enough."""
    if isinstance(tree, dict):
        return {key: _rounded_tree(value) for key, value in tree.items()}
    return round(float(tree), 4)
