"""throttLL'eM's autoscaler: the smallest size whose rated load covers the request rate."""

from throttllem_env.scenario import Scenario
from throttllem_env.types import InstanceState, Telemetry

INTERVAL_S = 10.0
GRACE_S = 60.0
HEADROOM = 0.1


class Autoscaler:
    """Chooses the instance size every 10 s; growing is always allowed, shrinking after a grace period.

    The new instance warms in the shadow while the old one serves (paper, section IV-E).
    """

    def __init__(self, scenario: Scenario, headroom: float = HEADROOM, grace_s: float = GRACE_S) -> None:
        """Start at the largest size.

        Args:
            scenario: Gives sizes and rated loads.
            headroom: Share by which a rated load must exceed the request rate.
            grace_s: How long after any change of size shrinking is held back, seconds.
        """
        self._scenario = scenario
        self._headroom, self._grace_s = headroom, grace_s
        self._next_check_s = 0.0
        self._changed_s = 0.0
        self._size = scenario.largest_size

    def size(self, telemetry: Telemetry) -> int:
        """The size to ask for now.

        Args:
            telemetry: The state now; its arrivals of the last 30 s give the rate.

        Returns:
            One of the scenario's sizes.
        """
        if telemetry.time_s < self._next_check_s:
            return self._size
        self._next_check_s = telemetry.time_s + INTERVAL_S
        current = self._current(telemetry)
        wanted = self.needed(telemetry.recent.request_rate_rps)
        if wanted < current and not self._may_shrink(telemetry):
            wanted = current
        if wanted != self._size:
            self._changed_s = telemetry.time_s
        self._size = wanted
        return self._size

    def needed(self, rate_rps: float) -> int:
        """The smallest size whose rated load covers a rate with headroom, else the largest."""
        for size in self._scenario.sizes:
            if self._scenario.rated_rps(size) >= rate_rps * (1 + self._headroom):
                return size
        return self._scenario.largest_size

    @staticmethod
    def _current(telemetry: Telemetry) -> int:
        """The size that is coming or, when nothing changes, the active one."""
        warming = telemetry.in_state(InstanceState.WARMING)
        return warming.size if warming else telemetry.active.size

    def _may_shrink(self, telemetry: Telemetry) -> bool:
        """Not while a change is under way, nor within the grace period (which also covers the start)."""
        return not telemetry.resizing and telemetry.time_s - self._changed_s >= self._grace_s
