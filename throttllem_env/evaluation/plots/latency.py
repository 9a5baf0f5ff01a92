"""Distributions of E2E latency and of the time between tokens, with their SLOs."""

from typing import TYPE_CHECKING

import numpy as np

from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.plots.style import TARGET, blank, colours, plain_axes
from throttllem_env.evaluation.sweeps.run_file import Run
from throttllem_env.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALLEST_SHARE = 1e-4
STYLES = ("-", "-", (0, (5, 2)), (0, (3, 1.5)), (0, (1.5, 1.5)), "-.", (0, (6, 3)), ":")
MEANS_AT = 1.5e-4
MOST_POINTS = 2000


def latency_figure(comparison: Comparison) -> "Figure":
    """Draw which share of requests and tokens is slower than a given latency, per agent.

    Args:
        comparison: The runs; those of an agent are taken together.
    """
    figure = blank(12.0, 5.6)
    left, right = figure.subplots(1, 2)
    slo, agents = comparison.slo, comparison.agents
    colour = colours(comparison.settings.agents)
    for i, agent in enumerate(agents):
        runs = comparison.of(agent)
        # Later curves are thinner and dashed, so that one below remains in sight.
        look = {
            "color": colour[agent],
            "linestyle": STYLES[i % len(STYLES)],
            "linewidth": max(4.2 - 0.6 * i, 1.2),
        }
        left.plot(*e2e_exceedance(runs), drawstyle="steps-post", label=agent, **look)
        right.plot(*tbt_exceedance(runs), drawstyle="steps-post", **look)
        right.plot(_mean_tbt_s(runs) * 1e3, MEANS_AT * 1.7**i, marker="D", color=colour[agent], markersize=6)
    _finish(left, "E2E latency (s)", "share of requests that are slower")
    _finish(right, "time between tokens (ms)", "share of tokens that are slower")
    _mark_e2e(left, slo.e2e_s, 1 - slo.attainment)
    _mark_tbt(right, slo.tbt_s * 1e3)
    figure.legend(loc="outside lower center", ncols=min(len(agents), 4), frameon=False, fontsize=9)
    figure.suptitle("How slow are the slowest requests and tokens?", fontsize=13, fontweight="bold")
    return figure


def e2e_exceedance(runs: list[Run]) -> tuple[FloatArray, FloatArray]:
    """Share of requests slower than each latency; one that never completes is slower than all.

    Args:
        runs: Runs of one agent.

    Returns:
        Latencies in seconds, ascending, and shares, float64[n] each.
    """
    requests = [run.result.records.requests for run in runs]
    e2e_s = np.concatenate([r.e2e_s for r in requests])
    done_s = np.sort(e2e_s[np.isfinite(e2e_s)])
    return _thinned(done_s, 1 - np.arange(1, len(done_s) + 1) / max(len(e2e_s), 1))


def tbt_exceedance(runs: list[Run]) -> tuple[FloatArray, FloatArray]:
    """Share of tokens that came later than each time after the one before.

    Args:
        runs: Runs of one agent.

    Returns:
        Times between tokens in milliseconds, ascending, and shares, float64[n] each.
    """
    records = [run.result.records for run in runs]
    gap_s = np.concatenate([r.tbt_gap_s for r in records])
    tokens = np.concatenate([r.tbt_tokens for r in records])
    order = np.argsort(gap_s, kind="stable")
    cumulative = np.cumsum(tokens[order])
    total = cumulative[-1] if len(cumulative) else 1
    return _thinned(gap_s[order] * 1e3, 1 - cumulative / total)


def _thinned(x: FloatArray, share: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fewer points, spread evenly over the logarithm of the share, so that the tail keeps its own."""
    if len(x) <= MOST_POINTS:
        return x, share
    levels = np.geomspace(1.0, max(float(share[share > 0].min()), SMALLEST_SHARE / 10), MOST_POINTS)
    rows = np.unique(np.append(np.searchsorted(-share, -levels), len(x) - 1))
    rows = rows[rows < len(x)]
    return x[rows], share[rows]


def _mean_tbt_s(runs: list[Run]) -> float:
    """Mean over all tokens of all runs."""
    records = [run.result.records for run in runs]
    total = sum(r.tbt_total_s for r in records)
    return total / max(sum(int(r.tbt_tokens.sum()) for r in records), 1)


def _finish(axes: "Axes", x_label: str, y_label: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    plain_axes(axes)
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    axes.set_ylim(SMALLEST_SHARE, 1.3)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share * 100:g} %"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _mark_e2e(axes: "Axes", slo_s: float, allowed: float) -> None:
    """The SLO is a corner: right of its latency, no curve may lie above its share."""
    low, high = axes.get_xlim()
    axes.set_xlim(low, max(high, slo_s * 1.6))
    axes.fill_between([slo_s, axes.get_xlim()[1]], allowed, 2, color=TARGET, alpha=0.08, linewidth=0)
    axes.plot([slo_s, slo_s], [allowed, 2], color=TARGET, linestyle="--", linewidth=1.3)
    axes.plot([slo_s, axes.get_xlim()[1]], [allowed] * 2, color=TARGET, linestyle="--", linewidth=1.3)
    axes.set_title(
        f"E2E SLO: at most {allowed * 100:.3g} % of all requests above {slo_s:.3g} s (red corner)",
        fontsize=10,
        loc="left",
    )


def _mark_tbt(axes: "Axes", slo_ms: float) -> None:
    low, high = axes.get_xlim()
    axes.set_xlim(low, max(high, slo_ms * 1.6))
    axes.axvline(slo_ms, color=TARGET, linestyle="--", linewidth=1.3)
    axes.set_title(
        f"TBT SLO: mean at most {slo_ms:.3g} ms (red line); diamonds: the means",
        fontsize=10,
        loc="left",
    )
