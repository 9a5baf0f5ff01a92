"""Fit the shipped hardware profiles to a folder of calibration figures.

    python scripts/fit_hardware.py --calibration ../shared/calibration

Writes `throttllem_env/hardware/profiles/MODEL_GPU.yaml`: coefficients, where each comes from, its licence,
and its error, in sample and held out by batch (five random folds).
"""

import argparse
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]
Model = Callable[[Array, pd.DataFrame], Array]

TOP_MHZ = 1410
SIZES = (1, 2, 4)
PROFILES = Path(__file__).resolve().parents[1] / "throttllem_env" / "hardware" / "profiles"

# Measured LLaMA-13B on A100-80GB (calibration README): intercept and slope of a decode iteration, ms.
# What the kernel sums leave unexplained is host time. TP4's slope is not published: TP2's is assumed.
MEASURED_DECODE_MS = {1: (19.7, 0.099), 2: (15.1, 0.070), 4: (15.0, 0.070)}

SOURCES = {
    "decode, prefill": "kernel tables of PyPI aiconfigurator-core 0.12.0, TRT-LLM 1.0 on A100 SXM "
    "(Apache-2.0)",
    "host": "published LLaMA-13B measurements on A100-80GB less the kernel sums; TP4's slope assumed "
    "as TP2's",
    "response, power": "decode on A800-80GB at six locked clocks, public fork of SGLang (Apache-2.0); "
    "TP4 has no data against the clock: extrapolated through batch per GPU and size^-exponent",
    "prefill_w": "splitwise-sim (MIT): peak power of A100 in prompt phases; 0.95 of 400 W assumed",
    "idle": "published A100 figures: 70 to 73 W with a model loaded; slope with the clock assumed",
}


def mape(predicted: Array, measured: Array) -> float:
    """Mean absolute percentage error, as a fraction."""
    return float(np.mean(np.abs(predicted / measured - 1)))


def fit(model: Model, rows: pd.DataFrame, target: str, start: list[float]) -> Array:
    """Least squares of the relative error, all parameters at least 0."""
    measured = rows[target].to_numpy(float)

    def relative_error(parameters: Array) -> Array:
        return np.asarray(model(parameters, rows) / measured - 1)

    found = least_squares(relative_error, start, bounds=(0.0, np.inf), x_scale=np.abs(start))
    return np.asarray(found.x)


def held_out(model: Model, rows: pd.DataFrame, target: str, start: list[float], folds: int = 5) -> float:
    """Error on rows that were not fitted to, over random folds."""
    fold = np.random.default_rng(0).permutation(len(rows)) % folds
    errors = []
    for k in range(folds):
        p = fit(model, rows[fold != k], target, start)
        test = rows[fold == k]
        errors.append(np.abs(model(p, test) / test[target].to_numpy(float) - 1))
    return float(np.concatenate(errors).mean())


def decode_ms(p: Array, rows: pd.DataFrame) -> Array:
    """Weights + request x batch + KV token x KV."""
    batch = rows.batch.to_numpy(float)
    return np.asarray(p[0] + p[1] * batch + p[2] * batch * rows.ctx.to_numpy(float))


def prefill_ms(p: Array, rows: pd.DataFrame, weights_ms: float) -> Array:
    """Roofline of reading the weights and computing, plus attention."""
    tokens = (rows.batch * rows.ctx).to_numpy(float)
    attention = (rows.batch * rows.ctx**2).to_numpy(float)
    return np.asarray((weights_ms**4 + (p[0] + p[1] * tokens) ** 4) ** 0.25 + p[2] * attention)


def response(p: Array, rows: pd.DataFrame) -> Array:
    """Layer time relative to the top clock; see `ResponseCoefficients`."""
    x = p[1] + p[2] * (rows.batch_size / rows.tensor_parallel).to_numpy(float)
    ratio = rows.frequency_mhz.to_numpy(float) / TOP_MHZ
    return np.asarray(((1 + (x / ratio) ** p[0]) / (1 + x ** p[0])) ** (1 / p[0]))


def power_w(p: Array, rows: pd.DataFrame) -> Array:
    """Power of one GPU while decoding; see `PowerCoefficients`."""
    ratio = rows.frequency_mhz.to_numpy(float) / TOP_MHZ
    size = rows.tensor_parallel.to_numpy(float)
    busy = 1 + p[3] * (1 - np.exp(-rows.batch_size.to_numpy(float) / size / p[4]))
    return np.asarray(p[0] + p[1] * size ** -p[2] * busy * ratio * np.maximum(1, ratio / p[5]) ** p[6])


def fit_latency(calibration: Path, errors: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Decode and prefill of Llama2-13B by size, milliseconds turned to seconds."""
    grid = pd.read_csv(calibration / "aic012_trtllm_iteration_grid.csv")
    grid = grid[(grid.model == "llama2-13b") & (grid.system == "a100_sxm")]
    latency = {}
    for size in SIZES:
        rows = grid[grid.tp == size]
        decode, prefill = rows[rows.phase == "decode"], rows[rows.phase == "prefill"]
        d = fit(decode_ms, decode, "ms", [10.0, 0.02, 2e-4])

        def prefill_model(p: Array, r: pd.DataFrame, weights_ms: float = float(d[0])) -> Array:
            return prefill_ms(p, r, weights_ms)

        start = [5.0, 0.05, 1e-6]
        p = fit(prefill_model, prefill, "ms", start)
        errors[f"tp{size}"] = {
            "decode_mape": round(mape(decode_ms(d, decode), decode.ms.to_numpy(float)), 4),
            "decode_mape_held_out": round(held_out(decode_ms, decode, "ms", [10.0, 0.02, 2e-4]), 4),
            "prefill_mape": round(mape(prefill_model(p, prefill), prefill.ms.to_numpy(float)), 4),
            "prefill_mape_held_out": round(held_out(prefill_model, prefill, "ms", start), 4),
        }
        intercept_ms, slope_ms = MEASURED_DECODE_MS[size]
        latency[size] = {
            "host_s": intercept_ms - d[0],
            "host_per_request_s": slope_ms - d[1],
            "weights_s": d[0],
            "per_request_s": d[1],
            "per_kv_token_s": d[2],
            "prefill_fixed_s": p[0],
            "prefill_per_token_s": p[1],
            "prefill_per_token2_s": p[2],
        }
    return {size: {k: float(f"{v / 1e3:.6g}") for k, v in row.items()} for size, row in latency.items()}


def relative_layer_time(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `slowdown`: attention + FFN time over that at the top clock, and `gpu_w`."""
    key = ["tensor_parallel", "input_tokens", "output_tokens", "batch_size"]
    rows = rows.assign(layer_us=rows.attention_layer_us + rows.ffn_layer_us)
    top = rows[rows.frequency_mhz == TOP_MHZ].set_index(key).layer_us
    at_top = top.reindex(pd.MultiIndex.from_frame(rows[key])).to_numpy()
    return rows.assign(slowdown=rows.layer_us / at_top, gpu_w=rows.power_w_all_gpus / rows.tensor_parallel)


def fit_clock(calibration: Path, errors: dict[str, Any]) -> tuple[Array, Array]:
    """Frequency response and power of decode on A800 (A100 silicon); 210 MHz is reported, not fitted."""
    rows = relative_layer_time(pd.read_csv(calibration / "a800_decode_frequency.csv"))
    fitted = rows[rows.frequency_mhz > 210]
    slower = fitted[fitted.frequency_mhz < TOP_MHZ]
    r_start, p_start = [2.0, 0.4, 0.004], [95.0, 125.0, 0.27, 1.0, 70.0, 0.84, 1.3]
    r = fit(response, slower, "slowdown", r_start)
    p = fit(power_w, fitted, "gpu_w", p_start)
    lowest = rows[rows.frequency_mhz == 210]
    errors["response"] = {
        "mape": round(mape(response(r, slower), slower.slowdown.to_numpy(float)), 4),
        "mape_held_out": round(held_out(response, slower, "slowdown", r_start), 4),
        "mape_210_mhz": round(mape(response(r, lowest), lowest.slowdown.to_numpy(float)), 4),
    }
    errors["power"] = {
        "mape": round(mape(power_w(p, fitted), fitted.gpu_w.to_numpy(float)), 4),
        "mape_held_out": round(held_out(power_w, fitted, "gpu_w", p_start), 4),
        "mape_210_mhz": round(mape(power_w(p, lowest), lowest.gpu_w.to_numpy(float)), 4),
    }
    return r, p


def build_profile(calibration: Path) -> dict[str, Any]:
    """Everything that the YAML file holds."""
    errors: dict[str, Any] = {}
    latency = fit_latency(calibration, errors)
    r, p = fit_clock(calibration, errors)
    names = ("base_w", "dynamic_w", "size_exponent", "batch_gain", "batch_scale", "knee", "knee_exponent")
    power = {name: float(f"{v:.5g}") for name, v in zip(names, p, strict=True)}
    # Assumed, as `sources` says: prefill near the limit, 55 W + 16 W at the top clock when idle.
    power |= {"prefill_w": 380.0, "idle_w": 55.0, "idle_slope_w": 16.0}
    return {
        "name": "llama2-13b_a100-40gb",
        "fitted": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": "python scripts/fit_hardware.py --calibration ../shared/calibration",
        "sources": SOURCES,
        "errors": errors,
        "latency": latency,
        "response": dict(
            zip(
                ("exponent", "clock_bound", "clock_bound_per_request"),
                (float(f"{v:.5g}") for v in r),
                strict=True,
            )
        ),
        "power": power,
    }


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--calibration", type=Path, required=True, help="folder with the calibration CSV files"
    )
    parser.add_argument(
        "--out", type=Path, default=PROFILES, help="folder for the profiles (default: shipped)"
    )
    arguments = parser.parse_args()
    profile = build_profile(arguments.calibration)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{profile['name']}.yaml"
    path.write_text(yaml.safe_dump(profile, sort_keys=False, width=100), encoding="utf-8")
    print(f"{path}\n{yaml.safe_dump(profile['errors'], sort_keys=False)}")


if __name__ == "__main__":
    main()
