"""What the physics leave to be saved: the least long-run power, minute by minute, without any deadline.

A bound to read savings against, not a controller: it knows each minute's rate, changes clock and size for
nothing, and asks only that the load is carried. Where even this saves little, no controller can save much.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throttllem_env.evaluation.reproduction.tasks import TRACE_FILES
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.types import FloatArray

if TYPE_CHECKING:
    from throttllem_env.prediction.steady import SteadyLoad

MINUTE_S = 60.0
RATES = 40
"""Rates at which powers are worked out; in between they are interpolated."""

CLOCK_STEP = 3
"""Every third clock, 45 MHz apart, is close enough."""


@dataclass(frozen=True, slots=True)
class LimitTask:
    """The bound for one trace at one load.

    Attributes:
        scenario: Name of the scenario.
        trace: Key in `TRACE_FILES`.
        load: Share of the rated load.
    """

    scenario: str
    trace: str = "conv"
    load: float = 1.0

    def run(self, traces: Path) -> dict[str, Any]:
        """Work it out.

        Returns:
            `clock`: saving of the largest size at each minute's cheapest clock, `size`: of every minute's
            cheapest size at the top clock, `both`; all against the largest size at the top clock.
        """
        from throttllem_env.prediction.steady import SteadyLoad
        from throttllem_env.serving.workload import prepare_workload

        scenario = load_scenario(self.scenario)
        path = str(traces / TRACE_FILES[self.trace])
        trace = prepare_workload(path, scenario, load=self.load).trace
        rates = minute_rates(trace.arrival_s, trace.duration_s)
        load = SteadyLoad.of_lengths(1.0, trace.prompt_tokens, trace.output_tokens)
        if load is None:
            raise ValueError(f"trace = {path}: no requests")
        return savings(scenario, load.at_rate, rates)


def minute_rates(arrival_s: FloatArray, duration_s: float) -> FloatArray:
    """Requests per second in equal pieces of about a minute.

    Args:
        arrival_s: float64[n].
        duration_s: Length of the trace.
    """
    pieces = max(round(duration_s / MINUTE_S), 1)
    counts, _ = np.histogram(arrival_s, pieces, (0.0, duration_s))
    rates: FloatArray = counts * pieces / duration_s
    return rates


def savings(
    scenario: Scenario, load_at: "Callable[[float], SteadyLoad]", rates: FloatArray
) -> dict[str, float]:
    """Share of the energy of the largest size at the top clock that need not be spent.

    Args:
        scenario: Gives sizes, clocks and physics.
        load_at: The load at a rate.
        rates: float64[m], requests per second of every minute.
    """
    grid = np.linspace(0.0, rates.max(), RATES)
    clocks = scenario.gpu_spec.clocks_mhz[::-CLOCK_STEP]
    powers = np.array(
        [[least_powers(scenario, size, load_at(rate), clocks) for size in scenario.sizes] for rate in grid]
    )
    at_top, at_best = powers[:, :, 0], powers[:, :, 1]
    spent = {
        "top": at_top[:, -1],
        "clock": at_best[:, -1],
        "size": at_top.min(axis=1),
        "both": at_best.min(axis=1),
    }
    energy = {name: float(np.interp(rates, grid, power_w).sum()) for name, power_w in spent.items()}
    return {name: 1 - joules / energy["top"] for name, joules in energy.items() if name != "top"}


def least_powers(
    scenario: Scenario, size: int, load: "SteadyLoad", clocks_mhz: tuple[int, ...]
) -> tuple[float, float]:
    """Long-run power of a size at the top clock and at its cheapest clock that carries the load.

    Args:
        scenario: Gives the physics.
        size: Instance size.
        load: What is asked of it.
        clocks_mhz: Clocks to choose from, the top clock first.

    Returns:
        Watts; infinite where the load is not carried, but for the largest size, which then runs full.
    """
    from throttllem_env.prediction.steady import steady_state

    physics = scenario.physics(size)
    states = [steady_state(scenario, physics, mhz, load) for mhz in clocks_mhz]
    carried = [state.power_w for state in states if state.sustained]
    if not states[0].sustained:
        full_w = states[0].power_w if size == scenario.largest_size else float("inf")
        return full_w, full_w
    return states[0].power_w, min(carried)
