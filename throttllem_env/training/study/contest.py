"""Agents against the reference, case by case, on requests that none of them has seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from throttllem_env.controller.watchdog import overruled_s
from throttllem_env.evaluation.bootstrap import Interval, paired, ratio_interval, saving
from throttllem_env.evaluation.compare import Comparison, compare
from throttllem_env.evaluation.results import agent_blocks
from throttllem_env.evaluation.settings import Settings
from throttllem_env.serving.workload import is_synthetic

REFERENCE: Final = "throttllem"
BURSTY_S: Final = 1800.0
"""Length of the bursty trace, which no agent is trained on: trainings draw others of its kind."""


@dataclass(frozen=True, slots=True)
class ContestCase:
    """What is served.

    Attributes:
        name: For tables.
        trace: Path or name.
        load: Peak load.
        predictor: Length predictor.
        scenario: Name or path.
        split: Which blocks of a recorded trace.
        backend: Name of the backend.
        duration_s: Serve only this much, seconds; None for all of it.
    """

    name: str
    trace: str
    load: float
    predictor: str = "learned"
    scenario: str = "llama2-13b-a100"
    split: str = "test"
    backend: str = "simulator"
    duration_s: float | None = None

    def settings(self, agents: Sequence[str], seeds: int, jobs: int, out: Path | None) -> Settings:
        """Settings of the comparison, the reference first."""
        drawn = is_synthetic(self.trace)
        return Settings(
            agents=(REFERENCE, *(agent for agent in agents if agent != REFERENCE)),
            scenario=self.scenario,
            trace=self.trace,
            seeds=seeds,
            load=self.load,
            length_predictor=self.predictor,
            split="all" if drawn else self.split,
            duration_s=self.duration_s or (BURSTY_S if drawn else None),
            backend=self.backend,
            jobs=jobs,
            out=out,
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """An agent in a case, against the reference.

    Attributes:
        agent: As it was named.
        case: What was served.
        requests: How many, over all replicas.
        late: How many of them were late or not completed.
        reference_late: How many of the reference's.
        energy: Energy / that of the reference.
        energy_interval: Its 95 % interval.
        points: Percentage points of attainment above the reference's.
        points_interval: Its 95 % interval.
        attained: Whether all SLOs held in all replicas.
        overruled: Share of the time in which a watchdog did not obey the agent.
    """

    agent: str
    case: ContestCase
    requests: int
    late: int
    reference_late: int
    energy: float
    energy_interval: Interval | None
    points: float
    points_interval: Interval | None
    attained: bool
    overruled: float = 0.0

    @property
    def attainment(self) -> float:
        """Share of requests in time."""
        return 1 - self.late / self.requests

    @property
    def wins(self) -> bool:
        """At least 5 % less energy at attainment not lower: what is asked for."""
        return self.energy <= 0.95 and self.late <= self.reference_late


def contest(
    case: ContestCase,
    agents: Sequence[str],
    *,
    seeds: int,
    jobs: int = 1,
    out: Path | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> dict[str, Standing]:
    """Serve a case under the reference and other agents.

    Args:
        case: What is served.
        agents: As `throttllem compare` takes them.
        seeds: Replicas of the trace; of a recorded one the first is the trace itself.
        jobs: Runs at once.
        out: Folder in which runs are kept; None to keep nothing.
        notify: Told what a person wants to know.

    Raises:
        RuntimeError: A run failed.
    """
    found = compare(case.settings(agents, seeds, jobs, out), notify=notify)
    for failure in found.failures:
        raise RuntimeError(f"{case.name}: {failure.agent}, seed {failure.seed}: {failure.error}")
    return {agent: standing(found, case, agent) for agent in found.agents}


def standing(found: Comparison, case: ContestCase, agent: str) -> Standing:
    """Where an agent stands in a comparison whose first agent is the reference."""
    ours, theirs = paired(agent_blocks(found, agent), agent_blocks(found, found.agents[0]))
    share, interval = saving(ours, theirs)
    requests = ours.arrived.sum()
    points = ratio_interval(100 * (ours.attained - theirs.attained), ours.arrived, ours.cluster)
    late, reference_late = (sum(_late(found, name)) for name in (agent, found.agents[0]))
    return Standing(
        agent,
        case,
        int(requests),
        late,
        reference_late,
        1 - share,
        (1 - interval[1], 1 - interval[0]) if interval else None,
        100 * (reference_late - late) / float(requests),
        points,
        all(bool(run.result.metrics["slo_attained"]) for run in found.of(agent)),
        _overruled(found, agent),
    )


def _late(found: Comparison, agent: str) -> list[int]:
    return [int(run.result.metrics["slo_violations"]) for run in found.of(agent)]


def _overruled(found: Comparison, agent: str) -> float:
    results = [run.result for run in found.of(agent)]
    ends_s = [result.metrics["duration_s"] for result in results]
    return sum(overruled_s(r.watchdog, end_s) for r, end_s in zip(results, ends_s, strict=True)) / sum(ends_s)
