"""Power by load: H100 prefill, idle and decode, A100 prefill, and serving power that was not fitted to."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from throttllem_env.evaluation.document import Picture, Section, Table, percent
from throttllem_env.evaluation.fidelity.readings import decode_iteration, spread
from throttllem_env.hardware import GPUS, Physics, load_profile
from throttllem_env.hardware.fitting import a800, h100, splitwise
from throttllem_env.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEADERBOARD_GPUS = {"NVIDIA A100-SXM4-40GB": "a100-40gb", "NVIDIA H100 80GB HBM3": "h100-80gb"}
LEADERBOARD_MODELS = {
    "meta-llama/Meta-Llama-3.1-8B-Instruct": "llama3-8b",
    "meta-llama/Meta-Llama-3.1-70B-Instruct": "llama3-70b",
    "codellama/CodeLlama-13b-hf": "llama2-13b",
}
BUSY_W = (
    ("llama3-8b", "a100-80gb", 1, 303),
    ("llama3-70b", "a100-80gb", 4, 322),
    ("llama3-70b", "a100-80gb", 8, 248),
    ("llama3-8b", "h100-80gb", 1, 466),
    ("llama3-70b", "h100-80gb", 4, 496),
    ("llama3-70b", "h100-80gb", 8, 376),
)
"""Published busy power of a GPU (calibration README); the batch is not stated."""


def h100_section(calibration: Path) -> Section:
    """H100 power: prefill against the clock, idle, decode by model."""
    rows, decode = h100.load_prefill_power(calibration), h100.load_decode_power(calibration)
    prefill, prefill_errors = h100.fit_prefill_power(rows)
    idle, idle_errors = h100.fit_idle_power(rows)
    serving = h100.DECODE_FORM.fit(decode, "gpu_w")
    ours, constant = (h100.errors_by_model(form, decode) for form in (h100.DECODE_FORM, h100.CONSTANT))
    mean_error, mean_constant = (float(np.mean(list(e.values()))) for e in (ours, constant))
    counts = decode.model.value_counts()
    return Section(
        "H100 power",
        "Prefill of Llama3-70B on 2 and 4 H100s at seven locked clocks (public fork of DistServe), each "
        f"prompt length held out in turn, on the {prefill_errors['rows']:.0f} of 84 rows below the power "
        f"cap: {percent(prefill_errors['held_out_by_length'])} (required: at most 8 %; in sample "
        f"{percent(prefill_errors['in_sample'])}). Idle at a locked clock, each clock held out: "
        f"{percent(idle_errors['held_out_by_clock'])}. Decode at the top clock, dense bf16 models serving "
        f"text (ML.ENERGY v3), each model held out: {percent(mean_error)} on average "
        f"(required: at most 8 %), where a constant has {percent(mean_constant)}.",
        [
            Table(
                "Decode power by model held out:",
                ["model", "rows", "error", "error of a constant"],
                [
                    [
                        name,
                        str(counts[name]),
                        percent(ours[name]),
                        percent(constant[name]),
                    ]
                    for name in ours
                ],
            )
        ],
        [
            Picture(
                "fidelity-h100-power",
                "H100 power: prefill against the clock with the cap, decode against the batch",
                lambda: _figure(rows, decode, prefill, idle, serving),
            )
        ],
    )


def _figure(
    rows: pd.DataFrame,
    decode: pd.DataFrame,
    prefill: dict[str, float],
    idle: dict[str, float],
    serving: FloatArray,
) -> "Figure":
    from throttllem_env.evaluation.plots.style import MARKERS, PALETTE, TARGET, blank, plain_axes

    figure = blank(10.0, 4.2)
    left, right = figure.subplots(1, 2)
    clocks = np.linspace(345, 1980, 100)
    shown = [(4, n) for n in (32, 256, 2048)] + [(2, 2048), (2, 0)]
    for colour, marker, (size, tokens) in zip(PALETTE[1:], MARKERS, shown, strict=False):
        points = rows[(rows.tensor_parallel == size) & (rows.input_tokens == tokens)]
        grid = pd.DataFrame({"tensor_parallel": size, "input_tokens": tokens, "ratio": clocks / h100.TOP_MHZ})
        names = h100.PREFILL if tokens else h100.IDLE
        form, found = (h100.PREFILL_FORM, prefill) if tokens else (h100.IDLE_FORM, idle)
        watts = np.minimum(form.predict(np.array([found[name] for name in names]), grid), 700.0)
        label = f"TP{size}, {tokens} tokens" if tokens else "idle"
        left.plot(points.frequency_mhz, points.gpu_w, marker, color=colour, markersize=4)
        left.plot(clocks, watts, color=colour, linewidth=1.2, label=label)
    left.axhline(700.0, color=TARGET, linewidth=0.8, linestyle="--")
    left.set_title("prefill and idle, W per GPU", fontsize=10, loc="left")
    left.set_xlabel("locked clock, MHz (dashed: power cap)")
    load = pd.DataFrame({"per_gpu": np.linspace(1, 512, 200)})
    right.plot(load.per_gpu, h100.DECODE_FORM.predict(serving, load), color=PALETTE[0], label="fit")
    for colour, marker, (model, group) in zip(
        PALETTE[1:] * 2, MARKERS, decode.groupby("model"), strict=False
    ):
        right.plot(
            group.per_gpu, group.gpu_w, marker, color=colour, markersize=4, label=str(model).split("/")[-1]
        )
    right.set_title("decode at the top clock, W per GPU", fontsize=10, loc="left")
    right.set_xlabel("batch per GPU")
    for axes, place in ((left, "upper left"), (right, "lower right")):
        axes.set_ylim(0, 850)
        plain_axes(axes)
        axes.legend(frameon=False, fontsize=7, ncols=2, loc=place)
    return figure


def a100_prefill_section(calibration: Path) -> Section:
    """Peak power of A100 prompts: in sample, since every number of tokens per GPU is needed."""
    decode, _ = a800.fit_decode_power(a800.load_a800(calibration))
    rows = splitwise.load_peak_power(calibration)
    _, error = splitwise.fit_prefill_power(rows, decode)
    return Section(
        "A100 prefill power",
        f"Peak power of Llama2-70B prompts on A100-80GB (splitwise-sim), {len(rows)} combinations of size "
        f"and prompt: {percent(error)} in sample. Readings above 400 W are clipped there, so how far "
        "demand lies above the limit is not known; it is taken to be the limit.",
    )


def serving_section(calibration: Path) -> Section:
    """Serving benchmarks and published figures, against the shipped profiles; nothing fitted."""
    rows = pd.read_csv(calibration / "mlenergy_leaderboard_v2_llm.csv")
    rows = rows[rows.GPU.isin(list(LEADERBOARD_GPUS)) & rows.Model.isin(list(LEADERBOARD_MODELS))]
    rows = rows[(rows.PP == 1) & (rows["Avg BS (reqs)"] <= 256)]
    table = []
    for key, group in rows.groupby(["GPU", "Model", "TP"]):
        gpu, model, size = map(str, cast(tuple[Any, ...], key))
        ratios = _ratios(LEADERBOARD_GPUS[gpu], LEADERBOARD_MODELS[model], int(size), group)
        table.append([gpu, model.split("/")[1], f"TP{size}", str(len(group)), *ratios])
    busy = [
        [model, gpu, f"TP{size}", f"{watts} W", f"{_busy_w(model, gpu, size):.0f} W"]
        for model, gpu, size, watts in BUSY_W
    ]
    return Section(
        "Serving benchmarks: not fitted to",
        "ML.ENERGY's leaderboard of 2024 (v2), whose engine waited for its host for much of the time: "
        "time per token, prefill of others included, lies far above the kernels', and power far below "
        "what the same GPUs draw in v3. Our profiles describe an engine that keeps its GPUs busy; ratios "
        "are ours over measured, median and the 10th to 90th percentile over batches.",
        [
            Table(
                "Ours over measured:",
                ["GPU", "model", "size", "rows", "time per token", "power of a GPU"],
                table,
            ),
            Table(
                "Published busy power of a GPU, against ours decoding a batch of 64:",
                ["model", "GPU", "size", "published", "ours"],
                busy,
            ),
        ],
    )


def _ratios(gpu: str, model: str, size: int, rows: pd.DataFrame) -> list[str]:
    table = Physics(load_profile(model, gpu), GPUS[gpu], size, 256).at(GPUS[gpu].top_mhz)
    times, powers = [], []
    columns = ("Avg BS (reqs)", "Avg Output Tokens", "Avg TPOT (s)", "W_gpu")
    for batch, output, tpot_s, watts in zip(*(rows[c].tolist() for c in columns), strict=True):
        whole = max(round(batch), 1)
        context = h100.CHAT_PROMPT_TOKENS + output / 2
        seconds, joules = decode_iteration(table, whole, int(whole * context))
        times.append(seconds / tpot_s)
        powers.append(joules / seconds / watts)
    return [spread(np.array(times)), spread(np.array(powers))]


def _busy_w(model: str, gpu: str, size: int) -> float:
    table = Physics(load_profile(model, gpu), GPUS[gpu], size, 256).at(GPUS[gpu].top_mhz)
    return table.decode_power_w(64)
