"""One simulated instance: a scheduler on GPUs that take time and energy."""

import math
from dataclasses import dataclass, replace

import numpy as np

from throttllem_env.gpu import EmulatedClocks
from throttllem_env.hardware import ClockTable
from throttllem_env.hardware.physics import IterationTime, IterationWork
from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import EnergyParts
from throttllem_env.serving.reference.scheduler import EngineRequest, Plan, Scheduler, work_of
from throttllem_env.types import InstanceState, InstanceTelemetry, RequestTable


@dataclass(slots=True)
class Iteration:
    """A forward pass under way.

    Attributes:
        start_s: When it began.
        end_s: Its boundary: when its tokens appear.
        plan: What it computes.
        energy: What it will have used.
    """

    start_s: float
    end_s: float
    plan: Plan
    energy: EnergyParts


class Instance:
    """An engine on `size` GPUs; alternates between iterations and idling.

    Attributes:
        state: Warming, active or draining.
        size: Tensor-parallel degree.
        since_s: When it entered its state.
        started_s: When its GPUs were allocated.
        ready_s: When a warming instance can serve.
        scheduler: Its requests.
        clocks: Its GPUs' clocks.
        iteration: What runs now, or None at a boundary.
        energy: What it has used up to the last boundary or moment of idling accounted for.
    """

    def __init__(self, scenario: Scenario, size: int, now_s: float, rng: np.random.Generator) -> None:
        """Allocate the GPUs at their top clock; the caller sets the state.

        Args:
            scenario: Gives engine settings and physics.
            size: Tensor-parallel degree.
            now_s: Start of its life.
            rng: Draws switch times.
        """
        self.state = InstanceState.ACTIVE
        self.size = size
        self.since_s = self.started_s = self.ready_s = now_s
        self.scheduler = Scheduler(scenario.engine, scenario.kv_blocks(size))
        self.clocks = EmulatedClocks(size, scenario.top_mhz, scenario.switching, rng)
        self.iteration: Iteration | None = None
        self.energy = EnergyParts()
        self._physics = scenario.physics(size)
        self._accounted_s = now_s

    @property
    def empty(self) -> bool:
        """Whether it holds no request."""
        return not (self.scheduler.running or self.scheduler.waiting)

    @property
    def next_boundary_s(self) -> float:
        """When the iteration under way ends, or infinity at a boundary."""
        return self.iteration.end_s if self.iteration else math.inf

    def enter(self, state: InstanceState, now_s: float) -> None:
        """Change the state."""
        self.idle_until(now_s)
        self.state, self.since_s = state, now_s

    def start_iteration(self, now_s: float) -> bool:
        """Begin the next iteration if there is work; clocks that are due change first."""
        if self.iteration or self.empty:
            return False
        self.idle_until(now_s)
        self.clocks.settle(now_s)
        plan = self.scheduler.plan()
        for request, _ in plan:
            if math.isnan(request.scheduled_s):
                request.scheduled_s = now_s
        work = work_of(plan)
        time = self._physics.at(self.clocks.ruling_mhz).iteration(work)
        energy = self._iteration_energy(time, work)
        self.iteration = Iteration(now_s, now_s + time.total_s, plan, energy)
        return True

    def _iteration_energy(self, time: IterationTime, work: IterationWork) -> EnergyParts:
        """All GPUs work for as long as the slowest needs, each at the power of its own clock."""
        parts = EnergyParts()
        for table, gpus in self._tables():
            parts.host_j += gpus * table.idle_w * time.host_s
            parts.decode_j += gpus * table.decode_power_w(work.decode_batch) * time.decode_s
            if work.prefill_tokens:
                parts.prefill_j += gpus * table.prefill_power_w(work.prefill_tokens) * time.prefill_s
        return parts

    def _tables(self) -> list[tuple[ClockTable, int]]:
        """Physics by clock, with the number of GPUs at each."""
        mhz = self.clocks.mhz
        return [(self._physics.at(clock), mhz.count(clock)) for clock in sorted(set(mhz))]

    def finish_iteration(self) -> list[EngineRequest]:
        """End the iteration under way; returns the requests that got a token."""
        iteration = self.iteration
        if iteration is None:
            raise RuntimeError("no iteration is under way")
        self.iteration = None
        self._accounted_s = iteration.end_s
        self.energy.add(iteration.energy)
        self.clocks.settle(iteration.end_s)
        return self.scheduler.complete(iteration.plan)

    def idle_until(self, now_s: float) -> None:
        """Account for the time since the last boundary, in pieces where clocks change on the way."""
        if self.iteration:
            return
        while self._accounted_s < now_s:
            piece_end_s = min(max(self.clocks.next_change_s, self._accounted_s), now_s)
            watts = sum(gpus * table.idle_w for table, gpus in self._tables())
            joules = watts * (piece_end_s - self._accounted_s)
            if self.state is InstanceState.WARMING:
                self.energy.warming_j += joules
            else:
                self.energy.idle_j += joules
            self._accounted_s = piece_end_s
            self.clocks.settle(piece_end_s)

    def energy_at(self, now_s: float) -> EnergyParts:
        """Energy up to now, with the share of the iteration under way that has passed."""
        self.idle_until(now_s)
        energy = replace(self.energy)
        if self.iteration:
            share = (now_s - self.iteration.start_s) / (self.iteration.end_s - self.iteration.start_s)
            energy.add(self.iteration.energy, share)
        return energy

    def take_waiting(self) -> list[EngineRequest]:
        """Give up the requests of the queue that hold nothing yet, in order.

        Preempted ones have streamed tokens to their clients already, so they stay.
        """
        moved = [r for r in self.scheduler.waiting if not r.generated]
        kept = [r for r in self.scheduler.waiting if r.generated]
        self.scheduler.waiting.clear()
        self.scheduler.waiting.extend(kept)
        return moved

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
