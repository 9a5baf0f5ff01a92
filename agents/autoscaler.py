"""throttLL'eM's autoscaler: the smallest size whose rated load covers the request rate."""

from collections import deque

from throttllem_env.scenario import Scenario
from throttllem_env.types import InstanceState, Telemetry

INTERVAL_S = 10.0
GRACE_S = 60.0
HEADROOM = 0.1


class Autoscaler:
    """Chooses the instance size every 10 s; growing is always allowed, shrinking after a grace period.

    The new instance warms in the shadow while the old one serves (paper, section IV-E). The load must
    have been low for the whole grace period: a lull between two bursts is shorter than what warming and
    draining cost.
    """

    def __init__(
        self,
        scenario: Scenario,
        headroom: float = HEADROOM,
        grace_s: float = GRACE_S,
        slo_scale: float = 1.0,
    ) -> None:
        """Start at the largest size.

        Args:
            scenario: Gives sizes and rated loads.
            headroom: Share by which a rated load must exceed the request rate.
            grace_s: How long a smaller size must have sufficed before shrinking to it, seconds.
            slo_scale: Factor on the scenario's latency SLOs, which rated loads depend on.
        """
        self._scenario, self._slo_scale = scenario, slo_scale
        self._headroom, self._grace_s = headroom, grace_s
        self._next_check_s = 0.0
        self._needs: deque[tuple[float, int]] = deque()  # (when checked, size needed), oldest first
        self._size = scenario.largest_size

    def size(self, telemetry: Telemetry) -> int:
        """The size to ask for now.

        Args:
            telemetry: The state now; its arrivals of the last 30 s give the rate.

        Returns:
            One of the scenario's sizes.
        """
        if telemetry.time_s >= self._next_check_s:
            self._next_check_s = telemetry.time_s + INTERVAL_S
            self._size = self._choose(telemetry)
        return self._size

    def _choose(self, telemetry: Telemetry) -> int:
        needed = self.needed(telemetry.recent.request_rate_rps)
        self._needs.append((telemetry.time_s, needed))
        current = self._current(telemetry)
        if needed >= current:
            return needed
        return current if telemetry.resizing else min(current, self._largest_recent_need(telemetry.time_s))

    def _largest_recent_need(self, now_s: float) -> int:
        """The largest size needed in the grace period; the largest of all before one has passed."""
        while len(self._needs) > 1 and self._needs[1][0] <= now_s - self._grace_s:
            self._needs.popleft()
        if self._needs[0][0] > now_s - self._grace_s:
            return self._scenario.largest_size
        return max(size for _, size in self._needs)

    def needed(self, rate_rps: float) -> int:
        """The smallest size whose rated load covers a rate with headroom, else the largest."""
        for size in self._scenario.sizes:
            if self._scenario.rated_rps(size, self._slo_scale) >= rate_rps * (1 + self._headroom):
                return size
        return self._scenario.largest_size

    @staticmethod
    def _current(telemetry: Telemetry) -> int:
        """The size that is coming or, when nothing changes, the active one."""
        warming = telemetry.in_state(InstanceState.WARMING)
        return warming.size if warming else telemetry.active.size
