"""Random clocks and sizes: what any strategy must beat.

Source: none; the usual null hypothesis.
Observes: the time.
Parameters: `clock_s` and `size_s`, how long a draw is kept. Not tuned.
Simplified: nothing. All draws come from the seed of the run.
"""

import numpy as np

from throttllem_env.baselines.checks import check_range
from throttllem_env.controller import Assignment, BaseController
from throttllem_env.types import Action, ObservationArray, Telemetry

SALT = 0x0DDC
"""Keeps its draws apart from those of backends and predictors of the same seed."""


class RandomActions(BaseController):
    """Draws a clock and a size now and then, each equally likely."""

    def __init__(self, clock_s: float = 10.0, size_s: float = 60.0) -> None:
        """Set it up.

        Args:
            clock_s: How long a clock is kept, seconds.
            size_s: How long a size is kept, seconds; a new instance warms for 20 to 30.

        Raises:
            ControllerError: A value out of range.
        """
        check_range("random", 1.0, 3600.0, clock_s=clock_s, size_s=size_s)
        self._clock_s, self._size_s = clock_s, size_s

    def reset(self, assignment: Assignment) -> None:
        """Seed anew."""
        super().reset(assignment)
        self._rng = np.random.default_rng([assignment.seed, SALT])
        self._action = Action(assignment.scenario.top_mhz, assignment.scenario.largest_size)
        self._next_clock_s = self._next_size_s = 0.0

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """What was drawn last."""
        scenario, mhz, size = self.assignment.scenario, self._action.frequency_mhz, self._action.size
        if telemetry.time_s >= self._next_clock_s:
            self._next_clock_s = telemetry.time_s + self._clock_s
            mhz = int(self._rng.choice(scenario.gpu_spec.clocks_mhz))
        if telemetry.time_s >= self._next_size_s:
            self._next_size_s = telemetry.time_s + self._size_s
            size = int(self._rng.choice(scenario.sizes))
        self._action = Action(mhz, size)
        return self._action
