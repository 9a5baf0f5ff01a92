"""Where the energy went."""

from statistics import fmean

from throttllem_env.evaluation.plots.style import PALETTE
from throttllem_env.evaluation.report.look import stacked_bars
from throttllem_env.evaluation.report.parts import Cell, Chart, Key, Section, Table, number
from throttllem_env.evaluation.report.source import Source
from throttllem_env.evaluation.tables import energy_unit

PARTS = (
    ("decode_j", "decode", PALETTE[1]),
    ("prefill_j", "prefill", PALETTE[5]),
    ("host_j", "waiting for the host", PALETTE[7]),
    ("idle_j", "idle", "#BBBBBB"),
    ("warming_j", "warming up", PALETTE[2]),
)
"""Parts of the energy of allocated GPUs, as `energy_parts_j` names them."""


def energy(source: Source) -> Section:
    """Draw the parts of each agent's energy.

    Args:
        source: The comparison.
    """
    unit, joules, digits = energy_unit(source.document)
    means = {agent: [_mean(source, agent, part) for part, _, _ in PARTS] for agent in source.agents}
    bars = [
        (label, colour, [m[i] / joules for m in means.values()]) for i, (_, label, colour) in enumerate(PARTS)
    ]
    rows: list[list[Cell]] = []
    for entry in source.document["summary"]:
        agent = entry["agent"]
        cells = [number(value, 1 / joules, digits) for value in means[agent]]
        rows.append([agent, *cells, number(entry["means"]["energy_j"], 1 / joules, digits)])
    heads = ["agent", *(label for _, label, _ in PARTS), "all"]
    chart = Chart(
        "energy-plot",
        "Energy of a run by what it was used for",
        "Means over an agent's runs. Energy is that of all allocated GPUs; of the rest of the machine "
        "nothing is counted.",
        stacked_bars(source.agents, bars, f"energy ({unit})", f"0.{'0' * digits}"),
        keys=[Key(colour, label) for _, label, colour in PARTS],
        table=Table(f"Energy of a run in {unit}.", heads, rows),
    )
    return Section("energy", "Where the energy went", charts=[chart])


def _mean(source: Source, agent: str, part: str) -> float:
    return fmean(entry["energy_parts_j"][part] for entry in source.entries(agent))
