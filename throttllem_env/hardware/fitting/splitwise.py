"""Prefill power of A100s.

Data: `splitwise_perf_model.csv` (splitwise-sim, MIT): peak power of Llama2-70B prompts, as fractions of
400 W.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from throttllem_env.hardware.fitting.forms import Form
from throttllem_env.hardware.power import clock_factor
from throttllem_env.types import FloatArray

LIMIT_W = 400.0
LONGEST_CHUNK_TOKENS = 4096


def load_peak_power(calibration: Path) -> pd.DataFrame:
    """Mean peak power of a GPU by size and prompt tokens, `gpu_w`; rows without a reading left out."""
    rows = pd.read_csv(calibration / "splitwise_perf_model.csv")
    chosen = (rows.model == "llama2-70b") & (rows.hardware == "a100-80gb") & (rows.peak_power > 0)
    rows = rows[chosen].assign(input_tokens=rows.prompt_size * rows.batch_size)
    rows = rows[rows.input_tokens <= LONGEST_CHUNK_TOKENS]
    groups = rows.groupby(["tensor_parallel", "input_tokens"], as_index=False)
    mean: pd.DataFrame = groups[["peak_power"]].mean()
    return mean.assign(gpu_w=mean.peak_power * LIMIT_W)


def fit_prefill_power(rows: pd.DataFrame, decode: dict[str, float]) -> tuple[dict[str, float], float]:
    """Fit prefill power at the top clock; base and knee are those of decode.

    Readings are clipped at the limit. How far demand lies above it they cannot say; not far, since
    the kernel tables reach 83 % of peak FLOP/s, which a GPU slowed by a binding cap could not. So a
    long prefill is taken to draw just the limit, and only how short ones fall below it is fitted.

    Args:
        rows: As `load_peak_power` gives them.
        decode: Coefficients of A100 decode power.

    Returns:
        Coefficients by name, and the mean absolute relative error in sample.
    """
    demand_w = LIMIT_W - decode["base_w"]

    def watts(p: FloatArray, r: pd.DataFrame) -> FloatArray:
        per_gpu = (r.input_tokens / r.tensor_parallel).to_numpy(float)
        load: FloatArray = 1 - np.minimum(p[0], 1.0) * np.exp(-per_gpu / p[1])
        return decode["base_w"] + demand_w * load

    form = Form(watts, [[0.8, 60.0]])
    found = form.fit(rows, "gpu_w")
    coefficients = {
        "prefill_dynamic_w": demand_w / float(clock_factor(1.0, decode["knee"], decode["knee_exponent"])),
        "prefill_size_exponent": 0.0,
        "prefill_short_share": min(float(found[0]), 1.0),
        "prefill_short_tokens": float(found[1]),
    }
    return coefficients, form.error(found, rows, "gpu_w")
