"""Which size at which clock carries a load for the least power, from linear tables."""

from typing import NamedTuple

import numpy as np

from throttllem_env.baselines.latency_tables import LatencyTables, Load
from throttllem_env.scenario import Scenario
from throttllem_env.types import InstanceState, Telemetry


class Plan(NamedTuple):
    """A size and a clock, and what they cost.

    Attributes:
        size: Instance size.
        clock: Index of its clock.
        power_w: Mean power of the instance.
    """

    size: int
    clock: int
    power_w: float


def cheapest(tables: LatencyTables, size: int, load: Load, target_s: float) -> Plan | None:
    """The clock of least power that carries a load and keeps the time between tokens.

    Args:
        tables: Those of the size.
        size: Instance size.
        load: What is asked for.
        target_s: Longest mean time between tokens, seconds.

    Returns:
        None if no clock does.
    """
    steady = tables.steady(load)
    power_w = np.where(steady.sustained & (steady.tbt_s <= target_s), steady.power_w, np.inf)
    index = int(np.argmin(power_w))
    return Plan(size, index, float(power_w[index])) if np.isfinite(power_w[index]) else None


def coming_size(telemetry: Telemetry) -> int:
    """The size that warms or, when none does, the active one."""
    warming = telemetry.in_state(InstanceState.WARMING)
    return warming.size if warming else telemetry.active.size


def change_j(scenario: Scenario, new: int, old_power_w: float, drain_s: float) -> float:
    """Energy of a change of size: the new one warms up at the top clock, the old one drains.

    Args:
        scenario: Gives the warm-up.
        new: Size that warms up.
        old_power_w: Power of the old one.
        drain_s: How long it drains; half of its power, since its batch shrinks on the way.
    """
    warm_up_s = (scenario.warm_up.min_s + scenario.warm_up.max_s) / 2
    warming_w = new * scenario.physics(new).at(scenario.top_mhz).idle_w
    return warming_w * warm_up_s + old_power_w / 2 * drain_s
