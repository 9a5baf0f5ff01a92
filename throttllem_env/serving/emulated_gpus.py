"""The GPUs of one instance in virtual time: how long an iteration takes on them, and what they draw."""

import math
from dataclasses import dataclass, replace

import numpy as np

from throttllem_env.gpu import EmulatedClocks
from throttllem_env.hardware import ClockTable
from throttllem_env.hardware.physics import IterationTime, IterationWork
from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import EnergyParts


@dataclass(slots=True)
class Iteration:
    """A forward pass under way.

    Attributes:
        start_s: When it began.
        end_s: Its boundary: when its tokens appear.
        energy: What it will have used.
    """

    start_s: float
    end_s: float
    energy: EnergyParts


class EmulatedGpus:
    """GPUs that alternate between iterations and idling. Their time is what has been accounted for.

    Attributes:
        size: How many.
        clocks: Their clocks.
        iteration: What runs now, or None at a boundary.
        warming: Whether idling counts as warming up.
        energy: What they have used up to the last boundary or moment of idling accounted for.
    """

    def __init__(
        self, scenario: Scenario, size: int, now_s: float, rng: np.random.Generator, *, warming: bool = False
    ) -> None:
        """Allocate them at their top clock.

        Args:
            scenario: Gives physics and switch times.
            size: How many: the tensor-parallel degree.
            now_s: When.
            rng: Draws switch times.
            warming: Whether idling counts as warming up.
        """
        self.size = size
        self.clocks = EmulatedClocks(size, scenario.top_mhz, scenario.switching, rng)
        self.iteration: Iteration | None = None
        self.warming = warming
        self.energy = EnergyParts()
        self._physics = scenario.served_physics(size)
        self._accounted_s = now_s

    @property
    def next_boundary_s(self) -> float:
        """When the iteration under way ends, or infinity at a boundary."""
        return self.iteration.end_s if self.iteration else math.inf

    def run(self, work: IterationWork) -> None:
        """Begin an iteration at the moment up to which time is accounted for; `finish` ends it."""
        start_s = self._accounted_s
        self.clocks.settle(start_s)
        time = self._physics.at(self.clocks.ruling_mhz).iteration(work)
        self.iteration = Iteration(start_s, start_s + time.total_s, self._iteration_energy(time, work))

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

    def finish(self) -> None:
        """End the iteration under way.

        Raises:
            RuntimeError: There is none.
        """
        if self.iteration is None:
            raise RuntimeError("no iteration is under way")
        self.energy.add(self.iteration.energy)
        self._accounted_s = self.iteration.end_s
        self.iteration = None
        self.clocks.settle(self._accounted_s)

    def idle_until(self, now_s: float) -> None:
        """Account for the time since the last boundary, in pieces where clocks change on the way."""
        if self.iteration:
            return
        while self._accounted_s < now_s:
            piece_end_s = min(max(self.clocks.next_change_s, self._accounted_s), now_s)
            watts = sum(gpus * table.idle_w for table, gpus in self._tables())
            joules = watts * (piece_end_s - self._accounted_s)
            if self.warming:
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
