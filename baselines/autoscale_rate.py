"""Autoscaling by the request rate alone, as the Kubernetes Horizontal Pod Autoscaler does it; the top clock.

Source: the HPA's rule (Kubernetes documentation, "Horizontal Pod Autoscaling"): every 15 s it compares a
load with a target per unit of capacity, does nothing within a tolerance of 10 %, grows at once, and shrinks
only to the largest need of a stabilisation window (five minutes by default, one here).

Observes: arrivals of the last 30 s, the current size.
Parameters: `target`, rate per rated load that it aims at; `stabilise_s`. Tuned on train and validation
blocks (`scripts/tune.py rivals`, docs/rivals.md).
Simplified: one instance that changes its size stands for a number of replicas.
"""

from collections import deque

from throttllem_env.baselines.checks import check_range
from throttllem_env.controller import Assignment, BaseController
from throttllem_env.types import Action, InstanceState, ObservationArray, Telemetry

TARGET, STABILISE_S = 1.0, 60.0
INTERVAL_S, TOLERANCE = 15.0, 0.1


class AutoscaleRate(BaseController):
    """The smallest size whose rated load the rate does not exceed by more than the target."""

    def __init__(self, target: float = TARGET, stabilise_s: float = STABILISE_S) -> None:
        """Set it up.

        Args:
            target: Request rate that is aimed at, as a share of a size's rated load.
            stabilise_s: A smaller size must have sufficed for so long, seconds.

        Raises:
            ControllerError: A value out of range.
        """
        check_range("autoscale-rate", 0.05, 2.0, target=target)
        check_range("autoscale-rate", 0.0, 3600.0, stabilise_s=stabilise_s)
        self._target, self._stabilise_s = target, stabilise_s

    def reset(self, assignment: Assignment) -> None:
        """Forget the last run and begin with the largest size."""
        super().reset(assignment)
        self._size = assignment.scenario.largest_size
        self._next_s = 0.0
        # The start counts as a need for the largest size: nothing is known before it.
        self._needs: deque[tuple[float, int]] = deque([(0.0, self._size)])

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The size that the rate asks for, at the top clock."""
        if telemetry.time_s >= self._next_s:
            self._next_s = telemetry.time_s + INTERVAL_S
            self._size = self._choose(telemetry)
        return Action(self.assignment.scenario.top_mhz, self._size)

    def _choose(self, telemetry: Telemetry) -> int:
        warming = telemetry.in_state(InstanceState.WARMING)
        current = warming.size if warming else telemetry.active.size
        rate_rps = telemetry.recent.request_rate_rps
        needed = self.needed(rate_rps)
        if needed > current and rate_rps <= self._capacity_rps(current) * (1 + TOLERANCE):
            needed = current
        self._needs.append((telemetry.time_s, needed))
        while self._needs[0][0] < telemetry.time_s - self._stabilise_s:
            self._needs.popleft()
        if needed >= current:
            return needed
        return min(current, max(size for _, size in self._needs))

    def needed(self, rate_rps: float) -> int:
        """The smallest size that is meant to carry a rate, else the largest."""
        sizes = self.assignment.scenario.sizes
        return next((size for size in sizes if rate_rps <= self._capacity_rps(size)), sizes[-1])

    def _capacity_rps(self, size: int) -> float:
        rated_rps = self.assignment.scenario.rated_rps(size, self.assignment.slo_scale)
        return self._target * rated_rps
