"""What a sweep will take: the measured cost of a simulated request, and what follows for many of them."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from throttllem_env.evaluation.settings import Settings

WEEKS_PER_MONTH = 30 / 7
WARM_UP_S = 30.0
"""Simulated seconds of a first run, which reads tables and is not measured."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What requests of one agent's runs cost on this machine.

    Attributes:
        agent: The controller as it was named.
        requests: Requests per run.
        cpu_s: CPU time per request, seconds, one number per run.
        file_bytes: Size of the run's file per request.
    """

    agent: str
    requests: int
    cpu_s: tuple[float, ...]
    file_bytes: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Many configurations that serve the same requests, each on one core.

    Attributes:
        requests: Requests that each configuration serves.
        configurations: How many.
        cpu_s: CPU time per request, seconds.
        file_bytes: Size of a run's file per request.
    """

    requests: float
    configurations: int
    cpu_s: float
    file_bytes: float

    @property
    def run_h(self) -> float:
        """Hours that one configuration takes; no number of cores makes a run shorter."""
        return self.requests * self.cpu_s / 3600

    @property
    def cpu_h(self) -> float:
        """CPU hours of all."""
        return self.configurations * self.run_h

    @property
    def disk_gb(self) -> float:
        """Size of the files of all runs, 10^9 bytes."""
        return self.configurations * self.requests * self.file_bytes / 1e9

    def wall_h(self, cores: int) -> float:
        """Hours on so many cores of the same speed.

        Example:
            >>> plan = Plan(requests=3.6e6, configurations=1000, cpu_s=1e-3, file_bytes=20.0)
            >>> plan.cpu_h, plan.wall_h(64), plan.wall_h(5000)
            (1000.0, 16.0, 1.0)
        """
        return math.ceil(self.configurations / cores) * self.run_h


def measure(settings: Settings, repeats: int = 3, on_run: Callable[[], None] = lambda: None) -> list[Cost]:
    """Run every agent alone, in this process, and take its CPU time.

    Args:
        settings: Scenario, trace, load, backend, agents; `duration_s` says how much is served.
        repeats: Runs per agent.
        on_run: Told of every run that is done.

    Raises:
        ValueError: Wrong settings; names the field, the value and what is valid.
    """
    from dataclasses import replace

    from throttllem_env.evaluation.compare import check, run_one
    from throttllem_env.evaluation.sweeps.run_file import dump_run

    scenario = check(settings)
    found = []
    for agent in settings.agents:
        run_one(replace(settings, duration_s=WARM_UP_S), scenario, agent, 0)
        spent_s = []
        for _ in range(repeats):
            before_s = time.process_time()
            run = run_one(settings, scenario, agent, 0)
            spent_s.append(time.process_time() - before_s)
            on_run()
        n = len(run.result.records.requests.arrival_s)
        found.append(Cost(agent, n, tuple(s / n for s in spent_s), len(dump_run(run)) / n))
    return found


def mean_cost(costs: Sequence[Cost]) -> tuple[float, float]:
    """CPU seconds per request and bytes per request, over agents with equal weight; medians of their runs."""
    from statistics import mean, median

    return mean(median(cost.cpu_s) for cost in costs), mean(cost.file_bytes for cost in costs)
