"""Clock response and power of decode on A100 silicon.

Data: `a800_decode_frequency.csv`, a dense 64-layer model on A800-80GB at six locked clocks, from a public
fork of SGLang (Apache-2.0). Its lowest clock, 210 MHz, is reported and not fitted.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from throttllem_env.hardware.fitting.forms import Form, held_out_errors
from throttllem_env.hardware.physics import slowdown
from throttllem_env.hardware.power import clock_factor
from throttllem_env.hardware.profile import ResponseCoefficients
from throttllem_env.types import FloatArray

TOP_MHZ = 1410
REPORTED_ONLY_MHZ = 210
KEY = ["tensor_parallel", "input_tokens", "output_tokens", "batch_size"]
POWER = ("base_w", "dynamic_w", "size_exponent", "batch_gain", "batch_scale", "knee", "knee_exponent")


def load_a800(calibration: Path) -> pd.DataFrame:
    """The rows, with `slowdown` (layer time over that at the top clock), `gpu_w`, `ratio`, `per_gpu`.

    Layer times are taken since the time per token sits on a host floor of about 41 ms at high clocks.
    """
    rows = pd.read_csv(calibration / "a800_decode_frequency.csv")
    rows = rows.assign(layer_us=rows.attention_layer_us + rows.ffn_layer_us)
    top = rows[rows.frequency_mhz == TOP_MHZ].set_index(KEY).layer_us
    at_top = top.reindex(pd.MultiIndex.from_frame(rows[KEY])).to_numpy()
    return rows.assign(
        slowdown=rows.layer_us / at_top,
        gpu_w=rows.power_w_all_gpus / rows.tensor_parallel,
        ratio=rows.frequency_mhz / TOP_MHZ,
        per_gpu=rows.batch_size / rows.tensor_parallel,
    )


def _slowdown(p: FloatArray, rows: pd.DataFrame) -> FloatArray:
    response = ResponseCoefficients(*p.tolist())
    return slowdown(response, rows.ratio.to_numpy(float), rows.per_gpu.to_numpy(float))


def _gpu_w(p: FloatArray, rows: pd.DataFrame) -> FloatArray:
    """Power of one GPU; see `PowerCoefficients`."""
    busy = 1 + p[3] * (1 - np.exp(-rows.per_gpu.to_numpy(float) / p[4]))
    dynamic_w = p[1] * rows.tensor_parallel.to_numpy(float) ** -p[2] * busy
    watts: FloatArray = p[0] + dynamic_w * clock_factor(rows.ratio.to_numpy(float), p[5], p[6])
    return watts


RESPONSE_FORM = Form(_slowdown, [[2.0, 0.4, 0.004]])
POWER_FORM = Form(_gpu_w, [[95.0, 125.0, 0.3, 1.0, 80.0, 0.84, 1.3]])


def fit_response(rows: pd.DataFrame) -> tuple[ResponseCoefficients, dict[str, float]]:
    """Fit the slowdown.

    Returns:
        Coefficients, and mean absolute relative errors in sample and by clock held out.
    """
    slower = rows[rows.frequency_mhz < TOP_MHZ]
    found, errors = _fit(RESPONSE_FORM, slower, "slowdown")
    return ResponseCoefficients(*found.tolist()), errors


def fit_decode_power(rows: pd.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    """Fit decode power.

    Returns:
        Coefficients by name, and errors as for `fit_response`.
    """
    found, errors = _fit(POWER_FORM, rows, "gpu_w")
    return dict(zip(POWER, found.tolist(), strict=True)), errors


def _fit(form: Form, rows: pd.DataFrame, target: str) -> tuple[FloatArray, dict[str, float]]:
    """Fit to all but the lowest clock; hold each clock out in turn, from all others."""
    fitted = rows[rows.frequency_mhz > REPORTED_ONLY_MHZ]
    found = form.fit(fitted, target)
    by_clock = held_out_errors(form, rows, target, rows.frequency_mhz.to_numpy(float))
    inner = [error for mhz, error in by_clock.items() if REPORTED_ONLY_MHZ < mhz < TOP_MHZ]
    errors = {
        "in_sample": form.error(found, fitted, target),
        "held_out_450_to_1170_mhz": float(np.mean(inner)),
    }
    errors |= {f"held_out_{mhz:.0f}_mhz": error for mhz, error in by_clock.items() if mhz < TOP_MHZ}
    return found, errors


def predicted_energy(
    rows: pd.DataFrame, response: ResponseCoefficients, power: dict[str, float]
) -> FloatArray:
    """Energy of a token as the fits have it: slowdown x power.

    Args:
        rows: Rows as `load_a800` gives them.
        response: As `fit_response` gives it.
        power: As `fit_decode_power` gives it.

    Returns:
        float64[rows], in units of each workload's own.
    """
    time = slowdown(response, rows.ratio.to_numpy(float), rows.per_gpu.to_numpy(float))
    return time * decode_w(rows, power)


def decode_w(rows: pd.DataFrame, power: dict[str, float]) -> FloatArray:
    """float64[rows], power of one GPU by fitted coefficients; reads `per_gpu`, `tensor_parallel`, `ratio`."""
    return _gpu_w(np.array([power[name] for name in POWER]), rows)


def energy_of_best_clock(rows: pd.DataFrame, predicted_j: FloatArray) -> FloatArray:
    """What trusting a prediction costs, for each batch, context and size.

    Args:
        rows: Rows as `load_a800` gives them.
        predicted_j: float64[rows], predicted energy of a token, in any unit.

    Returns:
        float64[workloads], measured energy at the measured clock predicted best, over the measured least.
    """
    measured_j = (rows.power_w_all_gpus * rows.tpot_ms).to_numpy(float)
    workload = rows.groupby(KEY).ngroup().to_numpy()
    excess = []
    for number in range(workload.max() + 1):
        clocks = np.flatnonzero(workload == number)
        chosen = clocks[predicted_j[clocks].argmin()]
        excess.append(measured_j[chosen] / measured_j[clocks].min())
    return np.array(excess)
