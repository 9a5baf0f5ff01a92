"""Distributions of latencies against their SLOs."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from throttllem_env.evaluation.metrics import percentile
from throttllem_env.evaluation.plots.latency import e2e_exceedance, tbt_exceedance
from throttllem_env.evaluation.plots.style import TARGET
from throttllem_env.evaluation.report.look import agent_name, blank, colours, dashes
from throttllem_env.evaluation.report.parts import Cell, Chart, Section, Table, number
from throttllem_env.evaluation.report.source import Source
from throttllem_env.evaluation.sweeps.run_file import Run
from throttllem_env.types import FloatArray

if TYPE_CHECKING:
    from bokeh.plotting import figure

MOST_POINTS = 400
SMALLEST_SHARE = 1e-4
MEANS_AT = 1.4e-4
PERCENTILES = (50, 90, 95, 99, 99.9)

Exceedance = Callable[[list[Run]], tuple[FloatArray, FloatArray]]


def latencies(source: Source) -> Section | None:
    """Draw which share is slower than a given latency; None where no files of runs are there.

    Args:
        source: The comparison.
    """
    if not source.runs:
        return None
    slo = source.slo
    whole = Chart(
        "e2e-plot",
        "From arrival to the last token",
        "The curve says which share of requests took longer. The SLO is held where it passes below the cross "
        f"of both red lines: at most {1 - slo.attainment:.2%} may take longer than {slo.e2e_s:.4g} s.",
        _plot(
            source,
            e2e_exceedance,
            "latency (s)",
            "share of requests that take longer",
            slo.e2e_s,
            1 - slo.attainment,
        ),
        of_agents=True,
        table=_percentiles(source),
    )
    gaps = Chart(
        "tbt-plot",
        "Between one token and the next",
        f"The SLO is for the mean over all tokens, at most {slo.tbt_s * 1e3:g} ms; single tokens may take "
        "longer. Diamonds at the bottom are the means.",
        _plot(
            source,
            tbt_exceedance,
            "time between tokens (ms)",
            "share of tokens that take longer",
            slo.tbt_s * 1e3,
        ),
        of_agents=True,
        table=_gaps(source),
    )
    return Section("latencies", "Latencies against SLOs", charts=[whole, gaps])


def _plot(
    source: Source, curve: Exceedance, x_label: str, y_label: str, slo: float, share: float | None = None
) -> "figure":
    from bokeh.models import HoverTool, NumeralTickFormatter, Span

    plot = blank(340, x_label, y_label, y_axis_type="log", y_range=(SMALLEST_SHARE, 1.2))
    plot.yaxis.formatter = NumeralTickFormatter(format="0.[00]%")
    colour, dash = colours(source.agents), dashes(source.agents)
    for agent in source.agents:
        x, y = thinned(*curve(source.of(agent)))
        data = {"x": x, "share": y, "agent": [agent] * len(x)}
        plot.step(
            "x", "share", source=data, mode="after", color=colour[agent], line_dash=dash[agent],
            line_width=2.2, name=agent_name(source.agents, agent),
        )  # fmt: skip
    plot.x_range.start = 0
    plot.add_tools(
        HoverTool(tooltips=[("agent", "@agent"), ("longer than", "@x{0.0}"), ("share", "@share{0.00%}")])
    )
    plot.add_layout(
        Span(location=slo, dimension="height", line_color=TARGET, line_dash="dashed", line_width=2)
    )
    # Drawn as data, so that the axis reaches to it.
    plot.scatter([1.02 * slo], [1.0], size=1, alpha=0)
    if share:
        plot.add_layout(
            Span(location=share, dimension="width", line_color=TARGET, line_dash="dashed", line_width=2)
        )
    return plot


def _mark_means(plot: "figure", source: Source) -> "figure":
    """A diamond at each agent's mean time between tokens, one above the other."""
    colour = colours(source.agents)
    for i, entry in enumerate(source.document["summary"]):
        agent, mean_s = entry["agent"], entry["means"]["tbt_mean_s"]
        if mean_s is not None:
            plot.scatter(
                [1e3 * mean_s], [MEANS_AT * 1.5**i], marker="diamond", size=12, color=colour[agent],
                name=agent_name(source.agents, agent),
            )  # fmt: skip
    return plot


def thinned(x: FloatArray, share: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A falling curve with fewer points, as far down as it is drawn; its steps keep their places.

    Args:
        x: float64[n], ascending.
        share: float64[n], not ascending, positive or zero.
    """
    seen = np.searchsorted(-share, -SMALLEST_SHARE / 2, side="right")
    x, share = x[: seen + 1], np.maximum(share[: seen + 1], SMALLEST_SHARE / 10)
    if len(x) <= MOST_POINTS:
        return x, share
    wanted = np.geomspace(share[0], share[-1], MOST_POINTS)
    rows = np.unique(np.clip(np.searchsorted(-share, -wanted), 0, len(x) - 1))
    return x[rows], share[rows]


def _percentiles(source: Source) -> Table:
    heads = ["agent", *(f"p{p:g} s" for p in PERCENTILES), "late", "refused", "requests"]
    rows: list[list[Cell]] = []
    for agent in source.agents:
        e2e_s = np.concatenate(
            [run.result.records.requests.e2e_s for run in source.of(agent)] or [np.empty(0)]
        )
        found = [percentile(e2e_s, p) for p in PERCENTILES]
        counts = (_total(source, agent, name) for name in ("slo_violations", "rejected", "requests"))
        cells = [number(s if np.isfinite(s) else None, 1, 1) for s in found]
        rows.append([agent, *cells, *(number(count, 1, 0) for count in counts)])
    return Table(
        "Latency of all runs of an agent together; late counts refused and unfinished ones.", heads, rows
    )


def _total(source: Source, agent: str, metric: str) -> float:
    return float(sum(entry["metrics"][metric] for entry in source.entries(agent)))


def _gaps(source: Source) -> Table:
    rows: list[list[Cell]] = []
    for entry in source.document["summary"]:
        means = entry["means"]
        cells = (number(means[name], 1e3, 1) for name in ("tbt_mean_s", "tbt_p99_s", "ttft_p99_s"))
        rows.append([entry["agent"], *cells])
    heads = ["agent", "mean ms", "p99 ms", "first token, p99 ms"]
    return Table("Time between tokens, and until the first one; means over the runs.", heads, rows)
