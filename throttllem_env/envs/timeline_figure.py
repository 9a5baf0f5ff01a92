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
    """

    title: str
    start_s: float
    end_s: float
    top_mhz: int
    sizes: tuple[int, ...]
    reference_power_w: float
    ahead_s: float


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
    time_s = timeline.column("time_s") - frame.start_s
    draw = (_clock, _size, _batch, _kv, _queue, _power)
    for axes, draw_panel in zip(panels, draw, strict=True):
        _prepare(axes, frame)
        draw_panel(axes, time_s, timeline, frame)
        axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.04), frameon=False, labelcolor=_INK)
    panels[-1].set_xlabel("time since the episode began (s)", color=_INK)
    figure.align_ylabels(panels)
    _headline(figure, time_s, timeline, frame)
    return figure


def figure_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Rasterise a figure with an Agg canvas to uint8[height, width, 3]."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _headline(figure: Figure, time_s: FloatArray, timeline: Timeline, frame: Frame) -> None:
    """Title, and the episode so far in numbers."""
    inside = np.flatnonzero(time_s >= 0)
    first = int(inside[0]) if len(inside) else 0
    energy_kj = (timeline.energy_j[-1] - timeline.energy_j[first]) / 1000
    missed = timeline.violations[-1] - timeline.violations[first]
    mean_mhz = timeline.column("frequency_mhz")[first:].mean()
    figure.text(0.085, 0.963, frame.title, fontsize=14, fontweight="bold", color=_INK)
    facts = (
        f"t = {time_s[-1]:.0f} s   energy {energy_kj:.1f} kJ   mean clock {mean_mhz:.0f} MHz   "
        f"deadlines missed or requests refused: {missed:.0f}"
    )
    figure.text(0.085, 0.932, facts, fontsize=10, color=_QUIET)


def _prepare(axes: Axes, frame: Frame) -> None:
    """Quiet axes, the run-in shaded."""
    axes.set_xlim(-frame.start_s, frame.end_s - frame.start_s)
    axes.axvspan(-frame.start_s, 0.0, color="#f3f4f6", zorder=0)
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


def _clock(axes: Axes, time_s: FloatArray, timeline: Timeline, frame: Frame) -> None:
    axes.step(time_s, timeline.frequency_mhz, where="post", color=_GREEN, linewidth=1.6, label="clock")
    _reference(axes, frame.top_mhz, "top clock")
    axes.set_ylim(0, frame.top_mhz * 1.12)
    axes.set_ylabel("clock\n(MHz)")
    if frame.start_s > 0:
        place = axes.get_xaxis_transform()
        axes.text(
            -frame.start_s / 2, 0.06, "run-in", transform=place, ha="center", fontsize=8.5, color=_QUIET
        )


def _size(axes: Axes, time_s: FloatArray, timeline: Timeline, frame: Frame) -> None:
    gpus = timeline.column("gpus")
    _area(axes, time_s, gpus, _PURPLE, label="allocated, with\nwarming, draining")
    axes.step(time_s, timeline.size, where="post", color=_PURPLE, linewidth=1.6, label="active instance")
    axes.set_ylim(0, max(frame.sizes[-1], gpus.max()) * 1.15)
    axes.set_yticks(frame.sizes)
    axes.set_ylabel("size\n(GPUs)")


def _batch(axes: Axes, time_s: FloatArray, timeline: Timeline, frame: Frame) -> None:
    _against_projection(axes, time_s, timeline.column("batch"), timeline.column("projected_batch"), frame)
    axes.set_ylabel("batch\n(requests)")


def _kv(axes: Axes, time_s: FloatArray, timeline: Timeline, frame: Frame) -> None:
    used, projected = 100 * timeline.column("kv_share"), 100 * timeline.column("projected_kv_share")
    _against_projection(axes, time_s, used, projected, frame)
    axes.set_ylabel("KV cache\n(%)")


def _against_projection(
    axes: Axes, time_s: FloatArray, actual: FloatArray, projected: FloatArray, frame: Frame
) -> None:
    """What happened as an area, what was projected for the same moments on top of it."""
    _area(axes, time_s, actual, _BLUE)
    axes.step(time_s, actual, where="post", color=_BLUE, linewidth=1.4, label="actual")
    label = f"projected {frame.ahead_s:g} s\nbefore"
    axes.step(
        time_s, projected, where="post", color=_ORANGE, linewidth=1.2, linestyle=(0, (3, 1.2)), label=label
    )
    axes.set_ylim(0, max(float(np.nanmax(np.concatenate([actual, projected]))) * 1.15, 1.0))


def _queue(axes: Axes, time_s: FloatArray, timeline: Timeline, frame: Frame) -> None:
    queue = timeline.column("queue")
    _area(axes, time_s, queue, _TEAL)
    axes.step(time_s, queue, where="post", color=_TEAL, linewidth=1.2, label="waiting")
    new = np.diff(timeline.column("violations"), prepend=timeline.violations[0])
    missed = np.flatnonzero(new > 0)
    top = max(float(queue.max()) * 1.25, 4.0)
    marks: dict[str, Any] = {"s": 14 + 6 * new[missed], "color": _RED, "marker": "v", "linewidths": 0}
    axes.scatter(time_s[missed], np.full(len(missed), 0.9 * top), label="deadline missed", **marks)
    axes.set_ylim(0, top)
    axes.set_ylabel("queue\n(requests)")


def _power(axes: Axes, time_s: FloatArray, timeline: Timeline, frame: Frame) -> None:
    power_w = timeline.column("power_w")
    _area(axes, time_s, power_w, _RED, step="pre")
    axes.step(time_s, power_w, where="pre", color=_RED, linewidth=1.3, label="all allocated\nGPUs")
    _reference(axes, frame.reference_power_w, "top clock at\nrated load")
    axes.set_ylim(0, max(float(power_w.max()), frame.reference_power_w) * 1.15)
    axes.set_ylabel("power\n(W)")
