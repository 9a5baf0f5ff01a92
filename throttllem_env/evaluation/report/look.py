"""How plots look: the colours of the PNG plots, axes, widths."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from throttllem_env.evaluation.plots.style import MARKERS, PALETTE, colours, markers

if TYPE_CHECKING:
    from bokeh.plotting import figure

__all__ = ["DASHES", "agent_name", "blank", "colours", "dashes", "marker_names", "stacked_bars"]

DASHES = ("solid", "dashed", "dotted", "dotdash")
MARKER_NAMES = dict(
    zip(
        MARKERS,
        ("circle", "square", "triangle", "diamond", "inverted_triangle", "plus", "x", "star"),
        strict=True,
    )
)
INK = "#222222"
FONT_PX = "13px"
ROW_PX = 46


def dashes(agents: Sequence[str]) -> dict[str, str]:
    """One dash pattern per agent: another one whenever the colours begin anew."""
    return {agent: DASHES[i // len(PALETTE) % len(DASHES)] for i, agent in enumerate(agents)}


def marker_names(agents: Sequence[str]) -> dict[str, str]:
    """One marker per agent, as Bokeh names it."""
    return {agent: MARKER_NAMES[marker] for agent, marker in markers(agents).items()}


def agent_name(agents: Sequence[str], agent: str) -> str:
    """Names what is drawn for an agent, so that the page can hide it."""
    return f"agent-{agents.index(agent)}"


def blank(height_px: int, x_label: str, y_label: str, **options: Any) -> "figure":
    """A plot as wide as the page, without tools.

    Args:
        height_px: Its height.
        x_label: What is on the x axis, with its unit.
        y_label: The same of the y axis.
        options: Further options of Bokeh's `figure`.
    """
    from bokeh.plotting import figure

    plot = figure(
        height=height_px,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        x_axis_label=x_label,
        y_axis_label=y_label,
        outline_line_color=None,
        **options,
    )
    for axis in (*plot.xaxis, *plot.yaxis):
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = FONT_PX
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.major_label_text_font_size = "12px"
        axis.minor_tick_line_color = None
    # Room for the last label of the x axis.
    plot.min_border_right = 14
    plot.grid.grid_line_color = "#DDDDDD"
    return plot


def stacked_bars(
    rows: Sequence[str], parts: Sequence[tuple[str, str, Sequence[float]]], x_label: str, form: str
) -> "figure":
    """Horizontal bars made of parts, the first row on top, each under its name.

    Args:
        rows: What each bar stands for.
        parts: Label, colour and one length per row.
        x_label: What lengths are, with their unit.
        form: How lengths are shown when pointed at, as Bokeh writes it.
    """
    from bokeh.models import HoverTool

    places = [float(-i) for i in range(len(rows))]
    plot = blank(60 + ROW_PX * len(rows), x_label, "", y_range=(0.5 - len(rows), 0.55))
    left = [0.0] * len(rows)
    for label, colour, lengths in parts:
        right = [a + b for a, b in zip(left, lengths, strict=True)]
        data = {"row": list(rows), "y": places, "left": left, "right": right, "length": list(lengths)}
        drawn = plot.hbar(
            y="y", left="left", right="right", height=0.5, source=data, fill_color=colour, line_color="white"
        )
        tips = [(label, f"@length{{{form}}}"), ("of", "@row")]
        plot.add_tools(HoverTool(renderers=[drawn], tooltips=tips))
        left = right
    names = {"y": places, "row": list(rows)}
    plot.text(
        x=0, y="y", text="row", source=names, y_offset=-12, text_font_size=FONT_PX, text_color=INK,
        text_baseline="bottom",
    )  # fmt: skip
    plot.x_range.start = 0
    plot.ygrid.grid_line_color = None
    plot.yaxis.visible = False
    plot.min_border_left = 8
    return plot
