"""What all plots share: colours, blank figures without global state, saving."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D46")
"""Okabe and Ito (2008), told apart by colour-blind people; its yellow, faint on white, became brown."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
TARGET = "#A00000"
FAINT = "#777777"
DPI = 130


def colours(agents: Sequence[str]) -> dict[str, str]:
    """One colour per agent, by its place among the agents, so that all plots agree.

    Args:
        agents: In the order in which they were named; the first is black.
    """
    return {agent: PALETTE[i % len(PALETTE)] for i, agent in enumerate(agents)}


def markers(agents: Sequence[str]) -> dict[str, str]:
    """One marker per agent; shifted after eight, so that no pair of marker and colour comes back soon."""
    return {agent: MARKERS[(i + i // len(PALETTE)) % len(MARKERS)] for i, agent in enumerate(agents)}


def blank(width_in: float, height_in: float) -> "Figure":
    """A figure with a canvas of its own; no display and no pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: "Axes") -> None:
    """A light grid, and no frame where nothing is read off."""
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def titled(figure: "Figure", title: str, subtitle: str) -> None:
    """Say what one sees, and below it in small print for which settings."""
    from textwrap import fill

    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    width = int(figure.get_figwidth() * 15)
    # An axes' title is part of the layout; text placed by hand would be drawn over.
    figure.axes[0].set_title(fill(subtitle, width), fontsize=9, color=FAINT, loc="left", pad=10)


def save(figure: "Figure", path: Path) -> Path:
    """Write a PNG.

    Args:
        figure: What to draw.
        path: The file; its folder is made.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a date and a version in it, the same figure gives the same file.
    figure.savefig(path, dpi=DPI, format="png", metadata={"Software": None})
    return path


def nice_energy(most_j: float) -> tuple[str, float]:
    """A unit for energies up to `most_j`, and its joules."""
    return ("kWh", 3.6e6) if most_j >= 3.6e5 else ("kJ", 1e3)
