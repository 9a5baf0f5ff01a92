"""Power of H100s: prefill and idle against the clock, decode against the batch; host time of decode.

Data: `h100_llama3_70b_prefill_power.csv` (public fork of DistServe) and `mlenergy_v3_llm.csv` (ML.ENERGY,
Apache-2.0; vLLM).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from throttllem_env.hardware.fitting.forms import Form, held_out_errors
from throttllem_env.hardware.fitting.grids import GridFit, roofline
from throttllem_env.hardware.power import clock_factor
from throttllem_env.types import FloatArray

TOP_MHZ = 1980
AT_CAP_W = 680.0
"""Rows above it sit at the power cap (690 to 696 W are read) and say nothing about demand."""

PREFILL = (
    "base_w",
    "prefill_dynamic_w",
    "prefill_size_exponent",
    "prefill_short_share",
    "prefill_short_tokens",
    "knee",
    "knee_exponent",
)
IDLE = ("idle_w", "idle_dynamic_w", "idle_knee", "idle_knee_exponent")
DECODE = ("floor_w", "rise_w", "batch_scale")
TEXT_TASKS = ("gpqa", "lm-arena-chat")
CHAT_PROMPT_TOKENS = 100
"""Assumed: ML.ENERGY's chat prompts are short, their length is not in the table."""
HOST_BATCH = 256


def load_prefill_power(calibration: Path) -> pd.DataFrame:
    """The rows, with `gpu_w` and `ratio`; `input_tokens` is 0 where GPUs idled."""
    rows = pd.read_csv(calibration / "h100_llama3_70b_prefill_power.csv")
    return rows.assign(gpu_w=rows.power_w_all_gpus / rows.tensor_parallel, ratio=rows.frequency_mhz / TOP_MHZ)


def _prefill_w(p: FloatArray, rows: pd.DataFrame) -> FloatArray:
    size, tokens = rows.tensor_parallel.to_numpy(float), rows.input_tokens.to_numpy(float)
    load = 1 - p[3] * np.exp(-tokens / (size * p[4]))
    watts: FloatArray = p[0] + p[1] * size ** -p[2] * load * clock_factor(
        rows.ratio.to_numpy(float), p[5], p[6]
    )
    return watts


def _idle_w(p: FloatArray, rows: pd.DataFrame) -> FloatArray:
    watts: FloatArray = p[0] + p[1] * clock_factor(rows.ratio.to_numpy(float), p[2], p[3])
    return watts


PREFILL_FORM = Form(_prefill_w, [[160.0, 570.0, 0.4, 0.76, 40.0, 0.44, 0.8]])
IDLE_FORM = Form(_idle_w, [[73.0, 36.0, 0.6, 2.3]])


def fit_prefill_power(rows: pd.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    """Fit prefill power to the rows below the cap; each prompt length held out in turn.

    Returns:
        Coefficients by name, and errors.
    """
    below = rows[(rows.input_tokens > 0) & (rows.gpu_w < AT_CAP_W)]
    found = PREFILL_FORM.fit(below, "gpu_w")
    by_length = held_out_errors(PREFILL_FORM, below, "gpu_w", below.input_tokens.to_numpy(float))
    errors = {
        "in_sample": PREFILL_FORM.error(found, below, "gpu_w"),
        "held_out_by_length": float(np.mean(list(by_length.values()))),
        "rows": float(len(below)),
    }
    return dict(zip(PREFILL, found.tolist(), strict=True)), errors


def fit_idle_power(rows: pd.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    """Fit idle power at a locked clock; each clock held out in turn."""
    idle = rows[rows.input_tokens == 0]
    found = IDLE_FORM.fit(idle, "gpu_w")
    by_clock = held_out_errors(IDLE_FORM, idle, "gpu_w", idle.frequency_mhz.to_numpy(float))
    errors = {
        "in_sample": IDLE_FORM.error(found, idle, "gpu_w"),
        "held_out_by_clock": float(np.mean(list(by_clock.values()))),
    }
    return dict(zip(IDLE, found.tolist(), strict=True)), errors


def load_decode_power(calibration: Path) -> pd.DataFrame:
    """Dense bf16 models serving text on H100, with `gpu_w` and `per_gpu` (batch per GPU)."""
    rows = pd.read_csv(calibration / "mlenergy_v3_llm.csv")
    dense = (rows.arch == "Dense Transformer") & (rows.prec == "bfloat16")
    rows = rows[(rows.gpu_model == "H100") & dense & rows.task.isin(TEXT_TASKS)].reset_index(drop=True)
    return rows.assign(
        gpu_w=rows.avg_power_watts / rows.num_gpus, per_gpu=rows.avg_batch_size / rows.num_gpus
    )


def _decode_w(p: FloatArray, rows: pd.DataFrame) -> FloatArray:
    watts: FloatArray = p[0] + p[1] * (1 - np.exp(-rows.per_gpu.to_numpy(float) / p[2]))
    return watts


DECODE_FORM = Form(_decode_w, [[440.0, 200.0, 55.0]])
CONSTANT = Form(lambda p, rows: np.full(len(rows), p[0]), [[550.0]])


def fit_decode_power(rows: pd.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    """Fit decode power at the top clock; each model held out in turn, beside a constant.

    Returns:
        Coefficients by name, and errors.
    """
    found = DECODE_FORM.fit(rows, "gpu_w")
    errors = {"in_sample": DECODE_FORM.error(found, rows, "gpu_w")}
    for name, form in (("held_out_by_model", DECODE_FORM), ("held_out_constant", CONSTANT)):
        errors[name] = float(np.mean(list(errors_by_model(form, rows).values())))
    return dict(zip(DECODE, found.tolist(), strict=True)), errors


def errors_by_model(form: Form, rows: pd.DataFrame) -> dict[str, float]:
    """Error of a form on each model's rows when fitted to those of all others."""
    names, code = np.unique(rows.model.to_numpy(str), return_inverse=True)
    errors = held_out_errors(form, rows, "gpu_w", code.astype(np.float64))
    return dict(zip(names.tolist(), errors.values(), strict=True))


def decode_power_of(decode: dict[str, float], prefill: dict[str, float]) -> dict[str, float]:
    """Decode power at the top clock, turned into coefficients that share prefill's response to the clock.

    No H100 data show decode power against the clock: the response of prefill is assumed.
    """
    top_factor = float(clock_factor(1.0, prefill["knee"], prefill["knee_exponent"]))
    floor_w = decode["floor_w"] - prefill["base_w"]
    return {
        "dynamic_w": floor_w / top_factor,
        "size_exponent": 0.0,
        "batch_gain": decode["rise_w"] / floor_w,
        "batch_scale": decode["batch_scale"],
    }


def fit_host_ms(rows: pd.DataFrame, grid: GridFit) -> tuple[float, float, float]:
    """Host time: what measured chat decode takes beyond kernels.

    Args:
        rows: Chat rows of one model at one size.
        grid: Its kernels.

    Returns:
        Per iteration and per request, ms, at least 0; mean absolute relative error of the sum with kernels.
    """
    from scipy.optimize import nnls

    rows = rows[(rows.task == "lm-arena-chat") & (rows.max_num_seqs <= HOST_BATCH)]
    batch = rows.avg_batch_size.to_numpy(float)
    context = CHAT_PROMPT_TOKENS + rows.avg_output_len.to_numpy(float) / 2
    d = grid.decode_ms
    kernels_ms = (
        roofline(d["weights"], d["compute_per_request"] * batch)
        + d["per_request"] * batch
        + d["per_kv_token"] * batch * context
    )
    measured_ms = rows.median_itl_ms.to_numpy(float)
    terms = np.stack([np.ones_like(batch), batch], axis=1) / measured_ms[:, np.newaxis]
    found = nnls(terms, 1 - kernels_ms / measured_ms)[0]
    error = np.mean(np.abs((kernels_ms + found[0] + found[1] * batch) / measured_ms - 1))
    return float(found[0]), float(found[1]), float(error)
