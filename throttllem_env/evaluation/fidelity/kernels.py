"""Iteration times at the top clock: the kernel grids, and what was not fitted to."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from throttllem_env.evaluation.document import Picture, Section, Table, percent
from throttllem_env.evaluation.fidelity.readings import spread
from throttllem_env.hardware import GPUS, MODELS, IterationWork, Physics, load_profile
from throttllem_env.hardware.fitting import grids
from throttllem_env.hardware.specs import kv_capacity_tokens
from throttllem_env.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_REQUESTS = 32
"""Batches up to here are fitted to when larger ones count as unseen."""

SPLITWISE_GPUS = ("a100-80gb", "h100-80gb")
LONGEST_PROMPT_TOKENS = 8192


def kernel_section(calibration: Path) -> Section:
    """Both kernel grids, held out by random folds; unseen batches and models."""
    fits: dict[tuple[str, str, str, int], tuple[pd.DataFrame, grids.GridFit]] = {}
    for engine in grids.ENGINES:
        grid = grids.load_grid(calibration, engine)
        for group, rows in grid.groupby(["model", "system", "tp"]):
            model, system, size = map(str, cast(tuple[Any, ...], group))
            key = (engine, model, system, int(size))
            fits[key] = (rows, grids.fit_grid(rows, engine))
    heads = ["grid", "model", "GPU", "size", "decode", "held out", "prefill", "held out"]
    worst = max(max(f.errors.values()) for _, f in fits.values())
    return Section(
        "Kernel times at the top clock",
        "Sums of kernel times from PyPI `aiconfigurator-core` 0.12.0, for TRT-LLM 1.0 and vLLM 0.14, "
        "without host time; decode at batches 1 to 256 and contexts 128 to 8192, prefill of 16 to 16,384 "
        "tokens. Errors are mean absolute relative errors, in sample and over five random folds. "
        f"Required: at most 6 % held out. The worst entry is {percent(worst)}. The TRT-LLM fits are "
        "shipped. On the vLLM grid, decode attention of an A100 follows the longest context at small "
        "batches, which takes a term more there.",
        [
            Table("Random folds:", heads, list(_fold_rows(fits))),
            Table(
                f"Unseen batches: fitted to batches up to {FEW_REQUESTS}, where the cost of computing "
                "does not show and its term is left out; error at 64 and above:",
                ["grid", "GPU", *[f"{m} TP{s}" for m, s in _model_sizes(fits)]],
                list(_batch_rows(fits)),
            ),
            Table(
                "Unseen models: decode of the column's model from the row's fit, TRT-LLM grid, "
                "coefficients scaled by weights and KV bytes; mean over GPUs and common sizes:",
                ["fitted to", *MODELS],
                list(_transfer_rows(fits)),
            ),
        ],
        [
            Picture(
                "fidelity-kernels",
                "Predicted against given kernel times; all points lie close to the diagonal",
                lambda: _scatter(fits),
            )
        ],
    )


def _fold_rows(fits: dict[Any, tuple[pd.DataFrame, grids.GridFit]]) -> Iterator[list[str]]:
    for (engine, model, system, size), (_, fit) in fits.items():
        e = fit.errors
        cells = [e["decode"], e["decode_held_out"], e["prefill"], e["prefill_held_out"]]
        yield [engine, model, system, f"TP{size}", *map(percent, cells)]


def _model_sizes(fits: dict[Any, Any]) -> list[tuple[str, int]]:
    return sorted({(model, size) for _, model, _, size in fits})


def _batch_rows(fits: dict[Any, tuple[pd.DataFrame, grids.GridFit]]) -> Iterator[list[str]]:
    for engine, system in sorted({(engine, system) for engine, _, system, _ in fits}):
        cells = []
        for model, size in _model_sizes(fits):
            rows, _ = fits[engine, model, system, size]
            decode = rows[rows.phase == "decode"]
            form = grids.small_batch_form(decode)
            few = decode.batch <= FEW_REQUESTS
            cells.append(percent(form.error(form.fit(decode[few], "ms"), decode[~few], "ms")))
        yield [engine, system, *cells]


def _transfer_rows(fits: dict[Any, tuple[pd.DataFrame, grids.GridFit]]) -> Iterator[list[str]]:
    for source in MODELS:
        cells = []
        for target in MODELS:
            errors = [
                _transfer_error(fits, source, target, system, size)
                for engine, model, system, size in fits
                if engine == grids.SHIPPED and model == target and (engine, source, system, size) in fits
            ]
            cells.append("fitted" if source == target else percent(float(np.mean(errors))))
        yield [source, *cells]


def _transfer_error(
    fits: dict[Any, tuple[pd.DataFrame, grids.GridFit]], source: str, target: str, system: str, size: int
) -> float:
    rows, _ = fits[grids.SHIPPED, target, system, size]
    _, fit = fits[grids.SHIPPED, source, system, size]
    weights = MODELS[target].weights_bytes / MODELS[source].weights_bytes
    kv = MODELS[target].kv_bytes_per_token / MODELS[source].kv_bytes_per_token
    d = fit.decode_ms
    scaled = np.array([d["weights"], d["compute_per_request"], d["per_request"]]) * weights
    decode = rows[rows.phase == "decode"]
    return grids.decode_form(decode).error(np.append(scaled, d["per_kv_token"] * kv), decode, "ms")


def _scatter(fits: dict[Any, tuple[pd.DataFrame, grids.GridFit]]) -> "Figure":
    from throttllem_env.evaluation.plots.style import FAINT, PALETTE, blank, plain_axes

    figure = blank(9.0, 4.4)
    for axes, phase in zip(figure.subplots(1, 2), ("decode", "prefill"), strict=True):
        for colour, model in zip(PALETTE[1:], MODELS, strict=False):
            shown = [k for k in fits if k[0] == grids.SHIPPED and k[1] == model]
            given, predicted = zip(*(_points(*fits[k], phase) for k in shown), strict=True)
            axes.scatter(
                np.concatenate(given), np.concatenate(predicted), s=6, color=colour, label=model, alpha=0.6
            )
        limits = axes.get_xlim()
        axes.set(xscale="log", yscale="log", xlabel="kernel tables, ms", ylabel="fit, ms")
        line = np.array([max(limits[0], 2.0), limits[1]])
        axes.plot(line, line, color=FAINT, linewidth=0.8, zorder=0)
        axes.set_title(f"{phase}, TRT-LLM grid", fontsize=10, loc="left")
        plain_axes(axes)
        axes.legend(frameon=False, fontsize=8)
    return figure


def _points(rows: pd.DataFrame, fit: grids.GridFit, phase: str) -> tuple[FloatArray, FloatArray]:
    rows = rows[rows.phase == phase]
    form = grids.decode_form(rows) if phase == "decode" else grids.prefill_form(rows)
    parameters = np.array(list((fit.decode_ms if phase == "decode" else fit.prefill_ms).values()))
    return rows.ms.to_numpy(float), form.predict(parameters, rows)


def splitwise_section(calibration: Path) -> Section:
    """Llama2-70B as Splitwise measured it, against the shipped Llama3-70B profiles; nothing fitted."""
    rows = pd.read_csv(calibration / "splitwise_perf_model.csv")
    rows = rows[(rows.model == "llama2-70b") & (rows.prompt_size * rows.batch_size <= LONGEST_PROMPT_TOKENS)]
    key = ["hardware", "tensor_parallel", "prompt_size", "batch_size"]
    mean = rows.groupby(key, as_index=False)[["prompt_time", "token_time"]].mean()
    table = []
    for gpu in SPLITWISE_GPUS:
        for size in (2, 4, 8):
            chosen = mean[(mean.hardware == gpu) & (mean.tensor_parallel == size)]
            if kv_capacity_tokens(GPUS[gpu], MODELS["llama3-70b"], size) > 0 and len(chosen):
                table.append([gpu, f"TP{size}", str(len(chosen)), *_splitwise_cells(gpu, size, chosen)])
    return Section(
        "Splitwise's Llama2-70B: not fitted to",
        "Measured prompt and token times of Llama2-70B on A100 and H100 (splitwise-sim), against the "
        "Llama3-70B profiles, whose kernels have nearly the same shapes. Ratios are ours over measured, "
        "median and the 10th to 90th percentile. Their token times lie far above the kernels at every "
        "size, on a floor of about 42 ms (A100) and 28 ms (H100) from TP4 on: host time of an engine of "
        "2023.",
        [
            Table(
                "Ours over measured:",
                ["GPU", "size", "workloads", "prefill", "decode"],
                table,
            )
        ],
    )


def _splitwise_cells(gpu: str, size: int, rows: pd.DataFrame) -> list[str]:
    physics = Physics(load_profile("llama3-70b", gpu), GPUS[gpu], size, 256)
    table = physics.at(GPUS[gpu].top_mhz)
    prefill, decode = [], []
    for prompt, batch, prompt_ms, token_ms in zip(
        rows.prompt_size, rows.batch_size, rows.prompt_time, rows.token_time, strict=True
    ):
        tokens = int(prompt * batch)
        prefill_s = table.iteration(IterationWork(0, 0, tokens, int(batch * prompt**2))).total_s
        decode_s = table.iteration(IterationWork(int(batch), tokens, 0, 0)).total_s
        prefill.append(prefill_s * 1e3 / prompt_ms)
        decode.append(decode_s * 1e3 / token_ms)
    return [spread(np.array(prefill)), spread(np.array(decode))]
