"""A timeline as a figure: clock, size, batch and KV actual against projected, queue, power.

matplotlib's object-oriented interface on the Agg canvas: no window, no global state.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from throttllem_env.serving.timeline import Timeline
from throttllem_env.types import FloatArray

SIZE_INCHES = (12.0, 9.0)
LONG_S = 1200.0
"""Longer timelines are drawn in minutes and as means over `MEAN_S`; of the clock the swings show too."""

MEAN_S = 60.0
DPI = 100
HEIGHTS = (1.25, 0.8, 1.25, 1.0, 0.8, 1.1)

_INK, _QUIET, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
_BLUE, _ORANGE, _GREEN, _PURPLE, _RED, _TEAL = (
    "#2563eb",
    "#ea8a00",
    "#059669",
    "#7c3aed",
    "#dc2626",
    "#0891b2",
)


@dataclass(frozen=True, slots=True)
class Frame:
    """What is drawn around the samples.

    Attributes:
        title: What was run.
        start_s: When the episode began; time counts from there, the run-in before it is shaded.
        end_s: When it ends: axes do not move while it goes on.
        top_mhz: The top clock.
        sizes: Instance sizes, ascending.
        reference_power_w: Power at the top clock and rated load.
        ahead_s: How long before its moment a projection was made.
        subtitle: Stands below the title; default: the episode so far in numbers.
    """

    title: str
    start_s: float
    end_s: float
    top_mhz: int
    sizes: tuple[int, ...]
    reference_power_w: float
    ahead_s: float
    subtitle: str = ""

    @property
    def long(self) -> bool:
        """Whether seconds would be too fine a unit."""
        return self.end_s - self.start_s > LONG_S

    @property
    def unit_s(self) -> float:
        """Seconds in a unit of the time axis."""
        return 60.0 if self.long else 1.0


def timeline_figure(timeline: Timeline, frame: Frame) -> Figure:
    """Draw a timeline.

    Args:
        timeline: At least one sample.
        frame: Title, limits and references.

    Returns:
        A figure with an Agg canvas.
    """
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(HEIGHTS), 1, sharex=True, height_ratios=list(HEIGHTS))
    figure.subplots_adjust(left=0.085, right=0.84, top=0.905, bottom=0.06, hspace=0.16)
    time = (timeline.column("time_s") - frame.start_s) / frame.unit_s
    draw = (_clock, _size, _batch, _kv, _queue, _power)
    for axes, draw_panel in zip(panels, draw, strict=True):
        _prepare(axes, frame)
        draw_panel(axes, time, timeline, frame)
        axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.04), frameon=False, labelcolor=_INK)
    since = "since the episode began " if frame.start_s else ""
    unit = f"min; curves are means over {MEAN_S:g} s" if frame.long else "s"
    panels[-1].set_xlabel(f"time {since}({unit})", color=_INK)
    figure.align_ylabels(panels)
    figure.text(0.085, 0.963, frame.title, fontsize=14, fontweight="bold", color=_INK)
    figure.text(0.085, 0.932, frame.subtitle or _facts(timeline, frame), fontsize=10, color=_QUIET)
    return figure


def figure_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Rasterise a figure with an Agg canvas to uint8[height, width, 3]."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _facts(timeline: Timeline, frame: Frame) -> str:
    """The episode so far in numbers."""
    time_s = timeline.column("time_s") - frame.start_s
    inside = np.flatnonzero(time_s >= 0)
    first = int(inside[0]) if len(inside) else 0
    energy_kj = (timeline.energy_j[-1] - timeline.energy_j[first]) / 1000
    missed = timeline.violations[-1] - timeline.violations[first]
    mean_mhz = timeline.column("frequency_mhz")[first:].mean()
    return (
        f"t = {time_s[-1]:.0f} s   energy {energy_kj:.1f} kJ   mean clock {mean_mhz:.0f} MHz   "
        f"deadlines missed or requests refused: {missed:.0f}"
    )


def _prepare(axes: Axes, frame: Frame) -> None:
    """Quiet axes, the run-in shaded."""
    run_in = frame.start_s / frame.unit_s
    axes.set_xlim(-run_in, frame.end_s / frame.unit_s - run_in)
    if run_in:
        axes.axvspan(-run_in, 0.0, color="#f3f4f6", zorder=0)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9ca3af")
    axes.tick_params(colors=_QUIET, labelsize=9, length=3)
    axes.yaxis.label.set_color(_INK)
    axes.margins(y=0.1)


def _area(
    axes: Axes,
    time_s: FloatArray,
    values: FloatArray,
    color: str,
    *,
    step: Literal["pre", "post"] = "post",
    label: str | None = None,
) -> None:
    """Fill what lies below a stepped line."""
    axes.fill_between(time_s, values, step=step, color=color, alpha=0.16, linewidth=0, label=label)


def _reference(axes: Axes, value: float, label: str) -> None:
    """A dashed line to compare with."""
    axes.axhline(value, color=_QUIET, linewidth=0.9, linestyle=(0, (4, 3)), label=label)


def _clock(axes: Axes, time: FloatArray, timeline: Timeline, frame: Frame) -> None:
    clock_mhz = timeline.column("frequency_mhz")
    if frame.long:
        axes.step(time, clock_mhz, where="post", color=_GREEN, linewidth=0.5, alpha=0.35, label="clock")
        axes.plot(
            time,
            _shown(timeline, "frequency_mhz", frame),
            color="#064e3b",
            linewidth=1.6,
            label=f"mean over {MEAN_S:g} s",
        )
    else:
        axes.step(time, clock_mhz, where="post", color=_GREEN, linewidth=1.6, label="clock")
    _reference(axes, frame.top_mhz, f"top: {frame.top_mhz} MHz")
    axes.set_ylim(0, frame.top_mhz * 1.12)
    axes.set_ylabel("clock\n(MHz)")
    if frame.start_s > 0:
        middle, place = -frame.start_s / frame.unit_s / 2, axes.get_xaxis_transform()
        axes.text(middle, 0.06, "run-in", transform=place, ha="center", fontsize=8.5, color=_QUIET)


def _shown(timeline: Timeline, name: str, frame: Frame) -> FloatArray:
    """A column as it is drawn: of a long timeline its moving mean, since single seconds would be a band."""
    values = timeline.column(name)
    if not frame.long:
        return values
    known = ~np.isnan(values)
    if known.any():
        values = np.where(known, values, values[known][0])  # nothing is projected for the first seconds
    return moving_mean(timeline.column("time_s"), values, MEAN_S)


def moving_mean(time_s: FloatArray, values: FloatArray, width_s: float) -> FloatArray:
    """Mean over the time around each sample, each value holding until the next.

    Args:
        time_s: float64[n], ascending.
        values: float64[n].
        width_s: Width of the window, cut at both ends.

    Returns:
        float64[n].
    """
    integral = np.concatenate([[0.0], np.cumsum(values[:-1] * np.diff(time_s))])
    edges_s = np.clip([time_s - width_s / 2, time_s + width_s / 2], time_s[0], time_s[-1])
    start, end = (np.interp(edge, time_s, integral) for edge in edges_s)
    return np.asarray((end - start) / (edges_s[1] - edges_s[0]))


def _size(axes: Axes, time: FloatArray, timeline: Timeline, frame: Frame) -> None:
    gpus = timeline.column("gpus")
    _area(axes, time, gpus, _PURPLE, label="allocated, with\nwarming, draining")
    axes.step(time, timeline.size, where="post", color=_PURPLE, linewidth=1.6, label="active instance")
    axes.set_ylim(0, max(frame.sizes[-1], gpus.max()) * 1.15)
    axes.set_yticks(frame.sizes)
    axes.set_ylabel("size\n(GPUs)")


def _batch(axes: Axes, time: FloatArray, timeline: Timeline, frame: Frame) -> None:
    actual, projected = (_shown(timeline, name, frame) for name in ("batch", "projected_batch"))
    _against_projection(axes, time, actual, projected, frame)
    axes.set_ylabel("batch\n(requests)")


def _kv(axes: Axes, time: FloatArray, timeline: Timeline, frame: Frame) -> None:
    used, projected = (100 * _shown(timeline, name, frame) for name in ("kv_share", "projected_kv_share"))
    _against_projection(axes, time, used, projected, frame)
    axes.set_ylabel("KV cache\n(%)")


def _against_projection(
    axes: Axes, time: FloatArray, actual: FloatArray, projected: FloatArray, frame: Frame
) -> None:
    """What happened as an area, what was projected for the same moments on top of it."""
    _area(axes, time, actual, _BLUE)
    axes.step(time, actual, where="post", color=_BLUE, linewidth=1.4, label="actual")
    label = f"projected {frame.ahead_s:g} s\nbefore"
    axes.step(
        time, projected, where="post", color=_ORANGE, linewidth=1.2, linestyle=(0, (3, 1.2)), label=label
    )
    axes.set_ylim(0, max(float(np.nanmax(np.concatenate([actual, projected]))) * 1.15, 1.0))


def _queue(axes: Axes, time: FloatArray, timeline: Timeline, frame: Frame) -> None:
    queue = _shown(timeline, "queue", frame)
    _area(axes, time, queue, _TEAL)
    axes.step(time, queue, where="post", color=_TEAL, linewidth=1.2, label="waiting")
    new = np.diff(timeline.column("violations"), prepend=timeline.violations[0])
    missed = np.flatnonzero(new > 0)
    top = max(float(queue.max()) * 1.25, 4.0)
    marks: dict[str, Any] = {"s": 14 + 6 * new[missed], "color": _RED, "marker": "v", "linewidths": 0}
    axes.scatter(time[missed], np.full(len(missed), 0.9 * top), label="deadline missed", **marks)
    axes.set_ylim(0, top)
    axes.set_ylabel("queue\n(requests)")


def _power(axes: Axes, time: FloatArray, timeline: Timeline, frame: Frame) -> None:
    power_w = _shown(timeline, "power_w", frame)
    _area(axes, time, power_w, _RED, step="pre")
    axes.step(time, power_w, where="pre", color=_RED, linewidth=1.3, label="all allocated\nGPUs")
    _reference(axes, frame.reference_power_w, "top clock at\nrated load")
    axes.set_ylim(0, max(float(power_w.max()), frame.reference_power_w) * 1.15)
    axes.set_ylabel("power\n(W)")
