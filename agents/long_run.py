"""What sizes and clocks cost in the long run under the recent load, for throttllem-energy."""

from collections import deque

import numpy as np

from throttllem_env.agents.autoscaler import INTERVAL_S
from throttllem_env.prediction.steady import SteadyLoad, SteadyState, steady_state
from throttllem_env.scenario import Scenario
from throttllem_env.types import FinishedRequest, Telemetry

REMEMBERED = 500
"""Finished requests that stand for the load's lengths."""

FEWEST = 20
"""Before so many have finished, nothing is said."""

LONG_PERCENTILE = 95
"""Of recent outputs, this percentile stands for a long request."""


class LongRun:
    """Watches the load and weighs sizes and clocks under it.

    Attributes:
        load: The recent load; None before enough is known of it.
    """

    def __init__(self, scenario: Scenario, e2e_s: float) -> None:
        """Know nothing yet.

        Args:
            scenario: Gives sizes, clocks and physics.
            e2e_s: The E2E SLO, seconds.
        """
        self.load: SteadyLoad | None = None
        self._scenario, self._e2e_s = scenario, e2e_s
        self._clocks = scenario.gpu_spec.clocks_mhz
        self._finished: deque[FinishedRequest] = deque(maxlen=REMEMBERED)
        self._states: dict[tuple[int, int], SteadyState] = {}
        self._long_tokens = 0.0
        self._next_check_s = 0.0

    def observe(self, telemetry: Telemetry) -> None:
        """Take in what has finished; every ten seconds, look at the rate again.

        Args:
            telemetry: The state now.
        """
        self._finished.extend(telemetry.finished)
        if telemetry.time_s < self._next_check_s or len(self._finished) < FEWEST:
            return
        self._next_check_s = telemetry.time_s + INTERVAL_S
        self.load = SteadyLoad.of(telemetry.recent.request_rate_rps, self._finished)
        self._states = {}
        outputs = [request.generated_tokens for request in self._finished]
        self._long_tokens = float(np.percentile(outputs, LONG_PERCENTILE))

    def steady(self, size: int, mhz: int) -> SteadyState | None:
        """Where a size at a clock settles; None before enough is known of the load."""
        if self.load is None:
            return None
        key = (size, mhz)
        if key not in self._states:
            self._states[key] = steady_state(self._scenario, self._scenario.physics(size), mhz, self.load)
        return self._states[key]

    def least_power_w(self, size: int) -> float | None:
        """Mean power of a size at its cheapest clock that keeps the E2E SLO of a long request.

        Returns:
            Watts of all its GPUs; None if unknown, or if no clock carries the load.
        """
        states = [state for _, state in self._sustained(size) if self._long_request_s(state) <= self._e2e_s]
        return min((state.power_w for state in states), default=None)

    def change_j(self, old: int, new: int) -> float:
        """Energy of going from one size to another: one warms up, the other drains, both at the top clock.

        Args:
            old: Size that drains.
            new: Size that warms up.
        """
        scenario, top_mhz = self._scenario, self._scenario.top_mhz
        warm_up_s = (scenario.warm_up.min_s + scenario.warm_up.max_s) / 2
        warming_j = new * scenario.physics(new).at(top_mhz).idle_w * warm_up_s
        state = self.steady(old, top_mhz)
        if state is None:
            return warming_j
        # The batch shrinks on the way; half of its time and half of its size stand for that.
        power_w = old * scenario.physics(old).at(top_mhz).decode_power_w(round(state.batch / 2))
        return warming_j + power_w * self._long_request_s(state) / 2

    def thrifty_clock(self, size: int, tolerance: float) -> int:
        """Index of the highest clock whose long-run power is within a tolerance of the least.

        The curve is flat around its minimum: a little more power there buys much slack.

        Args:
            size: Instance size.
            tolerance: Share of the least long-run power that may be given for speed.

        Returns:
            The index; of the top clock where no other carries the load.
        """
        states = self._sustained(size)
        if not states:
            return len(self._clocks) - 1
        limit_w = min(state.power_w for _, state in states) * (1 + tolerance)
        return next(index for index, state in states if state.power_w <= limit_w)

    def _sustained(self, size: int) -> list[tuple[int, SteadyState]]:
        """Every third clock, which is close enough, from the top down as long as it carries the load."""
        states: list[tuple[int, SteadyState]] = []
        for index in range(len(self._clocks) - 1, -1, -3):
            state = self.steady(size, self._clocks[index])
            if state is None or not state.sustained:
                break
            states.append((index, state))
        return states

    def _long_request_s(self, state: SteadyState) -> float:
        """How long a request with a long output decodes there: Little's law gives the time per token."""
        if self.load is None:
            return 0.0
        return self._long_tokens * state.batch / max(self.load.rate_rps * self.load.output_tokens, 1e-9)
