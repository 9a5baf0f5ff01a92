"""A picture of a trace: its rate over time and the distribution of its lengths."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from throttllem_env.traces.summary import LengthSummary, describe
from throttllem_env.traces.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_trace"]

_RATE_BINS: Final = 360  # one bin for each 10 s of an hour
_LENGTH_BINS: Final = 50
_BLUE, _ORANGE, _GREEN = "#1f5fa8", "#d1661c", "#2b7a4b"


def plot_trace(trace: Trace, path: str | Path) -> None:
    """Draw the rate over time, and histograms of prompt and output lengths.

    Args:
        trace: A trace with at least one request.
        path: The PNG file to write.

    Raises:
        TraceError: If the trace is empty.
        OSError: If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figures = describe(trace)
    figure = Figure(figsize=(10.0, 6.5), layout="constrained")
    FigureCanvasAgg(figure)  # no display, no global state
    axes = figure.subplot_mosaic([["rate", "rate"], ["prompt", "output"]])
    _draw_rate(axes["rate"], trace, figures.peak_rate_rps)
    _draw_lengths(axes["prompt"], "Prompt", trace.prompt_tokens, figures.prompt, _ORANGE)
    _draw_lengths(axes["output"], "Output", trace.output_tokens, figures.output, _GREEN)
    figure.suptitle(
        f"{figures.name}: {figures.requests:,} requests in {figures.duration_s:,.0f} s, "
        f"inter-arrival CV {figures.interarrival_cv:.2f}, {figures.empty_seconds:.0%} of seconds empty"
    )
    figure.savefig(str(path), dpi=120, format="png")


def _draw_rate(axes: Axes, trace: Trace, peak_rps: float) -> None:
    duration_s = trace.duration_s or 1.0
    bin_s = max(10.0, 10.0 * math.ceil(duration_s / _RATE_BINS / 10.0)) if duration_s > 60 else 1.0
    edges = np.arange(math.ceil(duration_s / bin_s) + 1) * bin_s
    counts, _ = np.histogram(trace.arrival_s, edges)
    mean_rps = len(trace) / duration_s
    axes.stairs(counts / bin_s, edges, fill=True, color=_BLUE, alpha=0.75, label=f"per {bin_s:g} s")
    axes.axhline(mean_rps, color="black", linewidth=1.2, label=f"mean {mean_rps:.2f}/s")
    axes.axhline(
        peak_rps, color="black", linewidth=1.2, linestyle="--", label=f"busiest 60 s {peak_rps:.2f}/s"
    )
    axes.set(title="Request rate", xlabel="time (s)", ylabel="requests per second")
    axes.set_xlim(0, duration_s)
    axes.legend(loc="upper right", ncols=3)


def _draw_lengths(
    axes: Axes, kind: str, tokens: NDArray[np.int64], figures: LengthSummary, color: str
) -> None:
    axes.hist(tokens, bins=_log_bins(tokens).tolist(), color=color, alpha=0.75)
    for value, style, label in (
        (figures.mean, "-", "mean"),
        (figures.p50, "--", "p50"),
        (figures.p99, ":", "p99"),
    ):
        axes.axvline(value, color="black", linestyle=style, linewidth=1.2, label=f"{label} {value:,.0f}")
    axes.set_xscale("log")
    axes.set(title=f"{kind} lengths", xlabel=f"{kind.lower()} length (tokens)", ylabel="requests")
    axes.legend()


def _log_bins(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    low, high = max(float(tokens.min()), 1.0), float(tokens.max()) + 1.0
    # Whole edges: between fractional ones, bins of short lengths would stay empty.
    return np.unique(np.round(np.geomspace(low, high, _LENGTH_BINS))) - 0.5
