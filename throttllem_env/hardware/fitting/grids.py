"""Decode and prefill times at the top clock: kernel sums by model, GPU and size.

Data: `aic012_{trtllm,vllm}_iteration_grid.csv`, composed from the kernel tables of PyPI
`aiconfigurator-core` 0.12.0 (Apache-2.0). TRT-LLM's is shipped: on vLLM's, attention of an A100 follows the
longest context at small batches, which would let an iteration become faster with a larger batch.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from throttllem_env.hardware.fitting.forms import Form, five_fold_error
from throttllem_env.hardware.physics import ROOFLINE
from throttllem_env.types import FloatArray

ENGINES = ("trtllm", "vllm")
SHIPPED = "trtllm"
DECODE = ("weights", "compute_per_request", "per_request", "per_kv_token")
PREFILL = ("prefill_floor", "prefill_fixed", "prefill_per_token", "prefill_bend", "prefill_per_token2")

UNSEEN = 1e-3
"""Relative change of the prediction up to which a parameter counts as having no effect."""


@dataclass(frozen=True, slots=True)
class GridFit:
    """One model on one GPU at one size.

    Attributes:
        decode_ms: Parameters by name, as in `LatencyCoefficients` without `_s`, milliseconds.
        prefill_ms: Likewise.
        errors: Mean absolute relative errors: decode and prefill, in sample and held out.
    """

    decode_ms: dict[str, float]
    prefill_ms: dict[str, float]
    errors: dict[str, float]


def load_grid(calibration: Path, engine: str) -> pd.DataFrame:
    """The grid of an engine, with columns `batch`, `ctx`, `tokens`, `attention`, `ms`."""
    grid = pd.read_csv(calibration / f"aic012_{engine}_iteration_grid.csv")
    return grid.assign(tokens=grid.batch * grid.ctx, attention=grid.batch * grid.ctx.astype(float) ** 2)


def roofline(a: FloatArray | float, b: FloatArray | float) -> FloatArray:
    """Two kinds of work that overlap."""
    both: FloatArray = (np.asarray(a) ** ROOFLINE + np.asarray(b) ** ROOFLINE) ** (1 / ROOFLINE)
    return both


def _decode_ms(p: FloatArray, rows: pd.DataFrame) -> FloatArray:
    """(weights^4 + (compute b)^4)^(1/4) + request b + KV token x KV."""
    batch = rows.batch.to_numpy(float)
    attention_ms = p[3] * batch * rows.ctx.to_numpy(float)
    return np.asarray(roofline(p[0], p[1] * batch) + p[2] * batch + attention_ms)


def _decode_longest_ms(p: FloatArray, rows: pd.DataFrame) -> FloatArray:
    """As above, but attention takes at least its share of the longest context."""
    batch, context = rows.batch.to_numpy(float), rows.ctx.to_numpy(float)
    attention_ms = roofline(p[3] * batch, p[4]) * context
    return np.asarray(roofline(p[0], p[1] * batch) + p[2] * batch + attention_ms)


def _prefill_ms(p: FloatArray, rows: pd.DataFrame) -> FloatArray:
    """(floor^4 + (fixed + token n + bend m/(1 + m))^4)^(1/4) + attention, m = n/1000."""
    tokens = rows.tokens.to_numpy(float)
    thousands = tokens / 1000
    compute_ms = p[1] + p[2] * tokens + p[3] * thousands / (1 + thousands)
    return np.asarray(roofline(p[0], compute_ms) + p[4] * rows.attention.to_numpy(float))


def _decode_memory_ms(p: FloatArray, rows: pd.DataFrame) -> FloatArray:
    """As `_decode_longest_ms`, without computing: small batches do not show its cost."""
    batch, context = rows.batch.to_numpy(float), rows.ctx.to_numpy(float)
    return np.asarray(p[0] + p[1] * batch + roofline(p[2] * batch, p[3]) * context)


def small_batch_form(rows: pd.DataFrame) -> Form:
    """A decode form for rows of small batches, whose cost of computing hides behind memory."""
    least_ms = float(rows.ms.min())
    starts = [
        [least_ms, least_ms / 1000, least_ms / 30_000, least_ms / longest] for longest in (90_000, 4000)
    ]
    return Form(_decode_memory_ms, starts)


def decode_form(rows: pd.DataFrame, *, longest_context: bool = False) -> Form:
    """The decode form, with starts that suit the rows' scale."""
    least_ms = float(rows.ms.min())
    start = [least_ms, least_ms / 200, least_ms / 1000, least_ms / 30_000]
    starts = [start, [least_ms, least_ms / 1000, least_ms / 300, least_ms / 30_000]]
    if not longest_context:
        return Form(_decode_ms, starts)
    return Form(_decode_longest_ms, [[*s, ratio * s[3]] for s in starts for ratio in (0.3, 8.0)])


def prefill_form(rows: pd.DataFrame) -> Form:
    """The prefill form, with a start that suits the rows' scale."""
    least_ms = float(rows.ms.min())
    per_token_ms = float((rows.ms / rows.tokens).min())
    return Form(_prefill_ms, [[least_ms, least_ms / 2, per_token_ms, least_ms / 5, per_token_ms / 40_000]])


def fit_grid(rows: pd.DataFrame, engine: str) -> GridFit:
    """Fit one model, GPU and size.

    Args:
        rows: Its rows of the grid, both phases.
        engine: Which grid they are from; attention on vLLM's has a term more.
    """
    decode, prefill = rows[rows.phase == "decode"], rows[rows.phase == "prefill"]
    d_form = decode_form(decode, longest_context=engine == "vllm")
    p_form = prefill_form(prefill)
    d = _without_idle(d_form, d_form.fit(decode, "ms"), decode)
    p = _without_idle(p_form, p_form.fit(prefill, "ms"), prefill)
    errors = {
        "decode": d_form.error(d, decode, "ms"),
        "decode_held_out": five_fold_error(d_form, decode, "ms"),
        "prefill": p_form.error(p, prefill, "ms"),
        "prefill_held_out": five_fold_error(p_form, prefill, "ms"),
    }
    return GridFit(
        dict(zip(DECODE, d.tolist(), strict=False)), dict(zip(PREFILL, p.tolist(), strict=True)), errors
    )


def _without_idle(form: Form, parameters: FloatArray, rows: pd.DataFrame) -> FloatArray:
    """Parameters that no prediction shows, set to 0: a search leaves them wherever it stopped.

    Without this, profiles would differ from one processor to the next.
    """
    kept = parameters.copy()
    predicted = form.predict(parameters, rows)
    for index in range(len(parameters)):
        without = kept.copy()
        without[index] = 0.0
        if np.max(np.abs(form.predict(without, rows) / predicted - 1)) < UNSEEN:
            kept = without
    return kept
