"""How long which clock and which size was held."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from throttllem_env.evaluation.report.look import stacked_bars
from throttllem_env.evaluation.report.parts import Cell, Chart, Key, Section, Table, number
from throttllem_env.evaluation.report.source import Source
from throttllem_env.evaluation.sweeps.run_file import Run
from throttllem_env.types import FloatArray

BANDS = 6
BLUES = ("#DEEBF7", "#C6DBEF", "#9ECAE1", "#6BAED6", "#4292C6", "#2171B5", "#08519C", "#08306B")
"""From light to dark, so that it reads in grey too."""


def residency(source: Source) -> Section | None:
    """Draw shares of time; None where no files of runs are there.

    Args:
        source: The comparison.
    """
    if not source.runs:
        return None
    edges = _band_edges(source)
    bands = [f"{a:.0f} to {b:.0f} MHz" for a, b in pairwise(edges)]
    sizes = source.document["provenance"]["scenario"]["sizes"]
    clocks = _by_agent(source, "frequency_mhz", edges)
    held = _by_agent(source, "size", np.append(np.array(sizes, np.float64), np.inf))
    lead = "Shares of a run's time, from its samples a second apart; means over an agent's runs."
    return Section(
        "residency",
        "Clocks and sizes",
        [lead],
        charts=[
            _chart("clock", bands, clocks),
            _chart("size", [_gpus(size) for size in sizes], held),
        ],
    )


def _gpus(size: int) -> str:
    return "1 GPU" if size == 1 else f"{size} GPUs"


def _band_edges(source: Source) -> FloatArray:
    """Bands of equal width from the lowest to the highest clock that was held, MHz."""
    columns = [run.result.timeline.column("frequency_mhz") for run in source.runs]
    low, high = min(float(c.min()) for c in columns), max(float(c.max()) for c in columns)
    width = max((high - low) / BANDS, 15.0)
    # Clocks are multiples of 15 MHz; the highest belongs to the last band.
    step = 15 * np.ceil(width / 15)
    edges: FloatArray = low + step * np.arange(BANDS + 1)
    return edges[: int(np.searchsorted(edges, high, side="right")) + 1]


def _shares(run: Run, column: str, edges: FloatArray) -> FloatArray:
    """Share of the time from the first to the last sample that a value was in each band, float64[bands]."""
    values, time_s = run.result.timeline.column(column), run.result.timeline.column("time_s")
    lasted_s = np.diff(time_s)
    band = np.clip(np.searchsorted(edges, values[:-1], side="right") - 1, 0, len(edges) - 2)
    shares: FloatArray = np.bincount(band, lasted_s, len(edges) - 1) / max(lasted_s.sum(), 1e-9)
    return shares


def _by_agent(source: Source, column: str, edges: FloatArray) -> dict[str, FloatArray]:
    """Mean shares of every agent with files of runs."""
    shares = {a: [_shares(run, column, edges) for run in source.of(a)] for a in source.agents}
    return {agent: np.mean(found, axis=0) for agent, found in shares.items() if found}


def _chart(what: str, labels: Sequence[str], shares: dict[str, FloatArray]) -> Chart:
    picked = np.linspace(0, len(BLUES) - 1, len(labels)).round().astype(int)
    colours = [BLUES[i] for i in picked]
    parts = [
        (label, colours[i], [100 * float(s[i]) for s in shares.values()]) for i, label in enumerate(labels)
    ]
    rows: list[list[Cell]] = [
        [agent, *(number(float(share), 100) for share in s)] for agent, s in shares.items()
    ]
    return Chart(
        f"{what}s-plot",
        f"How long at which {what}",
        "Darker is higher.",
        stacked_bars(list(shares), parts, "share of time (%)", "0.0"),
        keys=[Key(colour, label) for colour, label in zip(colours, labels, strict=True)],
        table=Table(f"Share of time at each {what}, in %.", ["agent", *labels], rows),
    )
