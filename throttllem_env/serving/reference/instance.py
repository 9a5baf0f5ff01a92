"""One instance: a scheduler on GPUs that take time and energy."""

import math
from collections import deque
from typing import Protocol

import numpy as np

from throttllem_env.scenario import Scenario
from throttllem_env.serving.emulated_gpus import EmulatedGpus, Iteration
from throttllem_env.serving.reference.scheduler import EngineRequest, Plan, Scheduler, work_of
from throttllem_env.types import InstanceState, InstanceTelemetry, RequestTable


class InstanceScheduler(Protocol):
    """What an instance asks of a scheduler: the plain one, or vLLM's own."""

    waiting: deque[EngineRequest]
    running: list[EngineRequest]
    free_blocks: int
    total_blocks: int

    def add(self, request: EngineRequest) -> None:
        """Queue a request; it is seen by the next plan."""
        ...

    def plan(self) -> Plan:
        """Choose the next iteration's work and allocate its blocks."""
        ...

    def complete(self, plan: Plan) -> list[EngineRequest]:
        """Account for an iteration that has run; returns the requests that got a token, in its order."""
        ...

    def take_waiting(self) -> list[EngineRequest]:
        """Give up the requests of the queue that have no token yet, in order."""
        ...


class Instance:
    """An engine on `size` GPUs; alternates between iterations and idling.

    Attributes:
        state: Warming, active or draining.
        size: Tensor-parallel degree.
        since_s: When it entered its state.
        started_s: When its GPUs were allocated.
        ready_s: When a warming instance can serve.
        scheduler: Its requests.
        gpus: What they run on.
        clocks: Their clocks.
        plan: What the iteration under way computes.
    """

    scheduler: InstanceScheduler

    def __init__(
        self,
        scenario: Scenario,
        size: int,
        now_s: float,
        rng: np.random.Generator,
        state: InstanceState = InstanceState.ACTIVE,
    ) -> None:
        """Allocate the GPUs at their top clock.

        Args:
            scenario: Gives engine settings and physics.
            size: Tensor-parallel degree.
            now_s: Start of its life.
            rng: Draws switch times.
            state: Warming or active.
        """
        self.state = state
        self.size = size
        self.since_s = self.started_s = self.ready_s = now_s
        self.gpus = EmulatedGpus(scenario, size, now_s, rng, warming=state is InstanceState.WARMING)
        self.clocks = self.gpus.clocks
        self.plan: Plan = []
        self._start_engine(scenario)

    def _start_engine(self, scenario: Scenario) -> None:
        self.scheduler = Scheduler(scenario.engine, scenario.kv_blocks(self.size))

    def _run_plan(self) -> Plan:
        """Let the scheduler choose, and its choice begin to run on the GPUs."""
        plan = self.scheduler.plan()
        self.gpus.run(work_of(plan))
        return plan

    @property
    def empty(self) -> bool:
        """Whether it holds no request."""
        return not (self.scheduler.running or self.scheduler.waiting)

    @property
    def iteration(self) -> Iteration | None:
        """What runs now, or None at a boundary."""
        return self.gpus.iteration

    @property
    def next_boundary_s(self) -> float:
        """When the iteration under way ends, or infinity at a boundary."""
        return self.gpus.next_boundary_s

    def enter(self, state: InstanceState, now_s: float) -> None:
        """Change the state."""
        self.gpus.idle_until(now_s)
        self.gpus.warming = state is InstanceState.WARMING
        self.state, self.since_s = state, now_s

    def start_iteration(self, now_s: float) -> bool:
        """Begin the next iteration if there is work; clocks that are due change first."""
        if self.iteration or self.empty:
            return False
        self.gpus.idle_until(now_s)
        self.plan = self._run_plan()
        for request, _ in self.plan:
            if math.isnan(request.scheduled_s):
                request.scheduled_s = now_s
        return True

    def finish_iteration(self) -> list[EngineRequest]:
        """End the iteration under way; returns the requests that got a token."""
        self.gpus.finish()
        return self.scheduler.complete(self.plan)

    def close(self) -> None:
        """Give the engine back."""

    def telemetry(self) -> InstanceTelemetry:
        """What a live server knows of it."""
        scheduler = self.scheduler
        return InstanceTelemetry(
            self.state,
            self.size,
            self.since_s,
            self.clocks.ruling_mhz,
            self.clocks.target_mhz,
            scheduler.total_blocks - scheduler.free_blocks,
            scheduler.total_blocks,
            request_table(scheduler.running),
            request_table(list(scheduler.waiting)),
        )


def request_table(requests: list[EngineRequest]) -> RequestTable:
    """Turn requests into columns, leaving out what a live server cannot know."""
    return RequestTable.from_rows(
        [(r.request_id, r.arrival_s, r.prompt_tokens, r.computed, r.generated, r.lost) for r in requests]
    )
