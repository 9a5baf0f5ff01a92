"""Run agents on the same replicas of a trace, one after another or side by side."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from throttllem_env.controller import Assignment, make_controller
from throttllem_env.evaluation.runner import RunResult, run_controller
from throttllem_env.evaluation.settings import Settings
from throttllem_env.evaluation.shares import Shares
from throttllem_env.evaluation.workers import run_parallel
from throttllem_env.prediction import make_length_predictor
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving.workload import Workload, prepare_workload
from throttllem_env.slo import Slo
from throttllem_env.traces import OverLengthCounts


@dataclass(frozen=True, slots=True)
class Run:
    """One agent on one replica of the trace.

    Attributes:
        agent: The controller as it was named.
        seed: Seed of the replica and of everything drawn in the run.
        trace_digest: SHA-256 of the requests served.
        past_digest: SHA-256 of the requests that length predictors learned from.
        over_length: Requests longer than the model takes, in the whole trace before any cut.
        speed: Factor by which the trace's time was compressed.
        result: What happened.
    """

    agent: str
    seed: int
    trace_digest: str
    past_digest: str
    over_length: OverLengthCounts
    speed: float
    result: RunResult


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


def compare(settings: Settings, shares: Shares | None = None) -> Comparison:
    """Run every agent on every seed.

    A run that fails is reported in the result and leaves the others alone.

    Args:
        settings: What to compare.
        shares: Told how far each run is: `len(settings.agents) * settings.seeds` numbers.

    Raises:
        ValueError: Bad input, found before the first run; names the field, the value and what is valid.
    """
    scenario = check(settings)
    slo = scenario.latency_slo(settings.slo_scale)
    pairs = [(agent, seed) for agent in settings.agents for seed in range(settings.seeds)]
    done = _run_all(settings, scenario, pairs, shares)
    runs = tuple(run for run in done if isinstance(run, Run))
    failures = tuple(run for run in done if isinstance(run, Failure))
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
) -> Run:
    """Run one agent on one replica.

    Args:
        settings: What is common to all runs.
        scenario: What is served on what.
        agent: The controller.
        seed: The replica.
        progress: Told how far the run is, from 0 to 1.
    """
    workload = _workload(settings, scenario, seed)
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


def _workload(settings: Settings, scenario: Scenario, seed: int) -> Workload:
    return prepare_workload(
        settings.trace,
        scenario,
        load=settings.load,
        part=settings.split,
        seed=seed,
        duration_s=settings.duration_s,
    )


def _run_all(
    settings: Settings, scenario: Scenario, pairs: list[tuple[str, int]], shares: Shares | None
) -> list[Run | Failure]:
    """Run all pairs in order; several at once when there are jobs for it."""
    calls = [(settings, scenario, agent, seed, shares, index) for index, (agent, seed) in enumerate(pairs)]
    return run_parallel(_guarded, calls, settings.jobs)


def _guarded(
    settings: Settings, scenario: Scenario, agent: str, seed: int, shares: Shares | None, index: int
) -> Run | Failure:
    """One run; an error becomes a result, so that it takes no other run along."""
    numbers = shares.open() if shares else None

    def report(share: float) -> None:
        if numbers is not None:
            numbers[index] = share

    try:
        return run_one(settings, scenario, agent, seed, report)
    except Exception as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return Failure(agent, seed, message, traceback.format_exc())
    finally:
        report(1.0)
