"""The autoscaler of throttllem-energy: of the sizes that carry the load, the one of least long-run power.

Changing costs energy: the new instance warms up, the old one drains, and when the load comes back the same is
due again. How long a lull will last nobody knows. So a change waits until what it would have saved so far
equals what it costs, which never costs more than twice what foresight would have (the ski-rental argument).
"""

from typing import Protocol

from throttllem_env.agents.autoscaler import INTERVAL_S, Autoscaler
from throttllem_env.scenario import Scenario
from throttllem_env.types import Telemetry

HEADROOM, PATIENCE = 0.0, 1.0
"""Chosen on the train blocks of Azure 2023 conv at loads 0.5 and 0.7."""


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
        patience: float = PATIENCE,
        slo_scale: float = 1.0,
    ) -> None:
        """Start at the largest size.

        Args:
            scenario: Gives sizes and rated loads.
            costs: Weighs sizes; see `LongRun`.
            headroom: Share by which a rated load must exceed the request rate.
            patience: Share of the cost of going there and back that must have been missed before a change.
            slo_scale: Factor on the scenario's latency SLOs, which rated loads depend on.
        """
        super().__init__(scenario, headroom, slo_scale=slo_scale)
        self._costs, self._patience = costs, patience
        self._missed_j = 0.0

    def _choose(self, telemetry: Telemetry) -> int:
        needed = self.needed(telemetry.recent.request_rate_rps)
        current = self._current(telemetry)
        if needed > current:
            self._missed_j = 0.0
            return needed
        cheapest, saving_w = self._cheapest(current, needed)
        if cheapest == current or telemetry.resizing:
            self._missed_j = 0.0
            return current
        self._missed_j += saving_w * INTERVAL_S
        there_and_back_j = self._costs.change_j(current, cheapest) + self._costs.change_j(cheapest, current)
        if self._missed_j < self._patience * there_and_back_j:
            return current
        self._missed_j = 0.0
        return cheapest

    def _cheapest(self, current: int, needed: int) -> tuple[int, float]:
        """The size of least power among those that carry the load, and what it saves."""
        found = {s: self._costs.least_power_w(s) for s in self._scenario.sizes if s >= needed}
        powers = {size: power_w for size, power_w in found.items() if power_w is not None}
        if current not in powers:
            return current, 0.0
        cheapest = min(powers, key=lambda size: (powers[size], size != current))
        return cheapest, powers[current] - powers[cheapest]
