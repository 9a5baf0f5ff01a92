"""How far the runs of a comparison are from the lower bound and from the best schedule in hindsight."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from throttllem_env.evaluation.bound.kept import Found, key, shelf
from throttllem_env.evaluation.bound.lower import Bound
from throttllem_env.evaluation.bound.schedule import Course, Schedule
from throttllem_env.evaluation.bound.search import best_schedule
from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.results import plain
from throttllem_env.evaluation.settings import Settings
from throttllem_env.evaluation.sweeps.place import Place
from throttllem_env.evaluation.sweeps.run_file import Run
from throttllem_env.evaluation.sweeps.workers import Here
from throttllem_env.prediction import Forecaster, ProjectedAdmission, make_length_predictor
from throttllem_env.scenario import Scenario
from throttllem_env.serving.workload import Workload, prepare_workload
from throttllem_env.slo import Slo

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
    seconds: float | None,
    notify: Callable[[str], None] = lambda _: None,
    place: Place | None = None,
) -> dict[str, Any]:
    """What `results` returned, with both bounds, as plain values.

    Args:
        comparison: The runs.
        document: What `results` returned for them.
        seconds: Time for the search; None for what was found earlier, if anything was.
        notify: Told in one line what is under way.
        place: Where to search; None for here.
    """
    bounds = measure(comparison, seconds, notify, place)
    added: dict[str, Any] = plain(with_bounds(document, bounds)) if bounds else document
    return added


def measure(
    comparison: Comparison,
    seconds: float | None,
    notify: Callable[[str], None] = lambda _: None,
    place: Place | None = None,
) -> list[SeedBounds]:
    """Bounds for every replica.

    Where the comparison has a folder they are kept in it, and searching for longer goes on from there.

    Args:
        comparison: The runs.
        seconds: Time for the search, shared by the replicas; None for what was found earlier.
        notify: Told in one line what is under way.
        place: Where to search; None for here.

    Returns:
        By seed; nothing where a replica has no bounds and none may be searched for.
    """
    seeds = sorted({run.seed for run in comparison.runs})
    share_s = None if seconds is None else seconds / max(len(seeds), 1)
    bounds = [_of_seed(comparison, seed, share_s, notify, place or Here()) for seed in seeds]
    complete = [one for one in bounds if one is not None]
    return complete if len(complete) == len(bounds) else []


def _of_seed(
    comparison: Comparison, seed: int, seconds: float | None, notify: Callable[[str], None], place: Place
) -> SeedBounds | None:
    """Both bounds for a replica that has at least one run."""
    scenario, slo = comparison.scenario, comparison.slo
    runs = [run for run in comparison.runs if run.seed == seed]
    held = [run for run in runs if run.result.metrics["slo_attained"]]
    held.sort(key=lambda run: float(run.result.metrics["energy_j"]))
    horizon_s = float(runs[0].result.metrics["duration_s"])
    predictor = comparison.settings.length_predictor
    name = key(scenario, slo, runs[0].trace_digest, horizon_s, seed, predictor)
    kept = shelf(comparison.settings.out) if comparison.settings.out else None
    found = kept.find(name) if kept else None
    if seconds is not None and _may_be_better(found, held, seconds):
        notify(f"bounds of seed {seed}: searching for {seconds:.0f} s")
        starts = [Schedule.of_run(scenario, run.result.timeline, horizon_s) for run in held[:STARTS]]
        arguments = comparison.settings, scenario, slo, seed, horizon_s, starts, seconds, found
        found = place.call(search, arguments)
        if kept:
            kept.folder.mkdir(parents=True, exist_ok=True)
            kept.keep(name, found)
    return None if found is None else SeedBounds(seed, found.lower_j, found.in_time, _best(found, held))


def _may_be_better(found: Found | None, held: list[Run], seconds: float) -> bool:
    """Whether there was less time for what was found, or a run has since undercut it."""
    if found is None or found.seconds < seconds:
        return True
    return bool(held) and float(held[0].result.metrics["energy_j"]) < found.energy_j


def search(
    settings: Settings,
    scenario: Scenario,
    slo: Slo,
    seed: int,
    horizon_s: float,
    starts: list[Schedule],
    seconds: float,
    found: Found | None,
) -> Found:
    """Work out the lower bound, and search for the best schedule; or go on with a search.

    Args:
        settings: Name the trace and what part of it is served.
        scenario: What is served on what.
        slo: The targets.
        seed: The replica.
        horizon_s: Energy counts until then, seconds.
        starts: What the search begins with.
        seconds: How long it may take in all; anew from the start where it has had as long already.
        found: What an earlier one found.
    """
    workload = prepare_workload(
        settings.trace,
        scenario,
        load=settings.load,
        part=settings.split,
        seed=seed,
        duration_s=settings.duration_s,
    )
    gate = _gate(settings, scenario, slo, workload, seed)
    course = Course(scenario, workload.trace, slo, seed, horizon_s, gate)
    spent_s = found.seconds if found and found.seconds < seconds else 0.0
    tried = found.tried if found else 0
    known = [found.schedule] if found else []
    best = best_schedule(course, [*starts, *known], seconds=seconds - spent_s, seed=tried)
    if found:
        lower_j, in_time = found.lower_j, found.in_time
    else:
        lower = Bound(scenario, workload.trace, slo, horizon_s).attained()
        lower_j, in_time = lower.energy_j, lower.in_time
    energy_j = best.energy_j if best.attained else float("inf")
    return Found(lower_j, in_time, best.schedule, energy_j, tried + best.tried, seconds)


def _best(found: Found, held: list[Run]) -> Best:
    """What the search found, or a run that beat it."""
    least_j = float(held[0].result.metrics["energy_j"]) if held else float("inf")
    if not held or found.energy_j <= least_j:
        return Best(found.energy_j, "search", found.tried)
    return Best(least_j, held[0].agent, found.tried)


def _gate(
    settings: Settings, scenario: Scenario, slo: Slo, workload: Workload, seed: int
) -> ProjectedAdmission | None:
    """The admission that the runs had."""
    if scenario.admission != "projected":
        return None
    lengths = make_length_predictor(
        settings.length_predictor,
        workload.trace,
        workload.past,
        seed,
        scenario.output_cap_tokens,
        scenario.engine.max_model_len,
    )
    return ProjectedAdmission(Forecaster.of(scenario, slo, lengths))


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
