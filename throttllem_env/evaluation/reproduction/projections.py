"""Section 2: how far projections are from what happens."""

from typing import TYPE_CHECKING, Any

from throttllem_env.evaluation.document import Picture, Section, Table, percent
from throttllem_env.evaluation.reproduction import paper
from throttllem_env.evaluation.reproduction.tasks import Answers, ProjectionTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENGINES = {
    "Llama3-8B TP1": "llama3-8b-a100",
    "Llama2-13B TP2": "llama2-13b-tp2-a100",
    "Llama2-13B TP4": "llama2-13b-tp4-a100",
    "Llama3-70B TP8": "llama3-70b-a100",
}
PREFILLS = ("ignore", "pending", "expected")
REACHES = ("next arrival", "30 s")


def tasks() -> list[ProjectionTask]:
    """One run per engine, throttled by the reference controller at rated load."""
    return [ProjectionTask(scenario, "throttllem") for scenario in ENGINES.values()]


def section(answers: Answers) -> Section:
    """Errors of batch and KV, and drift per iteration by prefill model."""
    found = {engine: answers[task] for engine, task in zip(ENGINES, tasks(), strict=True)}
    reported = ["paper", "next arrival", "", percent(paper.BATCH_ERROR, 2), percent(paper.KV_ERROR, 2)]
    reported += [f"{1000 * paper.DRIFT_S:.2f}", "", ""]
    rows = [_row(engine, reach, by_reach[reach]) for reach in REACHES for engine, by_reach in found.items()]
    return Section(
        "2. Projection error",
        "The first ten minutes of conv at rated load under the reference controller, with true lengths; "
        "every fifth decision's projection is followed iteration by iteration, at the clocks that really "
        "ruled (required to the next arrival: batch at most 0.19 %, KV 2.26 %, drift 0.43 ms). Drift is "
        "the mean difference between projected and real time per iteration.\n\n*Difference:* up to the "
        "next arrival batch and KV are exact, because the scheduler's token budget is replayed and not "
        "only its batch counted. Whoever ignores prefill, as the paper's formula does, is too quick by "
        "the prompt that has just arrived. `expected` counts prompts of the future: too slow up to the "
        "next arrival, which is what it is not meant for, and closest of the three with later arrivals, "
        "where batch and KV miss all who were not there yet.",
        [
            Table(
                "Mean errors of the projections (drift in ms per iteration):",
                ["engine", "up to", "iterations", "batch", "KV", *(f"drift, {p}" for p in PREFILLS)],
                [reported, *rows],
            )
        ],
        [
            Picture(
                "reproduction-projection",
                "Drift per iteration by prefill model, up to the next arrival and over 30 s",
                lambda: _figure(found),
            )
        ],
    )


def _row(engine: str, reach: str, error: dict[str, Any]) -> list[str]:
    drifts = [f"{1000 * error['drift_s'][prefill]:.2f}" for prefill in PREFILLS]
    shares = [percent(error[name], 2 if reach == REACHES[0] else 0) for name in ("batch", "kv")]
    return [engine, reach, f"{error['iterations']:,}", *shares, *drifts]


def _figure(found: dict[str, dict[str, Any]]) -> "Figure":
    from throttllem_env.evaluation.plots.style import PALETTE, TARGET, blank, plain_axes

    figure = blank(9.0, 3.2)
    for axes, reach in zip(figure.subplots(1, 2), REACHES, strict=True):
        for i, prefill in enumerate(PREFILLS):
            values = [1000 * by_reach[reach]["bias_s"][prefill] for by_reach in found.values()]
            places = [place + 0.27 * (i - 1) for place in range(len(found))]
            axes.bar(places, values, 0.25, color=PALETTE[i + 1], label=prefill)
        axes.axhline(1000 * paper.DRIFT_S, color=TARGET, linewidth=1, linestyle="--", label="paper")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(found)), [name.replace(" ", "\n") for name in found], fontsize=8)
        title = f"up to the {reach}" if reach == REACHES[0] else f"over {reach}"
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_ylabel("projected - real time, ms per iteration")
        plain_axes(axes)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure
