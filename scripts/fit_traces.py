"""Fit the profiles of the synthetic traces on the published ones.

    python scripts/fit_traces.py TRACE_DIR [--out traces/profiles]

TRACE_DIR holds AzureLLMInferenceTrace_conv.csv and ..._code.csv as published. Everything is
fitted on the train blocks; the figures for the test blocks, which nothing here has seen, are
only written down.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throttllem_env.traces import PUBLISHED_TRACES, Split, Trace, describe, read_trace, sample_lengths
from throttllem_env.traces.arrivals import SwingArrivals, burst_arrivals, swing_arrivals
from throttllem_env.traces.fitted import Profile, parse_profile
from throttllem_env.traces.splits import block_spans

Floats = NDArray[np.float64]
Document = dict[str, Any]

PAUSE_S = 1.0  # a longer gap ends a burst; in the code trace few gaps are near it
PROMPT_LEVELS = np.unique([*np.linspace(0, 1, 81), 0.002, 0.005, 0.992, 0.995, 0.998, 0.999])
OUTPUT_LEVELS = np.unique([*np.linspace(0, 1, 21), 0.01, 0.025, 0.975, 0.99, 0.995, 0.998])
BURST_LEVELS = np.unique([*np.linspace(0, 1, 41), 0.01, 0.99, 0.995])
REQUESTS_PER_BIN = 550  # enough that a bin's 99th percentile is more than a few requests
LAG_BANDS_S = (0, 1, 2, 3, 5, 8, 12, 20, 35, 60, 120, 270, 500, 900, 1400, 2000, 2600)
SEEDS = range(20)


def main() -> None:
    """Fit both profiles and write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("trace_dir", type=Path, help="folder with the two published CSV files")
    parser.add_argument("--out", type=Path, default=Path("traces/profiles"), help="where to write")
    arguments = parser.parse_args()
    for short, fit_arrivals in (("conv", fit_swing), ("code", fit_bursts)):
        document = fit_profile(arguments.trace_dir, short, fit_arrivals)
        path = arguments.out / f"{document['name']}.json"
        path.write_text(json.dumps(document) + "\n", encoding="utf-8")
        print(f"{path}: {path.stat().st_size} bytes")
        print(json.dumps(document["fit"], indent=1))


def fit_profile(folder: Path, short: str, fit_arrivals: Callable[[Trace], Document]) -> Document:
    """Fit one profile.

    Args:
        folder: Folder with the published files.
        short: "conv" or "code".
        fit_arrivals: Fits the arrival process.

    Returns:
        The JSON document, including its fit figures.
    """
    published = PUBLISHED_TRACES[f"azure-2023-{short}"]
    path = folder / published.filename
    if hashlib.sha256(path.read_bytes()).hexdigest() != published.sha256:
        raise SystemExit(f"{path} is not the file that was published")
    trace, _ = read_trace(path)
    document: Document = {
        "format": 1,
        "name": f"azure-{short}-like",
        "source": {
            "file": published.filename,
            "url": published.url,
            "sha256": published.sha256,
            "licence": published.licence,
            "citation": published.citation,
            "fitted_on": "train blocks 0 2 4 6 8 10 of 5 min each, 30 s guards removed",
            "fitted_by": "scripts/fit_traces.py",
            "date": datetime.date.today().isoformat(),
        },
        "arrivals": fit_arrivals(trace),
        "lengths": fit_lengths(trace.split("train")),
    }
    document["fit"] = fit_figures(trace, parse_profile(document))
    return document


def fit_lengths(train: Trace) -> Document:
    """Tabulate prompt lengths, and output lengths by bins of equally many prompts.

    Requests with equal prompts are parted among bins by their order of arrival, as the
    generator parts them at random.

    Args:
        train: The train blocks.

    Returns:
        The document's `lengths`.
    """
    order = np.argsort(train.prompt_tokens, kind="stable")
    bins = np.array_split(train.output_tokens[order], round(len(train) / REQUESTS_PER_BIN))
    tables = [_quantiles(members, OUTPUT_LEVELS) for members in bins]
    return {
        "prompt_levels": _listed(PROMPT_LEVELS),
        "prompt_tokens": _listed(_quantiles(train.prompt_tokens, PROMPT_LEVELS), 1),
        "output_levels": _listed(OUTPUT_LEVELS),
        "output_tokens": [_listed(table, 1) for table in tables],
    }


def fit_swing(trace: Trace) -> Document:
    """Fit a slow sine and a quick flicker to the covariance of the request rate.

    In such a Cox process the relative rate at two times `lag` apart has the covariance
    exp(swing² cos(2π lag / period) + flicker² exp(−lag / time)) − 1. Its logarithm is linear
    in the two variances; period and time are searched on a grid.

    Args:
        trace: The published trace, of which only train blocks are used.

    Returns:
        The document's `arrivals`.
    """
    rate_rps, lags_s, covariance = _rate_covariance(trace)
    target = np.log1p(covariance)
    best_error, best = math.inf, (0.0, 0.0, 0.0, 0.0)
    for period_s in np.arange(2400.0, 4801.0, 100.0):
        for time_s in (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0):
            basis = np.stack([np.cos(2 * np.pi * lags_s / period_s), np.exp(-lags_s / time_s)], axis=1)
            variances = np.maximum(np.linalg.lstsq(basis, target, rcond=None)[0], 0.0)
            error = float(((basis @ variances - target) ** 2).sum())
            if error < best_error:
                best_error = error
                best = (math.sqrt(variances[0]), float(period_s), math.sqrt(variances[1]), time_s)
    names = ("swing_sd", "swing_period_s", "flicker_sd", "flicker_time_s")
    found = {name: round(value, 4) for name, value in zip(names, best, strict=True)}
    return {"kind": "swing", "rate_rps": round(rate_rps, 4), **found}


def fit_bursts(trace: Trace) -> Document:
    """Tabulate pauses, burst sizes and gaps; then stretch the pauses to meet the mean rate.

    Blocks cut the longest pauses off, which the stretching makes good.

    Args:
        trace: The published trace, of which only train blocks are used.

    Returns:
        The document's `arrivals`.
    """
    blocks = trace.blocks("train")
    gaps_s = [np.diff(block.arrival_s) for block in blocks]
    bursts = [part for block in gaps_s for part in np.split(block, np.flatnonzero(block > PAUSE_S))]
    # After the first of a block, each part starts with the pause that ended the one before.
    inner = [part[1:] if len(part) and part[0] > PAUSE_S else part for part in bursts]
    pauses_s, within_s = (np.concatenate(gaps_s)[mask] for mask in _masks(np.concatenate(gaps_s)))
    sizes = np.array([len(part) + 1 for part in inner])
    rate_rps = sum(len(block) for block in blocks) / sum(block.duration_s for block in blocks)
    tables = (_quantiles(values, BURST_LEVELS) for values in (pauses_s, sizes, within_s))
    pause_table, size_table, gap_table = tables
    mean_size = _table_mean(size_table)
    needed_s = mean_size / rate_rps - (mean_size - 1) * _table_mean(gap_table)
    return {
        "kind": "bursts",
        "levels": _listed(BURST_LEVELS),
        "pause_s": _listed(pause_table * needed_s / _table_mean(pause_table), 3),
        "burst_requests": _listed(size_table, 1),
        "gap_s": _listed(gap_table, 6),
        "tempo_sd": round(_tempo_sd(inner, within_s), 3),
    }


def fit_figures(trace: Trace, profile: Profile) -> Document:
    """Compare published and generated traces on blocks that were fitted and on others.

    Args:
        trace: The published trace.
        profile: What was fitted.

    Returns:
        Figures for `in_sample` and `held_out`: published, and the mean over seeds.
    """
    replicas = [_generate(profile, seed) for seed in SEEDS]
    result: Document = {}
    parts: tuple[tuple[str, Split], ...] = (("in_sample", "train"), ("held_out", "test"))
    for title, split in parts:
        published = trace.split(split)
        generated = [replica.split(split) for replica in replicas]
        found = [_figures(part) for part in generated]
        pooled = Trace.concatenate(generated)
        result[title] = {
            "published": _figures(published),
            "generated": {key: _rounded(np.mean([row[key] for row in found])) for key in found[0]},
            "prompt_ks": _ks(published.prompt_tokens, pooled.prompt_tokens),
            "output_ks": _ks(published.output_tokens, pooled.output_tokens),
        }
    return result


def _generate(profile: Profile, seed: int) -> Trace:
    rng = np.random.default_rng(seed)
    process = profile.arrivals
    if isinstance(process, SwingArrivals):
        arrival_s = swing_arrivals(process, 3600.0, rng)
    else:
        arrival_s = burst_arrivals(process, 3600.0, rng)
    return Trace(arrival_s, *sample_lengths(profile.lengths, len(arrival_s), rng), profile.name, 3600.0)


def _figures(trace: Trace) -> dict[str, float]:
    summary = describe(trace)
    counts = np.histogram(trace.arrival_s, np.arange(0.0, trace.duration_s + 1e-6, 30.0))[0]
    figures = {
        "mean_rate_rps": summary.mean_rate_rps,
        "peak_rate_rps": summary.peak_rate_rps,
        "rate_cv_30s": float(counts.std() / counts.mean()),
        "interarrival_cv": summary.interarrival_cv,
        "empty_seconds": summary.empty_seconds,
        "rank_correlation": summary.rank_correlation,
    }
    for kind, lengths in (("prompt", summary.prompt), ("output", summary.output)):
        figures |= {f"{kind}_{key}": getattr(lengths, key) for key in ("mean", "p50", "p90", "p99")}
    return {key: _rounded(value) for key, value in figures.items()}


def _rate_covariance(trace: Trace) -> tuple[float, Floats, Floats]:
    """Return mean rate, lags and covariance of relative rates, from 1 s counts in train blocks."""
    spans = block_spans(trace.duration_s, "train")
    edges = [np.arange(start, end + 0.5) for start, end in spans]
    counts = np.concatenate([np.histogram(trace.arrival_s, block)[0] for block in edges])
    seconds = np.concatenate([block[:-1] for block in edges])
    relative = counts / counts.mean() - 1.0
    lags = np.abs(seconds[:, None] - seconds[None, :])
    products = relative[:, None] * relative[None, :]
    # Counting noise adds 1/mean to the variance, and nothing to other lags.
    found = [(0.0, float(np.diag(products).mean() - 1.0 / counts.mean()))]
    for low, high in itertools.pairwise(LAG_BANDS_S):
        band = (lags > low) & (lags <= high)
        found.append((float(lags[band].mean()), float(products[band].mean())))
    lag, covariance = np.array(found).T
    return float(counts.mean()), lag, covariance


def _tempo_sd(bursts: list[Floats], within_s: Floats) -> float:
    """Return the spread of log tempos among bursts, less what a burst's own gaps explain."""
    long = [burst for burst in bursts if len(burst) >= 5]
    noise = float((within_s.var() / within_s.mean() ** 2) * np.mean([1 / len(burst) for burst in long]))
    spread = float(np.var([math.log(burst.mean()) for burst in long]))
    return math.sqrt(max(spread - noise, 0.0))


def _masks(gaps_s: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return gaps_s > PAUSE_S, gaps_s <= PAUSE_S


def _quantiles(values: NDArray[Any], levels: Floats) -> Floats:
    return np.asarray(np.quantile(values, levels, method="hazen"), dtype=np.float64)


def _table_mean(table: Floats) -> float:
    return float((np.diff(BURST_LEVELS) * (table[1:] + table[:-1]) / 2).sum())


def _ks(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples."""
    points = np.union1d(first, second)
    shares = [np.searchsorted(np.sort(x), points, side="right") / len(x) for x in (first, second)]
    return _rounded(np.abs(shares[0] - shares[1]).max())


def _listed(values: Floats, digits: int = 4) -> list[float]:
    rounded: list[float] = np.round(values, digits).tolist()
    return rounded


def _rounded(value: float | np.floating[Any]) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
