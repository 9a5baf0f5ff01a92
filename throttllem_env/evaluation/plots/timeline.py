"""One run as a function of time."""

from typing import TYPE_CHECKING

from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.sweeps.run_file import Run
from throttllem_env.serving.timeline import PROJECT_AHEAD_S

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_figure(comparison: Comparison, run: Run) -> "Figure":
    """Draw clock, size, batch, KV cache, queue and power of one run, with its violations.

    Args:
        comparison: Gives settings and scenario.
        run: The run.
    """
    from throttllem_env.envs.timeline_figure import Frame, timeline_figure

    line, metrics, scenario = run.result.timeline, run.result.metrics, comparison.scenario
    missed, requests = metrics["slo_violations"], metrics["requests"]
    frame = Frame(
        title=f"{run.agent}: {missed} of {requests} requests miss their E2E SLO",
        start_s=0.0,
        end_s=line.time_s[-1],
        top_mhz=scenario.top_mhz,
        sizes=scenario.sizes,
        reference_power_w=scenario.reference_power_w,
        ahead_s=PROJECT_AHEAD_S,
        subtitle=_settings(comparison, run),
    )
    return timeline_figure(line, frame)


def _settings(comparison: Comparison, run: Run) -> str:
    settings, scenario = comparison.settings, comparison.scenario
    parts = (
        f"{scenario.name} v{scenario.version}",
        f"trace {settings.trace.rsplit('/', 1)[-1]}",
        f"seed {run.seed}",
        f"load {settings.load:g}",
        f"length predictor {settings.length_predictor}",
        f"E2E SLO {comparison.slo.e2e_s:.3g} s",
    )
    return " · ".join(parts)
