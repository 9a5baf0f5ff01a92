"""How much is saved when: the trace in stretches of five minutes, or in hours."""

from dataclasses import dataclass

import numpy as np

from throttllem_env.evaluation.bootstrap import BLOCK_S, Blocks, run_blocks
from throttllem_env.evaluation.report.look import agent_name, blank, colours, dashes
from throttllem_env.evaluation.report.parts import Chart, Number, Section, Table, number
from throttllem_env.evaluation.report.source import Source
from throttllem_env.types import FloatArray

LONGEST_IN_BLOCKS_S = 4 * 3600.0
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Stretches:
    """An agent's runs by time of the trace, all seeds together; one row per stretch.

    Attributes:
        start_s: float64[n], when each begins.
        end_s: float64[n], when it ends.
        energy_j: float64[n], energy of all runs in it.
        arrived: float64[n], requests that arrived in it, of all runs.
        runs: How many runs.
    """

    start_s: FloatArray
    end_s: FloatArray
    energy_j: FloatArray
    arrived: FloatArray
    runs: int

    @property
    def rate_rps(self) -> FloatArray:
        """float64[n], requests per second of a run."""
        rate: FloatArray = self.arrived / self.runs / (self.end_s - self.start_s)
        return rate


def stretches(source: Source, agent: str) -> Stretches | None:
    """Cut an agent's runs; None where their files are not there.

    Args:
        source: The comparison.
        agent: The agent.
    """
    runs = source.of(agent)
    if not runs or len(runs) != len(source.entries(agent)):
        return None
    blocks = Blocks.concatenate([run_blocks(r.result, source.slo, r.seed, replica=True) for r in runs])
    longest_s = max(float(run.result.metrics["duration_s"]) for run in runs)
    step_s = BLOCK_S if longest_s <= LONGEST_IN_BLOCKS_S else HOUR_S
    place = blocks.index * round(BLOCK_S) // round(step_s)
    n = int(place.max()) + 1
    start_s = np.arange(float(n)) * step_s
    end_s = np.append(start_s[1:], longest_s)
    energy_j = np.bincount(place, blocks.energy_j, n).astype(np.float64)
    arrived = np.bincount(place, blocks.arrived, n).astype(np.float64)
    return Stretches(start_s, end_s, energy_j, arrived, len(runs))


def savings(source: Source) -> Section | None:
    """Draw what each agent saves against the first; None where there is nothing to compare.

    Args:
        source: The comparison.
    """
    cut = {agent: found for agent in source.agents if (found := stretches(source, agent))}
    first = source.document["provenance"]["settings"]["agents"][0]
    if first not in cut or len(cut) < 2:
        return None
    saved = {
        a: 1 - s.energy_j / cut[first].energy_j
        for a, s in cut.items()
        if a != first and _alike(s, cut[first])
    }
    lead = (
        f"Energy saved against {first} in each stretch of the trace, and how many requests came in it. The "
        "last stretch has the time after the trace's end, in which the last requests are served."
    )
    return Section(
        "savings", "Saving by time of the trace", [lead], charts=[_chart(source, cut[first], saved)]
    )


def _alike(one: Stretches, other: Stretches) -> bool:
    return one.runs == other.runs and len(one.start_s) == len(other.start_s)


def _chart(source: Source, first: Stretches, saved: dict[str, FloatArray]) -> Chart:
    from bokeh.layouts import column
    from bokeh.models import HoverTool, Range1d

    x_range = Range1d(0, float(first.end_s[-1]) / 60)
    plot = blank(300, "", "energy saved (%)", x_range=x_range)
    colour, dash = colours(source.agents), dashes(source.agents)
    minutes = np.append(first.start_s, first.end_s[-1]) / 60
    for agent, share in saved.items():
        data = {
            "minute": minutes,
            "saved": 100 * np.append(share, share[-1]),
            "agent": [agent] * len(minutes),
        }
        plot.step(
            "minute", "saved", source=data, mode="after", color=colour[agent], line_width=2.5,
            line_dash=dash[agent], name=agent_name(source.agents, agent),
        )  # fmt: skip
    plot.add_tools(
        HoverTool(tooltips=[("agent", "@agent"), ("saves", "@saved{0.0} %"), ("from minute", "@minute{0}")])
    )
    # Drawn as data, so that zero is in sight.
    plot.scatter([0], [0], size=1, alpha=0)
    load = blank(130, "time of the trace (minutes)", "requests/s", x_range=x_range)
    rate = np.append(first.rate_rps, first.rate_rps[-1])
    load.varea_step(x=minutes, y1=np.zeros(len(minutes)), y2=rate, step_mode="after", fill_color="#BBBBBB")
    load.y_range.start = 0
    for drawn in (plot, load):
        drawn.min_border_left = 70
    return Chart(
        "savings-plot",
        "Energy saved, and load",
        "Above zero is less energy than the first agent needed in the same stretch. Grey, below: the load.",
        column(plot, load, sizing_mode="stretch_width"),
        of_agents=True,
        table=_table(first, saved),
    )


def _table(first: Stretches, saved: dict[str, FloatArray]) -> Table:
    spans = zip(first.start_s / 60, first.end_s / 60, strict=True)
    rows: list[list[str | Number]] = []
    for i, (start, end) in enumerate(spans):
        cells = [number(None if np.isnan(s[i]) else float(s[i]), 100) for s in saved.values()]
        rows.append([f"{start:.0f} to {end:.0f}", number(float(first.rate_rps[i]), 1, 2), *cells])
    return Table("Saving in %, by time of the trace.", ["minutes", "requests/s", *saved], rows)
