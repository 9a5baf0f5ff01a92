"""Energy against SLO attainment, one point per agent."""

from typing import TYPE_CHECKING, Any

import numpy as np

from throttllem_env.evaluation.plots.style import (
    FAINT,
    TARGET,
    blank,
    colours,
    markers,
    nice_energy,
    plain_axes,
    titled,
)
from throttllem_env.evaluation.tables import subtitle
from throttllem_env.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_X = 1.045
"""Where labels begin, in widths of the axes: a column beside the plot, where none covers a point."""


def tradeoff_figure(document: dict[str, Any]) -> "Figure":
    """Draw energy against SLO attainment.

    Args:
        document: What `results` returned, with at least one agent.
    """
    summary = document["summary"]
    figure = blank(11.0, 5.8)
    axes = figure.subplots()
    plain_axes(axes)
    unit, joules = nice_energy(max(_energy(entry) for entry in summary))
    _draw_points(axes, summary, joules)
    _set_limits(axes, summary, joules, document["provenance"]["slo"]["attainment"])
    _draw_target(axes, document["provenance"]["slo"])
    _draw_saving(axes, summary, joules)
    _draw_labels(axes, summary, joules)
    axes.set_xlabel(f"energy of a run ({unit}), less is better; bars: 95 % intervals")
    axes.set_ylabel("requests that meet their E2E SLO (%)")
    titled(figure, _title(summary), subtitle(document))
    return figure


def _energy(entry: dict[str, Any]) -> float:
    return float(entry["means"]["energy_j"] or 0.0)


def _attainment(entry: dict[str, Any]) -> float:
    return 100 * float(entry["means"]["slo_attainment"])


def _title(summary: list[dict[str, Any]]) -> str:
    best = _best(summary)
    if best is None:
        return "Energy against SLO attainment"
    saved, first = best["saving"]["energy"], best["saving"]["against"]
    return f"{best['agent']} uses {100 * saved:.1f} % less energy than {first} and attains its SLOs"


def _best(summary: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The agent that saves most among those that attain their SLOs; None if nobody saves."""
    savers = [
        e for e in summary[1:] if e["slo_attained"] and e["saving"] and (e["saving"]["energy"] or 0) > 0.0005
    ]
    return max(savers, key=lambda entry: entry["saving"]["energy"], default=None)


def _draw_points(axes: "Axes", summary: list[dict[str, Any]], joules: float) -> None:
    colour, marker = (chosen([entry["agent"] for entry in summary]) for chosen in (colours, markers))
    for entry in summary:
        x, y, agent = _energy(entry) / joules, _attainment(entry), entry["agent"]
        axes.errorbar(
            x,
            y,
            xerr=_bars(entry["intervals"]["energy_j"], x, 1 / joules),
            yerr=_bars(entry["intervals"]["slo_attainment"], y, 100),
            color=colour[agent],
            marker=marker[agent],
            # Hollow: its SLOs are not attained.
            markerfacecolor=colour[agent] if entry["slo_attained"] else "white",
            markersize=10,
            elinewidth=1.1,
            capsize=3,
            zorder=3,
        )


def _bars(interval: list[float] | None, centre: float, factor: float) -> FloatArray | None:
    """An interval as distances from its centre, float64[2, 1]."""
    if interval is None:
        return None
    low, high = (bound * factor for bound in interval)
    return np.array([[max(centre - low, 0.0)], [max(high - centre, 0.0)]])


def _set_limits(axes: "Axes", summary: list[dict[str, Any]], joules: float, target: float) -> None:
    """Room around the points; attainments above 100 % do not exist."""
    edges_j = [j for e in summary for j in (_energy(e), *(e["intervals"]["energy_j"] or ()))]
    x = np.array(edges_j) / joules
    lows = [100 * (e["intervals"]["slo_attainment"] or [1.0])[0] for e in summary]
    lowest = min([*(_attainment(entry) for entry in summary), *lows, 100 * target])
    span = max(float(np.ptp(x)), 0.1 * float(x.max()))
    axes.set_xlim(max(float(x.min()) - 0.08 * span, 0.0), float(x.max()) + 0.08 * span)
    room = max(0.18 * (100 - lowest), 0.2)
    axes.set_ylim(lowest - room, 100 + room)
    ticks = [tick for tick in axes.get_yticks() if lowest - room <= tick <= 100 + 1e-9]
    axes.set_yticks(ticks)


def _draw_target(axes: "Axes", slo: dict[str, Any]) -> None:
    target = 100 * slo["attainment"]
    axes.axhline(target, color=TARGET, linestyle="--", linewidth=1.3)
    axes.axhspan(axes.get_ylim()[0], target, color=TARGET, alpha=0.05, linewidth=0)
    axes.annotate(
        f"SLO: {target:g} % within {slo['e2e_s']:.3g} s",
        (0.995, target),
        xycoords=("axes fraction", "data"),
        xytext=(0, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        color=TARGET,
        fontsize=9,
    )


def _draw_saving(axes: "Axes", summary: list[dict[str, Any]], joules: float) -> None:
    """An arrow from the first agent's energy to that of the best."""
    best = _best(summary)
    axes.axvline(_energy(summary[0]) / joules, color=FAINT, linestyle=":", linewidth=1.2)
    if best is None:
        return
    height = (100 + axes.get_ylim()[1]) / 2
    start, end = _energy(summary[0]) / joules, _energy(best) / joules
    axes.plot([end, end], [_attainment(best), height], color=FAINT, linestyle=":", linewidth=1.2)
    axes.annotate(
        "",
        xy=(end, height),
        xytext=(start, height),
        arrowprops={"arrowstyle": "-|>", "color": FAINT, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0},
    )
    saved = f"−{100 * best['saving']['energy']:.1f} %"
    axes.annotate(
        saved,
        ((start + end) / 2, height),
        xytext=(0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=10,
        fontweight="bold",
        color="#333333",
        bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none"},
    )


def _draw_labels(axes: "Axes", summary: list[dict[str, Any]], joules: float) -> None:
    """Names beside the plot, as high as their points where there is room, tied to them by thin lines."""
    order = sorted(summary, key=lambda entry: (_attainment(entry), -_energy(entry)))
    low, high = axes.get_ylim()
    wanted = [(_attainment(entry) - low) / (high - low) for entry in order]
    colour = colours([entry["agent"] for entry in summary])
    for entry, height in zip(order, spread(wanted, gap=0.098), strict=True):
        axes.annotate(
            f"{entry['agent']}\n{_figures(entry)}",
            xy=(_energy(entry) / joules, _attainment(entry)),
            xytext=(LABEL_X, height),
            textcoords="axes fraction",
            va="center",
            ha="left",
            fontsize=9,
            color=colour[entry["agent"]],
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour[entry["agent"]],
                "alpha": 0.35,
                "linewidth": 0.8,
                "shrinkB": 5,
                "relpos": (0, 0.5),
            },
        )


def _figures(entry: dict[str, Any]) -> str:
    saving = entry["saving"]
    parts = [
        f"{_attainment(entry):.2f} % in time",
        "SLOs attained" if entry["slo_attained"] else "SLOs not attained",
    ]
    if saving and saving["energy"]:
        parts.insert(0, f"energy {-saving['energy'] * 100:+.1f} %".replace("-", "−"))
    return ", ".join(parts)


def spread(wanted: list[float], gap: float, high: float = 0.97) -> list[float]:
    """Move heights apart as little as is simple, keeping their order.

    Args:
        wanted: Ascending heights.
        gap: Least distance between neighbours.
        high: Highest place.

    Returns:
        Heights, ascending, at least `gap` apart and at most `high`.

    Example:
        >>> spread([0.5, 0.5, 0.9], gap=0.1)
        [0.5, 0.6, 0.9]
    """
    placed: list[float] = []
    for height in wanted:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    limit = high
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    return placed
