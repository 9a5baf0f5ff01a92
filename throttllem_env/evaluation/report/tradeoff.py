"""Energy against SLO attainment, with the bounds where they are known."""

from statistics import fmean
from typing import TYPE_CHECKING, Any

from throttllem_env.evaluation.plots.style import FAINT, TARGET
from throttllem_env.evaluation.report.look import INK, agent_name, blank, colours, marker_names
from throttllem_env.evaluation.report.parts import Chart, Section
from throttllem_env.evaluation.report.source import Source
from throttllem_env.evaluation.tables import energy_unit

if TYPE_CHECKING:
    from bokeh.plotting import figure

LOWEST_SHOWN = 5.0
"""Attainment is drawn down to this many times the share of requests that may be late."""


def tradeoff(source: Source) -> Section:
    """Draw a point per agent.

    Args:
        source: The comparison.
    """
    document, target = source.document, 100 * source.slo.attainment
    floor = _floor(document, target)
    below = [e["agent"] for e in document["summary"] if 100 * e["means"]["slo_attainment"] < floor]
    reading = (
        "Left is less energy, up is more requests in time; good agents are on the upper left. Hollow symbols "
        "miss an SLO. Bars are 95 % intervals."
    )
    if below:
        reading += f" Drawn on the lower edge because they lie below {floor:g} %: {', '.join(below)}."
    if document.get("bounds"):
        reading += (
            " No run that attains the SLOs can lie in the grey area left of the lower bound; the other line "
            "is the best schedule that a search with full knowledge of the trace found."
        )
    chart = Chart(
        "tradeoff-plot",
        "Energy against requests in time",
        reading,
        _plot(source, floor),
        of_agents=True,
    )
    return Section("tradeoff", "Energy against SLO attainment", charts=[chart])


def _floor(document: dict[str, Any], target: float) -> float:
    """The lowest attainment that is drawn where it is, %: a lower one would leave no room for differences."""
    lowest = max(0.0, 100 - LOWEST_SHOWN * max(100 - target, 1.0))
    shares = [100 * entry["means"]["slo_attainment"] for entry in document["summary"]]
    return float(max(lowest, min([*shares, 100 - 1.6 * (100 - target)])))


def bound_means(document: dict[str, Any]) -> tuple[float, float | None] | None:
    """Means of the lower bound and of the best schedule found, joules; None where they are unknown."""
    bounds = document.get("bounds")
    if not bounds:
        return None
    best = [one["best_j"] for one in bounds]
    return fmean(one["lower_j"] for one in bounds), None if None in best else fmean(best)


def _plot(source: Source, floor: float) -> "figure":
    from bokeh.models import HoverTool

    document = source.document
    unit, joules, digits = energy_unit(document)
    room = (100 - floor) * 0.08
    plot = blank(400, f"energy of a run ({unit})", "requests in time (%)", y_range=(floor - room, 100 + room))
    _draw_bounds(plot, document, joules)
    for entry in document["summary"]:
        _draw_agent(plot, source, entry, joules, floor)
    _draw_target(plot, 100 * source.slo.attainment)
    tips = [
        ("agent", "@agent"),
        ("energy", f"@energy{{0.{'0' * digits}}} {unit}"),
        ("in time", "@attainment{0.00} %"),
        ("SLOs", "@held"),
    ]
    points = [r for r in plot.renderers if "energy" in r.data_source.data]
    plot.add_tools(HoverTool(renderers=points, tooltips=tips))
    return plot


def _draw_agent(plot: "figure", source: Source, entry: dict[str, Any], joules: float, floor: float) -> None:
    agent, means, intervals = entry["agent"], entry["means"], entry["intervals"]
    colour, name = colours(source.agents)[agent], agent_name(source.agents, agent)
    x, y = means["energy_j"] / joules, 100 * means["slo_attainment"]
    shown = max(y, floor)
    across = [j / joules for j in intervals["energy_j"] or ()]
    upright = [max(100 * share, floor) for share in intervals["slo_attainment"] or ()]
    if across:
        plot.segment([across[0]], [shown], [across[1]], [shown], color=colour, line_width=1.5, name=name)
    if upright:
        plot.segment([x], [upright[0]], [x], [upright[1]], color=colour, line_width=1.5, name=name)
    held = bool(entry["slo_attained"])
    data = {
        "energy": [x], "shown": [shown], "attainment": [y], "agent": [agent],
        "held": ["attained" if held else "not attained"],
    }  # fmt: skip
    plot.scatter(
        "energy", "shown", source=data, marker=marker_names(source.agents)[agent], size=13,
        line_color=colour, line_width=2, fill_color=colour if held else "white", name=name,
    )  # fmt: skip


def _draw_target(plot: "figure", target: float) -> None:
    from bokeh.models import Label, Span

    plot.add_layout(
        Span(location=target, dimension="width", line_color=TARGET, line_dash="dashed", line_width=2)
    )
    plot.add_layout(
        Label(
            x=8,
            x_units="screen",
            y=target,
            y_offset=-18,
            text=f"target: {target:g} % in time",
            text_color=TARGET,
            text_font_size="12px",
        )
    )


def _draw_bounds(plot: "figure", document: dict[str, Any], joules: float) -> None:
    from bokeh.models import BoxAnnotation

    means = bound_means(document)
    if means is None:
        return
    lower_j, best_j = means
    plot.add_layout(BoxAnnotation(right=lower_j / joules, fill_color=FAINT, fill_alpha=0.15, line_color=None))
    _bound(plot, lower_j / joules, "lower bound", "dotted", 8)
    if best_j is not None:
        _bound(plot, best_j / joules, "best in hindsight", "dashed", 26)


def _bound(plot: "figure", x: float, text: str, dash: str, bottom_px: int) -> None:
    """An upright line with its name; drawn as data, so that the axis reaches to it."""
    from bokeh.models import Label, Span

    plot.add_layout(Span(location=x, dimension="height", line_color=INK, line_dash=dash, line_width=2))
    plot.scatter([x], [100], size=1, alpha=0)
    plot.add_layout(
        Label(
            x=x, x_offset=4, y=bottom_px, y_units="screen", text=text, text_color=INK, text_font_size="12px"
        )
    )
