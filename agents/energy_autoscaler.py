"""The autoscaler of throttllem-energy: of the sizes that carry the load, the one of least long-run power.

Changing costs energy: the new instance warms up, the old one drains, and when the load comes back the same is
due again. How long a lull will last nobody knows. So a change waits until what it would have saved so far
equals what it costs, which never costs more than twice what foresight would have (the ski-rental argument).
"""

from typing import Protocol

from throttllem_env.agents.autoscaler import INTERVAL_S, Autoscaler
from throttllem_env.scenario import Scenario
from throttllem_env.types import Telemetry

HEADROOM, HYSTERESIS, PATIENCE = 0.0, 0.2, 0.5
"""Chosen with the other parameters of `throttllem-energy` (`scripts/tune.py energy`)."""


class SizeCosts(Protocol):
    """What sizes cost under the recent load."""

    def least_power_w(self, size: int) -> float | None:
        """Mean power of a size at its cheapest clock that keeps the SLO; None if unknown or there is none."""
        ...

    def change_j(self, old: int, new: int) -> float:
        """Energy of going from one size to another."""
        ...


class EnergyAutoscaler(Autoscaler):
    """Grows at once when the load needs it; all other changes must pay."""

    def __init__(
        self,
        scenario: Scenario,
        costs: SizeCosts,
        headroom: float = HEADROOM,
        hysteresis: float = HYSTERESIS,
        patience: float = PATIENCE,
        slo_scale: float = 1.0,
    ) -> None:
        """Start at the largest size.

        Args:
            scenario: Gives sizes and rated loads.
            costs: Weighs sizes; see `LongRun`.
            headroom: Share by which a rated load must exceed the request rate.
            hysteresis: Share by which it must exceed the rate besides, before shrinking to it.
            patience: Share of the cost of going there and back that must have been missed before a change.
            slo_scale: Factor on the scenario's latency SLOs, which rated loads depend on.
        """
        super().__init__(scenario, headroom, slo_scale=slo_scale)
        self._costs, self._hysteresis, self._patience = costs, hysteresis, patience
        self._missed_j = 0.0

    def _choose(self, telemetry: Telemetry) -> int:
        rate_rps, current = telemetry.recent.request_rate_rps, self._current(telemetry)
        needed = self.needed(rate_rps)
        # A rate near what a smaller size carries will soon be above it again.
        powers_w = self._powers_w(max(needed, min(current, self.needed(rate_rps * (1 + self._hysteresis)))))
        cheapest = min(powers_w, key=lambda size: (powers_w[size], size != current), default=current)
        if needed > current or (cheapest > current and current not in powers_w):
            self._missed_j = 0.0
            return max(needed, cheapest)
        if cheapest == current or current not in powers_w or telemetry.resizing:
            self._missed_j = 0.0
            return current
        self._missed_j += (powers_w[current] - powers_w[cheapest]) * INTERVAL_S
        there_and_back_j = self._costs.change_j(current, cheapest) + self._costs.change_j(cheapest, current)
        if self._missed_j < self._patience * there_and_back_j:
            return current
        self._missed_j = 0.0
        return cheapest

    def _powers_w(self, smallest: int) -> dict[int, float]:
        """Least power by size, from a smallest on, of those that keep the SLO of long requests."""
        found = {s: self._costs.least_power_w(s) for s in self._scenario.sizes if s >= smallest}
        return {size: power_w for size, power_w in found.items() if power_w is not None}
