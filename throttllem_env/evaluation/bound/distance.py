"""How far the runs of a comparison are from the lower bound and from the best schedule in hindsight."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from throttllem_env.evaluation.bound.lower import Bound
from throttllem_env.evaluation.bound.schedule import Course, Schedule
from throttllem_env.evaluation.bound.search import best_schedule
from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.results import plain
from throttllem_env.evaluation.sweeps.run_file import Run
from throttllem_env.prediction import Forecaster, ProjectedAdmission, make_length_predictor
from throttllem_env.serving.workload import Workload, prepare_workload

STARTS = 3
"""The best runs whose clocks and sizes the search begins with."""


@dataclass(frozen=True, slots=True)
class Best:
    """The least energy that anything was found to attain the SLOs with.

    Attributes:
        energy_j: Its energy; infinite if nothing attains them.
        by: `search`, or the agent whose run it was.
        tried: Schedules that the search ran.
    """

    energy_j: float
    by: str
    tried: int


@dataclass(frozen=True, slots=True)
class SeedBounds:
    """Both bounds for one replica of the trace.

    Attributes:
        seed: The replica.
        lower_j: No run that attains the SLOs uses less.
        in_time: Requests that must be in time for that.
        best: The best in hindsight.
    """

    seed: int
    lower_j: float
    in_time: int
    best: Best


def bounded(
    comparison: Comparison,
    document: dict[str, Any],
    seconds: float,
    notify: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """What `results` returned, with both bounds, as plain values.

    Args:
        comparison: The runs.
        document: What `results` returned for them.
        seconds: Time for the search.
        notify: Told in one line what is under way.
    """
    added: dict[str, Any] = plain(with_bounds(document, measure(comparison, seconds, notify)))
    return added


def measure(
    comparison: Comparison, seconds: float, notify: Callable[[str], None] = lambda _: None
) -> list[SeedBounds]:
    """Bounds for every replica.

    Args:
        comparison: The runs.
        seconds: Time for the search, shared by the replicas.
        notify: Told in one line what is under way.
    """
    seeds = sorted({run.seed for run in comparison.runs})
    found = []
    for seed in seeds:
        notify(f"bounds of seed {seed}: searching for {seconds / len(seeds):.0f} s")
        found.append(of_seed(comparison, seed, seconds / len(seeds)))
    return found


def of_seed(comparison: Comparison, seed: int, seconds: float) -> SeedBounds:
    """Both bounds for a replica that has at least one run."""
    settings, scenario, slo = comparison.settings, comparison.scenario, comparison.slo
    workload = prepare_workload(
        settings.trace,
        scenario,
        load=settings.load,
        part=settings.split,
        seed=seed,
        duration_s=settings.duration_s,
    )
    runs = [run for run in comparison.runs if run.seed == seed]
    horizon_s = float(runs[0].result.metrics["duration_s"])
    lower = Bound(scenario, workload.trace, slo, horizon_s).attained()
    course = Course(scenario, workload.trace, slo, seed, horizon_s, _gate(comparison, workload, seed))
    return SeedBounds(seed, lower.energy_j, lower.in_time, _best(course, runs, seconds))


def _best(course: Course, runs: list[Run], seconds: float) -> Best:
    """What the search finds, or a run that beat it."""
    held = [run for run in runs if run.result.metrics["slo_attained"]]
    held.sort(key=lambda run: float(run.result.metrics["energy_j"]))
    starts = [Schedule.of_run(course.scenario, r.result.timeline, course.horizon_s) for r in held[:STARTS]]
    found = best_schedule(course, starts, seconds=seconds)
    searched = Best(found.energy_j if found.attained else float("inf"), "search", found.tried)
    if not held or searched.energy_j <= float(held[0].result.metrics["energy_j"]):
        return searched
    return Best(float(held[0].result.metrics["energy_j"]), held[0].agent, found.tried)


def _gate(comparison: Comparison, workload: Workload, seed: int) -> ProjectedAdmission | None:
    """The admission that the runs had."""
    scenario = comparison.scenario
    if scenario.admission != "projected":
        return None
    lengths = make_length_predictor(
        comparison.settings.length_predictor,
        workload.trace,
        workload.past,
        seed,
        scenario.output_cap_tokens,
        scenario.engine.max_model_len,
    )
    return ProjectedAdmission(Forecaster.of(scenario, comparison.slo, lengths))


def with_bounds(document: dict[str, Any], bounds: list[SeedBounds]) -> dict[str, Any]:
    """Add bounds to what `results` returned.

    Args:
        document: Plain values.
        bounds: Of every replica with a run.

    Returns:
        The document with `bounds`, a list by seed, and in each entry of `summary` an entry `above`: by which
        share the mean energy of its runs lies above the mean of either bound; None where a run misses the
        SLOs, since both bounds are for those that attain them.
    """
    by_seed = {one.seed: one for one in bounds}
    entries = [
        {
            "seed": one.seed,
            "lower_j": one.lower_j,
            "in_time": one.in_time,
            "best_j": one.best.energy_j if one.best.energy_j < float("inf") else None,
            "best_by": one.best.by,
            "tried": one.best.tried,
        }
        for one in bounds
    ]
    summary = [
        {**entry, "above": _above([r for r in document["runs"] if r["agent"] == entry["agent"]], by_seed)}
        for entry in document["summary"]
    ]
    return {**document, "bounds": entries, "summary": summary}


def _above(runs: list[dict[str, Any]], by_seed: dict[int, SeedBounds]) -> dict[str, float] | None:
    if not runs or not all(run["metrics"]["slo_attained"] for run in runs):
        return None
    energy_j = fmean(run["metrics"]["energy_j"] for run in runs)
    lower_j = fmean(by_seed[run["seed"]].lower_j for run in runs)
    best_j = fmean(by_seed[run["seed"]].best.energy_j for run in runs)
    return {"lower": energy_j / lower_j - 1, "best": energy_j / best_j - 1}
