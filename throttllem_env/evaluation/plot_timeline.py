"""One run as a function of time."""

from typing import TYPE_CHECKING

import numpy as np

from throttllem_env.evaluation.compare import Comparison, Run
from throttllem_env.evaluation.plot_style import FAINT, PALETTE, TARGET, blank, plain_axes, titled
from throttllem_env.serving.timeline import Timeline
from throttllem_env.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONG_S = 1200.0
MEAN_S = 60.0
ACTUAL, PROJECTED, SECOND = PALETTE[1], PALETTE[5], PALETTE[3]


def timeline_figure(comparison: Comparison, run: Run) -> "Figure":
    """Draw clock, size, batch, KV cache, queue and power of one run, with its violations.

    Args:
        comparison: Gives settings and scenario.
        run: The run.
    """
    line, metrics = run.result.timeline, run.result.metrics
    figure = blank(12.0, 11.0)
    panels = figure.subplots(6, 1, sharex=True, height_ratios=[1.2, 0.9, 1.2, 1.2, 0.9, 1.2])
    time_s, scale = _time_axis(line)
    for axes in panels:
        plain_axes(axes)
        axes.yaxis.set_label_coords(-0.055, 0.5)  # aligned, whatever the width of the numbers
    _draw_clock(panels[0], time_s, line, comparison.scenario.top_mhz)
    _draw_size(panels[1], time_s, line, comparison.scenario.gpus_per_node)
    _draw_pair(panels[2], time_s, line.column("batch"), line.column("projected_batch"), "batch\n(requests)")
    kv = 100 * line.column("kv_share"), 100 * line.column("projected_kv_share")
    _draw_pair(panels[3], time_s, *kv, "KV cache\n(% of blocks)")
    _draw_queue(panels[4], time_s, line)
    _draw_power(panels[5], time_s, line)
    _mark_violations(list(panels), time_s, line)
    panels[-1].set_xlabel(f"time ({scale})")
    panels[-1].set_xlim(0, time_s[-1] or 1.0)
    _title(figure, comparison, run, int(metrics["slo_violations"]), int(metrics["requests"]))
    return figure


def _title(figure: "Figure", comparison: Comparison, run: Run, violations: int, requests: int) -> None:
    settings = comparison.settings
    title = f"{run.agent}, seed {run.seed}: {violations} of {requests} requests miss their E2E SLO"
    parts = [
        f"{comparison.scenario.name} v{comparison.scenario.version}",
        f"trace {settings.trace.rsplit('/', 1)[-1]}",
        f"load {settings.load:g}",
        f"length predictor {settings.length_predictor}",
        f"E2E SLO {comparison.slo.e2e_s:.3g} s",
    ]
    titled(figure, title, ", ".join(parts))


def _time_axis(line: Timeline) -> tuple[FloatArray, str]:
    """Times in seconds, or in minutes for a long run."""
    time_s = line.column("time_s")
    return (time_s / 60, "min") if time_s[-1] > 600 else (time_s, "s")


def _draw_clock(axes: "Axes", time_s: FloatArray, line: Timeline, top_mhz: int) -> None:
    clock_mhz = line.column("frequency_mhz")
    if line.time_s[-1] > LONG_S:
        axes.step(time_s, clock_mhz, where="post", color=ACTUAL, linewidth=0.6, alpha=0.4)
        smooth_mhz = _moving_mean(line.column("time_s"), clock_mhz)
        axes.plot(time_s, smooth_mhz, color="#003A5D", linewidth=1.5, label=f"mean over {MEAN_S:g} s")
        axes.legend(loc="lower right", fontsize=8, framealpha=0.9)
    else:
        axes.step(time_s, clock_mhz, where="post", color=ACTUAL, linewidth=0.9)
    axes.axhline(top_mhz, color=FAINT, linestyle=":", linewidth=1.1)
    axes.annotate(
        f"top clock {top_mhz} MHz",
        (1.0, top_mhz),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
        color=FAINT,
    )
    axes.set_ylim(0, top_mhz * 1.18)
    axes.set_ylabel("clock\n(MHz)")


def _moving_mean(time_s: FloatArray, values: FloatArray) -> FloatArray:
    """Mean over the `MEAN_S` seconds around each sample, weighted by time, float64[n]."""
    integral = np.concatenate([[0.0], np.cumsum(values[:-1] * np.diff(time_s))])
    edges_s = np.clip([time_s - MEAN_S / 2, time_s + MEAN_S / 2], time_s[0], time_s[-1])
    start, end = (np.interp(edge, time_s, integral) for edge in edges_s)
    return np.asarray((end - start) / (edges_s[1] - edges_s[0]))


def _draw_size(axes: "Axes", time_s: FloatArray, line: Timeline, gpus_per_node: int) -> None:
    gpus, size = line.column("gpus"), line.column("size")
    axes.fill_between(
        time_s, gpus, step="post", color=SECOND, alpha=0.25, linewidth=0, label="GPUs allocated, warming too"
    )
    axes.step(time_s, size, where="post", color=SECOND, linewidth=1.6, label="size of the active instance")
    axes.set_ylim(0, max(float(gpus.max()), 1.0) * 1.55)
    axes.set_yticks(range(0, int(gpus.max()) + 1, 1 if gpus.max() <= 4 else 2))
    axes.set_ylabel(f"GPUs\n(of {gpus_per_node})")
    axes.legend(loc="upper right", ncols=2, fontsize=8, frameon=False)


def _draw_pair(
    axes: "Axes", time_s: FloatArray, actual: FloatArray, projected: FloatArray, label: str
) -> None:
    """What happened, over what had been projected for that moment 5 s before."""
    axes.plot(time_s, projected, color=PROJECTED, linewidth=1.4, label="projected 5 s before")
    axes.plot(time_s, actual, color=ACTUAL, linewidth=0.9, label="actual")
    highest = np.nanmax(np.concatenate([actual, projected, [1.0]]))
    axes.set_ylim(0, highest * 1.3)
    axes.set_ylabel(label)
    axes.legend(loc="upper right", ncols=2, fontsize=8, frameon=False)


def _draw_queue(axes: "Axes", time_s: FloatArray, line: Timeline) -> None:
    queue = line.column("queue")
    axes.fill_between(time_s, queue, step="post", color=PALETTE[6], linewidth=0, alpha=0.9)
    axes.set_ylim(0, max(float(queue.max()), 1.0) * 1.4)
    axes.set_ylabel("queue\n(requests)")


def _draw_power(axes: "Axes", time_s: FloatArray, line: Timeline) -> None:
    power_w = line.column("power_w")
    # A sample's power is the mean since the one before it; the first has no such interval.
    axes.step(time_s[1:], power_w[1:], color=PALETTE[4], linewidth=0.9)
    mean_w = line.energy_j[-1] / line.time_s[-1] if line.time_s[-1] else 0.0
    axes.axhline(mean_w, color="#333333", linestyle="--", linewidth=1.1, label=f"mean {mean_w:,.0f} W")
    axes.set_ylim(0, float(power_w.max()) * 1.3 or 1.0)
    axes.set_ylabel("power of all\nallocated GPUs (W)")
    axes.legend(loc="upper right", fontsize=8, frameon=False)


def _mark_violations(panels: "list[Axes]", time_s: FloatArray, line: Timeline) -> None:
    """Shade each second in which a deadline passed or a request was refused."""
    new = np.flatnonzero(np.diff(line.column("violations"), prepend=0.0) > 0)
    for axes in panels:
        for index in new:
            start = time_s[index - 1] if index else 0.0
            axes.axvspan(start, time_s[index], color=TARGET, alpha=0.22, linewidth=0.6, zorder=0)
    if len(new):
        panels[4].annotate(
            f"red: a deadline passed unmet ({int(line.violations[-1])} in all)",
            (0.995, 0.93),
            xycoords="axes fraction",
            ha="right",
            va="top",
            fontsize=8,
            color=TARGET,
        )
