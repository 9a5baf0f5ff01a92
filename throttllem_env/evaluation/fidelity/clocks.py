"""Time, power and energy against the clock: A800 decode, and the paper's own figures."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from throttllem_env.evaluation.document import Picture, Section, Table, percent
from throttllem_env.evaluation.fidelity.readings import decode_iteration
from throttllem_env.hardware import GPUS, Physics, load_profile
from throttllem_env.hardware.fitting import a800
from throttllem_env.hardware.fitting.forms import Form
from throttllem_env.hardware.physics import slowdown
from throttllem_env.hardware.profile import ResponseCoefficients
from throttllem_env.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HOST_FLOOR_SHARPNESS = 4.0
SHOWN = ((1, 128, 64, 128), (2, 128, 4096, 64), (2, 256, 64, 256), (1, 128, 64, 8))
"""Workloads in the pictures: size, prompt, output, batch."""


def a800_section(calibration: Path) -> Section:
    """Decode at six locked clocks, each held out in turn."""
    rows = a800.load_a800(calibration)
    response, time_errors = a800.fit_response(rows)
    power, power_errors = a800.fit_decode_power(rows)
    excess = a800.energy_of_best_clock(rows, a800.predicted_energy(rows, response, power)) - 1
    clocks = ["210", "450", "690", "930", "1170"]
    table = [
        [what, *(percent(e[f"held_out_{mhz}_mhz"]) for mhz in clocks), percent(e["held_out_450_to_1170_mhz"])]
        for what, e in (("layer time", time_errors), ("power", power_errors))
    ]
    return Section(
        "A800 at six locked clocks",
        "Decode of a dense 64-layer model on A100 silicon, 24 workloads (size 1 and 2, batch 1 to 256, "
        "two context lengths). Each clock is held out and predicted from the others. Required: at most 8 "
        "% over 450 to 1170 MHz; 210 MHz is reported. Time is that of the layers, relative to the top "
        "clock: time per token sits on a host floor of about 41 ms at high clocks. With a floor for each "
        "size fitted besides, the shipped response gives time per token within "
        f"{percent(_token_error(rows, response))} in sample.",
        [
            Table(
                "Mean absolute relative error at clocks held out (MHz):",
                ["quantity", *clocks, "450 to 1170"],
                table,
            ),
            Table(
                "Energy at the measured clock that is predicted best, above the measured least "
                "(required: 3 % on average, 8 % at worst):",
                ["workloads", "average", "worst"],
                [[str(len(excess)), percent(float(excess.mean())), percent(float(excess.max()))]],
            ),
        ],
        [
            Picture(
                "fidelity-a800",
                "Slowdown, power and energy per token against the clock, measured points and fitted curves",
                lambda: _figure(rows, response, power),
            )
        ],
    )


def _token_error(rows: pd.DataFrame, response: ResponseCoefficients) -> float:
    """Error of time per token with the response as it is: kernels at the top clock and a floor fitted."""

    def tpot_ms(p: FloatArray, r: pd.DataFrame) -> FloatArray:
        one = r.tensor_parallel.to_numpy(float) == 1
        size, batch = r.tensor_parallel.to_numpy(float), r.batch_size.to_numpy(float)
        context = (r.input_tokens + r.output_tokens / 2).to_numpy(float)
        kernels = np.where(one, p[2], p[3]) + (p[4] * batch + p[5] * batch * context) / size
        slower = slowdown(response, r.ratio.to_numpy(float), r.per_gpu.to_numpy(float))
        floor, sharp = np.where(one, p[0], p[1]), HOST_FLOOR_SHARPNESS
        total: FloatArray = (floor**sharp + (kernels * slower) ** sharp) ** (1 / sharp)
        return total

    form = Form(tpot_ms, [[40.0, 40.0, 37.0, 22.0, 0.1, 3e-4]])
    seen = rows[rows.frequency_mhz > a800.REPORTED_ONLY_MHZ]
    return form.error(form.fit(seen, "tpot_ms"), seen, "tpot_ms")


def _figure(rows: pd.DataFrame, response: ResponseCoefficients, power: dict[str, float]) -> "Figure":
    from throttllem_env.evaluation.plots.style import MARKERS, PALETTE, blank, plain_axes

    figure = blank(11.0, 4.0)
    panels = figure.subplots(1, 3)
    ratios = np.linspace(210 / 1410, 1.0, 120)
    for colour, marker, key in zip(PALETTE[1:], MARKERS, SHOWN, strict=False):
        chosen = rows[(rows[a800.KEY] == list(key)).all(axis=1)].sort_values("frequency_mhz")
        size, batch = key[0], key[3]
        curve = slowdown(response, ratios, np.full(len(ratios), batch / size))
        watts = _power_curve(power, size, batch, ratios)
        measured_j = (chosen.slowdown * chosen.gpu_w).to_numpy(float)
        label = f"TP{size}, batch {batch}, context {key[1] + key[2] // 2}"
        for axes, points, line in zip(
            panels,
            (chosen.slowdown.to_numpy(float), chosen.gpu_w.to_numpy(float), measured_j / measured_j[-1]),
            (curve, watts, curve * watts / (curve * watts)[-1]),
            strict=True,
        ):
            axes.plot(chosen.frequency_mhz, points, marker, color=colour, markersize=5)
            axes.plot(1410 * ratios, line, color=colour, linewidth=1.2, label=label)
    titles = ("layer time / top clock", "power of a GPU, W", "energy of a layer / top clock")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("locked clock, MHz")
        axes.set_ylim(bottom=0)
        plain_axes(axes)
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _power_curve(power: dict[str, float], size: int, batch: int, ratios: FloatArray) -> FloatArray:
    rows = pd.DataFrame({"per_gpu": batch / size, "tensor_parallel": size, "ratio": ratios})
    return a800.decode_w(rows, power)


def sweet_spot_section() -> Section:
    """What the paper reports of A100-40GB at the largest batch, against the shipped profile."""
    gpu = GPUS["a100-40gb"]
    profile = load_profile("llama2-13b", gpu.name)
    table: list[list[Any]] = []
    for size, batch, context in ((1, 10, 1000), (2, 45, 1000), (4, 120, 1000)):
        physics = Physics(profile, gpu, size, 256)
        rate, efficiency = _rates(physics, batch, context)
        best = int(np.argmax(efficiency))
        at_1050, at_840 = gpu.clocks_mhz.index(1050), gpu.clocks_mhz.index(840)
        table.append(
            [
                f"TP{size}",
                str(batch),
                percent(rate[at_1050] / rate[-1] - 1),
                percent(efficiency[at_1050] / efficiency[-1] - 1),
                str(gpu.clocks_mhz[best]),
                percent(efficiency[best] / efficiency[-1] - 1),
                percent(efficiency[at_840] / efficiency[-1] - 1),
                percent(efficiency[0] / efficiency[-1] - 1),
            ]
        )
    paper = ["paper", "largest", "-6.2 %", "+37.4 %", "840 to 1050", "", "falls below", ""]
    return Section(
        "The sweet spot, against the paper: not fitted to",
        "Decode alone of Llama2-13B on A100-40GB with the KV cache nearly full at contexts of 1000 "
        "tokens, host time and its idle power included. The paper (HPCA 2025, arXiv 2408.05235) reports "
        "the largest batch of its engine.",
        [
            Table(
                "Against the top clock:",
                [
                    "size",
                    "batch",
                    "tokens/s at 1050 MHz",
                    "tokens/J at 1050 MHz",
                    "best clock, MHz",
                    "tokens/J there",
                    "at 840 MHz",
                    "at 210 MHz",
                ],
                [paper, *table],
            )
        ],
    )


def _rates(physics: Physics, batch: int, context: int) -> tuple[FloatArray, FloatArray]:
    """Tokens per second and per joule at every clock."""
    rate, efficiency = [], []
    for mhz in physics.gpu.clocks_mhz:
        seconds, joules = decode_iteration(physics.at(mhz), batch, batch * context)
        rate.append(batch / seconds)
        efficiency.append(batch / (physics.size * joules))
    return np.array(rate), np.array(efficiency)
