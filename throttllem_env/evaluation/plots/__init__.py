"""PNG plots of a comparison, for people."""

from pathlib import Path
from typing import Any

from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.plots.latency import latency_figure
from throttllem_env.evaluation.plots.style import save
from throttllem_env.evaluation.plots.timeline import run_figure
from throttllem_env.evaluation.plots.tradeoff import tradeoff_figure
from throttllem_env.evaluation.tensorboard import run_name


def write_plots(comparison: Comparison, document: dict[str, Any], folder: Path) -> list[Path]:
    """Draw energy against attainment, latencies, and the timeline of each agent's first run.

    Args:
        comparison: The runs, at least one.
        document: What `results` returned for them.
        folder: Where to write; made if need be.

    Returns:
        The files.
    """
    paths = [
        save(tradeoff_figure(document), folder / "energy-against-attainment.png"),
        save(latency_figure(comparison), folder / "latencies.png"),
    ]
    for agent in comparison.agents:
        figure = run_figure(comparison, comparison.of(agent)[0])
        paths.append(save(figure, folder / f"timeline-{run_name(agent)}.png"))
    return paths
