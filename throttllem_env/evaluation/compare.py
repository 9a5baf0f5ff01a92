"""Run agents on the same replicas of a trace, one after another or side by side."""

from collections.abc import Callable
from dataclasses import dataclass

from throttllem_env.controller import Assignment, make_controller
from throttllem_env.evaluation.runner import control_points, run_controller
from throttllem_env.evaluation.settings import Settings
from throttllem_env.evaluation.shares import Shares
from throttllem_env.evaluation.sweeps.identity import (
    agent_identity,
    backend_identity,
    fingerprint,
    scenario_identity,
)
from throttllem_env.evaluation.sweeps.place import Place
from throttllem_env.evaluation.sweeps.run_file import Run, dump_run, load_run
from throttllem_env.evaluation.sweeps.sweep import Failed, Shelf, sweep
from throttllem_env.evaluation.sweeps.workers import open_place
from throttllem_env.prediction import make_length_predictor
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving.workload import TraceSource, Workload, is_synthetic, prepare_workload
from throttllem_env.slo import Slo
from throttllem_env.traces import load_trace

Notify = Callable[[str], None]
"""Told in one line what a person wants to know while it runs."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that did not come to its end.

    Attributes:
        agent: The controller as it was named.
        seed: Seed of the run.
        error: Kind and message, on one line.
        traceback: Where it came from.
    """

    agent: str
    seed: int
    error: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of a comparison, agents in the order in which they were named, then seeds.

    Attributes:
        settings: What was asked for.
        scenario: What was served on what.
        slo: The targets, scaled.
        runs: Those that came to their end.
        failures: Those that did not.
    """

    settings: Settings
    scenario: Scenario
    slo: Slo
    runs: tuple[Run, ...]
    failures: tuple[Failure, ...]

    @property
    def agents(self) -> tuple[str, ...]:
        """Agents with at least one run, in the order in which they were named."""
        return tuple(a for a in self.settings.agents if any(run.agent == a for run in self.runs))

    def of(self, agent: str) -> list[Run]:
        """The runs of an agent, by seed."""
        return [run for run in self.runs if run.agent == agent]


def compare(settings: Settings, shares: Shares | None = None, notify: Notify = lambda _: None) -> Comparison:
    """Run every agent on every seed.

    A run that fails is reported in the result and leaves the others alone. Where the settings have a folder,
    every run is kept in it as soon as it is done, and is not run again.

    Args:
        settings: What to compare.
        shares: Told how far each run is: `len(settings.agents) * settings.seeds` numbers.
        notify: Told which cluster is used, and how many runs were there.

    Raises:
        ValueError: Bad input, found before the first run; names the field, the value and what is valid.
    """
    scenario = check(settings)
    with open_place(settings.jobs, settings.cluster) as place:
        if place.description:
            notify(place.description)
        return compare_in(place, settings, scenario, shares, notify)


def compare_in(
    place: Place, settings: Settings, scenario: Scenario, shares: Shares | None, notify: Notify
) -> Comparison:
    """The same in a place that is open already.

    Args:
        place: Where runs are made.
        settings: What to compare, checked.
        scenario: What `check` returned for them.
        shares: Told how far each run is.
        notify: Told how many runs were there.
    """
    slo = scenario.latency_slo(settings.slo_scale)
    pairs = [(agent, seed) for agent in settings.agents for seed in range(settings.seeds)]
    done = _run_all(place, settings, scenario, pairs, shares, notify)
    runs = tuple(run for run in done if isinstance(run, Run))
    failures = tuple(
        Failure(*pair, run.error, run.traceback)
        for pair, run in zip(pairs, done, strict=True)
        if isinstance(run, Failed)
    )
    return Comparison(settings, scenario, slo, runs, failures)


def check(settings: Settings) -> Scenario:
    """Load everything once, so that wrong input is found before long work begins.

    Args:
        settings: What to compare.

    Returns:
        The scenario.

    Raises:
        ValueError: Names the field, the value and what is valid.
    """
    settings.check()
    scenario = load_scenario(settings.scenario)
    slo = scenario.latency_slo(settings.slo_scale)
    controllers = [make_controller(agent) for agent in settings.agents]
    workload = _workload(settings, scenario, seed=0)
    if not len(workload.trace):
        what = f"split {settings.split!r}, duration_s = {settings.duration_s}"
        raise ValueError(f"trace = {settings.trace!r}: no request in {what}; choose a longer part")
    lengths = make_length_predictor(
        settings.length_predictor,
        workload.trace,
        workload.past,
        0,
        scenario.output_cap_tokens,
        scenario.engine.max_model_len,
    )
    for controller in controllers:
        controller.reset(Assignment(scenario, slo, lengths, seed=0))
    return scenario


def run_one(
    settings: Settings,
    scenario: Scenario,
    agent: str,
    seed: int,
    progress: Callable[[float], None] | None = None,
    source: TraceSource | None = None,
) -> Run:
    """Run one agent on one replica.

    Args:
        settings: What is common to all runs.
        scenario: What is served on what.
        agent: The controller.
        seed: The replica.
        progress: Told how far the run is, from 0 to 1.
        source: The trace that the settings name, where it cannot be read here.
    """
    workload = _workload(settings, scenario, seed, source)
    result = run_controller(
        make_controller(agent),
        scenario,
        workload,
        slo=scenario.latency_slo(settings.slo_scale),
        length_predictor=settings.length_predictor,
        control=settings.control,
        backend=settings.backend,
        seed=seed,
        progress=progress,
    )
    digests = workload.trace.digest(), workload.past.digest()
    return Run(agent, seed, *digests, workload.over_length, workload.speed, result)


def _workload(
    settings: Settings, scenario: Scenario, seed: int, source: TraceSource | None = None
) -> Workload:
    return prepare_workload(
        settings.trace if source is None else source,
        scenario,
        load=settings.load,
        part=settings.split,
        seed=seed,
        duration_s=settings.duration_s,
    )


def _run_all(
    place: Place,
    settings: Settings,
    scenario: Scenario,
    pairs: list[tuple[str, int]],
    shares: Shares | None,
    notify: Notify,
) -> list[Run | Failed]:
    """Run all pairs that are not there yet; the results of all, in order."""
    numbers = shares.open() if shares else None
    keys = _keys(settings, scenario, pairs)
    far = shares if place.shared_memory else None
    source = None if place.shared_memory else _shared_trace(place, settings.trace)
    common = settings, scenario, source, far
    calls = {key: (*common, *pair, index) for index, (key, pair) in enumerate(zip(keys, pairs, strict=True))}
    costs = {agent: _cost(agent, settings.control) for agent in settings.agents}
    longest_first = sorted(calls.items(), key=lambda item: costs[item[1][-3]], reverse=True)

    def finished(key: str) -> None:
        if numbers is not None:
            numbers[calls[key][-1]] = 1.0

    def started(there: set[str]) -> None:
        for key in there:
            finished(key)
        if there:
            notify(f"continuing: {len(there)} of {len(calls)} runs were there")

    shelf = Shelf(settings.out / "runs", ".npz", dump_run, load_run) if settings.out else None
    done = sweep(
        place, _run, dict(longest_first), shelf, fresh=settings.fresh, on_start=started, on_result=finished
    )
    return [done[key] for key in keys]


def _cost(agent: str, control: str) -> tuple[bool, bool, float]:
    """Order of agents by how long their runs take: who reads what, and how often, is most of it.

    Long runs begin first, so that no worker is left with one when all others are done.
    """
    controller = make_controller(agent)
    events = control_points(controller, control) == "events"
    return events, controller.needs_observation, 1 / controller.period_s


def _run(
    settings: Settings,
    scenario: Scenario,
    source: TraceSource | None,
    shares: Shares | None,
    agent: str,
    seed: int,
    index: int,
) -> Run:
    """One run, which writes down how far it is where the others can see it."""
    numbers = shares.open() if shares else None

    def report(share: float) -> None:
        if numbers is not None:
            # The last bit is for the process that keeps the result.
            numbers[index] = min(share, 0.999)

    return run_one(settings, scenario, agent, seed, report, source)


def _shared_trace(place: Place, trace: str) -> TraceSource | None:
    """A recorded trace for workers that may not have its file; None for one that they can generate."""
    return None if is_synthetic(trace) else place.share(load_trace(trace))


def _keys(settings: Settings, scenario: Scenario, pairs: list[tuple[str, int]]) -> list[str]:
    """What determines each run, as a hash; without a folder only names."""
    if settings.out is None:
        return [f"{agent} {seed}" for agent, seed in pairs]
    trace = settings.trace
    common = scenario_identity(scenario) | {
        "trace": trace if is_synthetic(trace) else load_trace(trace).digest(),
        "settings": settings.of_a_run(),
    }
    if backend := backend_identity(settings.backend):
        common["backend"] = backend
    agents = {agent: agent_identity(agent) for agent in settings.agents}
    return [fingerprint({**common, "agent": agents[agent], "seed": seed}) for agent, seed in pairs]
