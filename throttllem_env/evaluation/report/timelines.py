"""One run as a function of time, beside another one: panels over one axis that can be zoomed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from throttllem_env.evaluation.plots.style import PALETTE, TARGET
from throttllem_env.evaluation.report.look import blank
from throttllem_env.evaluation.report.parts import Chart, Key, Section
from throttllem_env.evaluation.report.source import Source
from throttllem_env.evaluation.report.summary import best_entry
from throttllem_env.evaluation.report.thinning import envelope
from throttllem_env.evaluation.sweeps.run_file import Run
from throttllem_env.serving.timeline import PROJECT_AHEAD_S
from throttllem_env.types import FloatArray

if TYPE_CHECKING:
    from bokeh.models import ColumnDataSource, Range1d
    from bokeh.plotting import figure

MOST_VALUES = 440_000
"""In all timelines of the page; four bytes each, and a third more as text."""

FEWEST_POINTS = 300
"""In each timeline that is drawn; rather leave runs out than show less of them."""

KINDS = ("line", "marks")
SHOWN, PROJECTED, BESIDE = PALETTE[1], PALETTE[2], "#999999"


@dataclass(frozen=True, slots=True)
class Panel:
    """One quantity.

    Attributes:
        column: What happened.
        label: On the y axis.
        projected: What was projected, if it was.
        step: Whether it holds from one sample to the next.
        fixed: Whether the axis is the same for all runs; else it fits what is shown.
    """

    column: str
    label: str
    projected: str = ""
    step: bool = False
    fixed: bool = True


PANELS = (
    Panel("clock", "clock (MHz)", step=True),
    Panel("size", "size (GPUs)", step=True),
    Panel("batch", "batch", "projected_batch"),
    Panel("kv", "KV (%)", "projected_kv"),
    Panel("queue", "queue", fixed=False),
    Panel("power", "power (W)"),
    Panel("missed", "late so far", step=True, fixed=False),
)
"""What is drawn, from top to bottom."""


def drawn_runs(source: Source) -> tuple[list[Run], int]:
    """Which runs are drawn, and with how many points each.

    All of them if each may have enough points; else the first seed of every agent, as many as there is room
    for.
    """
    columns = 1 + sum(2 if panel.projected else 1 for panel in PANELS)
    runs = list(source.runs)
    if len(runs) * columns * FEWEST_POINTS > MOST_VALUES:
        runs = [source.of(agent)[0] for agent in source.agents if source.of(agent)]
        runs = runs[: MOST_VALUES // (columns * FEWEST_POINTS)]
    return runs, MOST_VALUES // (columns * max(len(runs), 1))


def columns_of(run: Run, most: int) -> dict[str, FloatArray]:
    """What is drawn of a run, float64[n] each, in the units of the panels.

    Args:
        run: The run.
        most: Points that may be left.
    """
    line = run.result.timeline
    columns = {
        "time_s": line.column("time_s"),
        "clock": line.column("frequency_mhz"),
        "size": line.column("size"),
        "batch": line.column("batch"),
        "projected_batch": line.column("projected_batch"),
        "kv": 100 * line.column("kv_share"),
        "projected_kv": 100 * line.column("projected_kv_share"),
        "queue": line.column("queue"),
        "power": line.column("power_w"),
        "missed": line.column("violations"),
    }
    return envelope(columns, most)


def timelines(source: Source) -> Section | None:
    """Draw the runs; None where no files of runs are there.

    Args:
        source: The comparison.
    """
    runs, most = drawn_runs(source)
    if not runs:
        return None
    lead = [
        "One run, and in grey another one beside it. Choose both below; drag across a panel to zoom in, or "
        "use the buttons. Red lines stand where a deadline passed unmet or a request was refused.",
    ]
    if len(runs) < len(source.document["runs"]):
        lead.append(f"{len(runs)} of {len(source.document['runs'])} runs are drawn.")
    longest = max(len(run.result.timeline.time_s) for run in runs)
    if longest > most:
        lead.append(
            f"Samples are a second apart; of every {2 * longest / most:.0f} in a row the least and the "
            "greatest value are drawn, so that no peak is lost."
        )
    return Section("timelines", "What happened, second by second", lead, charts=[_chart(source, runs, most)])


def run_names(source: Source) -> list[str]:
    """The runs that are drawn, for the page's lists."""
    runs = drawn_runs(source)[0]
    one_seed = len({run.seed for run in runs}) == 1
    return [run.agent if one_seed else f"{run.agent}, seed {run.seed}" for run in runs]


def _chart(source: Source, runs: list[Run], most: int) -> Chart:
    from bokeh.layouts import column
    from bokeh.models import Range1d

    data = [_sources(columns_of(run, most)) for run in runs]
    first, beside = _chosen(source, runs)
    shown = [_copy(part, f"shown-{kind}", first) for kind, part in zip(KINDS, data[first], strict=True)]
    other = _copy(data[beside][0], "beside-line", beside)
    end = max(float(run.result.metrics["duration_s"]) for run in runs) / 60
    zoom = Range1d(0, end, bounds=(0, end), name="zoom")
    tops = {p.column: max(max(s.data[p.column]) for s, _ in data) for p in PANELS if p.fixed}
    plots = list(_plots(tops, zoom, shown, other))
    # Bokeh sends models along that hang on a tag; the page's script moves their data into what is drawn.
    layout = column(
        *plots, sizing_mode="stretch_width", name="timelines", tags=[m for pair in data for m in pair]
    )
    return Chart(
        "timelines-plot",
        "Clock, size, batch, KV cache, queue, power and late requests",
        f"Projected is what the forecast said {PROJECT_AHEAD_S:g} s before. Power is of all allocated GPUs.",
        layout,
        keys=[
            Key(SHOWN, "the run"),
            Key(PROJECTED, "projected (dashed)"),
            Key(BESIDE, "the run beside it"),
            Key(TARGET, "a deadline missed"),
        ],
    )


def _copy(source: "ColumnDataSource", name: str, run: int) -> "ColumnDataSource":
    """The same data under a name that the page's script knows, tagged with the run that they are of."""
    from bokeh.models import ColumnDataSource

    return ColumnDataSource(dict(source.data), name=name, tags=[run])


def _chosen(source: Source, runs: list[Run]) -> tuple[int, int]:
    """Places of the run that is shown at first, and of the one beside it: the best agent over the first."""
    best = best_entry(source.document)
    shown = next((i for i, run in enumerate(runs) if best and run.agent == best["agent"]), len(runs) - 1)
    return shown, 0


def _sources(columns: dict[str, FloatArray]) -> "tuple[ColumnDataSource, ColumnDataSource]":
    """A run as what Bokeh draws: its columns, and when deadlines passed."""
    from bokeh.models import ColumnDataSource

    data = {name: values.astype(np.float32) for name, values in columns.items() if name != "time_s"}
    minute = (columns["time_s"] / 60).astype(np.float32)
    missed = np.diff(columns["missed"], prepend=0.0) > 0
    return ColumnDataSource({"minute": minute, **data}), ColumnDataSource({"minute": minute[missed]})


def _plots(
    tops: dict[str, float], zoom: "Range1d", shown: "list[ColumnDataSource]", other: "ColumnDataSource"
) -> "Iterator[figure]":
    from bokeh.models import CrosshairTool, Span

    cross = Span(dimension="height", line_color="#777777", line_width=1)
    for panel in PANELS:
        last = panel is PANELS[-1]
        plot = blank(
            140 if last else 105, "time of the trace (minutes)" if last else "", panel.label, x_range=zoom
        )
        plot.vspan("minute", source=shown[1], line_color=TARGET, line_alpha=0.35)
        _draw(plot, panel, panel.column, other, {"color": BESIDE, "line_width": 1.2})
        _draw(plot, panel, panel.column, shown[0], {"color": SHOWN, "line_width": 1.6})
        if panel.projected:
            _draw(
                plot,
                panel,
                panel.projected,
                shown[0],
                {"color": PROJECTED, "line_width": 1.4, "line_dash": [5, 3]},
            )
        plot.y_range.start = 0
        if panel.fixed:
            plot.y_range.end = 1.1 * tops[panel.column]
        plot.yaxis.ticker.desired_num_ticks = 4
        plot.min_border_left = 70
        plot.xaxis.visible = last
        plot.add_tools(CrosshairTool(overlay=cross), *_tools(panel, plot))
        yield plot


def _draw(
    plot: "figure", panel: Panel, column: str, source: "ColumnDataSource", look: dict[str, Any]
) -> None:
    if panel.step:
        plot.step("minute", column, source=source, mode="after", **look)
    else:
        plot.line("minute", column, source=source, **look)


def _tools(panel: Panel, plot: "figure") -> "Iterator[Any]":
    """Pointing shows the value, dragging zooms."""
    from bokeh.models import BoxZoomTool, HoverTool

    tips = [("minute", "@minute{0.00}"), (panel.label, f"@{panel.column}{{0,0.[0]}}")]
    if panel.projected:
        tips.append(("projected", f"@{panel.projected}{{0,0.[0]}}"))
    yield HoverTool(renderers=[plot.renderers[2]], tooltips=tips, mode="vline")
    zoom = BoxZoomTool(dimensions="width")
    yield zoom
    plot.toolbar.active_drag = zoom
