"""A schedule: a clock and a size for every piece of the horizon, and what comes of it."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from throttllem_env.evaluation.metrics import Metrics, compute_metrics
from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import AdmissionGate
from throttllem_env.serving.compiled.backend import CompiledBackend
from throttllem_env.serving.timeline import Timeline
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import Action, IntArray

PIECE_S = 10.0
"""Length of a piece."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What to ask for, piece by piece.

    Attributes:
        clock: int64[pieces], index of a clock.
        size: int64[pieces], index of a size.
    """

    clock: IntArray
    size: IntArray

    @classmethod
    def constant(cls, horizon_s: float, clock: int, size: int) -> "Schedule":
        """The same throughout."""
        pieces = ceil(horizon_s / PIECE_S)
        return cls(np.full(pieces, clock, np.int64), np.full(pieces, size, np.int64))

    @classmethod
    def of_run(cls, scenario: Scenario, timeline: Timeline, horizon_s: float) -> "Schedule":
        """What a run did: the mean clock of each piece, and its size, asked for a warm-up earlier."""
        pieces = ceil(horizon_s / PIECE_S)
        times_s = np.array(timeline.time_s)
        clocks = np.array(scenario.gpu_spec.clocks_mhz)
        piece = np.minimum((times_s // PIECE_S).astype(np.int64), pieces - 1)
        seconds = np.maximum(np.bincount(piece, minlength=pieces), 1)
        mean_mhz = np.bincount(piece, np.array(timeline.frequency_mhz), pieces) / seconds
        warm_up_s = (scenario.warm_up.min_s + scenario.warm_up.max_s) / 2
        starts_s = np.arange(pieces) * PIECE_S + warm_up_s
        at = np.minimum(np.searchsorted(times_s, starts_s), len(times_s) - 1)
        sizes = np.array(timeline.size)[at]
        size = np.searchsorted(np.array(scenario.sizes), sizes)
        return cls(np.abs(clocks[:, None] - mean_mhz).argmin(axis=0).astype(np.int64), size.astype(np.int64))


class Course:
    """Serves a trace by schedules.

    Attributes:
        scenario: What is served on what.
        trace: The requests.
        slo: The targets.
        horizon_s: Energy counts until then, seconds.
    """

    def __init__(
        self,
        scenario: Scenario,
        trace: Trace,
        slo: Slo,
        seed: int,
        horizon_s: float,
        gate: AdmissionGate | None = None,
    ) -> None:
        """Set it up.

        Args:
            scenario: What is served on what.
            trace: The requests.
            slo: The targets.
            seed: Seeds switch and warm-up times, as in the runs to compare with.
            horizon_s: Energy counts until then, seconds.
            gate: Projected admission, where the scenario has it.
        """
        self.scenario, self.slo, self.horizon_s = scenario, slo, horizon_s
        self.trace, self._seed = trace, seed
        self._backend = CompiledBackend(scenario, gate)

    def serve(self, schedule: Schedule) -> Metrics:
        """Metrics of a run that follows a schedule."""
        backend, clocks, sizes = self._backend, self.scenario.gpu_spec.clocks_mhz, self.scenario.sizes
        time_s = backend.reset(self.trace, self._seed).time_s
        for piece, (clock, size) in enumerate(zip(schedule.clock, schedule.size, strict=True)):
            until_s = min((piece + 1) * PIECE_S, self.horizon_s)
            backend.apply(Action(clocks[clock], sizes[size]))
            if until_s > time_s:
                time_s = backend.skip(until_s)
        metrics = compute_metrics(backend.records(), self.slo, self.horizon_s)
        backend.close()
        return metrics
