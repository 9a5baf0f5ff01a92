"""The reward: energy and broken promises, integrated over a step (docs/design.md, Contracts)."""

from dataclasses import dataclass

from throttllem_env.scenario import Scenario
from throttllem_env.slo import Slo, deadlines_passed
from throttllem_env.types import Telemetry

REWARD_TERMS = ("energy", "violations")
"""Names of the terms, in the order in which a vector reward holds them."""


@dataclass(frozen=True, slots=True)
class StepReward:
    """What a step is worth.

    Attributes:
        energy_j: Energy of all allocated GPUs in the step, joules.
        cost: Deadlines that passed unmet in the step, plus rejections.
        terms: The reward's terms by name, each at most 0; the reward is their sum.
    """

    energy_j: float
    cost: int
    terms: dict[str, float]

    @property
    def total(self) -> float:
        """The reward."""
        return sum(self.terms.values())


class RewardModel:
    """Reward over a step = -w_e energy_j / (P_ref 1 s) - w_v cost / (rated_load 1 s).

    A second at the reference power costs w_e, and w_v x a violation per rated request. Each term is an
    integral over the step, so an episode's return does not depend on how it is cut into steps.

    Attributes:
        per_j: What a joule costs.
        per_violation: What a deadline that passes unmet costs.
    """

    def __init__(
        self, scenario: Scenario, slo: Slo, energy_weight: float = 1.0, violation_weight: float = 10.0
    ) -> None:
        """Prepare for a scenario.

        Args:
            scenario: Gives the reference power and the rated load of the largest size.
            slo: Gives the deadlines.
            energy_weight: w_e.
            violation_weight: w_v.
        """
        self._e2e_slo_s = slo.e2e_s
        self.per_j = energy_weight / scenario.reference_power_w
        self.per_violation = violation_weight / scenario.rated_rps(scenario.largest_size)

    def step(self, previous: Telemetry, now: Telemetry) -> StepReward:
        """Value the time between two control points.

        Args:
            previous: State at the step's start.
            now: State at its end, with what happened in between.
        """
        energy_j = now.energy_j - previous.energy_j
        cost = deadlines_passed(now, previous.time_s, self._e2e_slo_s) + now.rejected
        # Subtracted from 0, so that a step without violations has 0, not -0.
        values = (0.0 - self.per_j * energy_j, 0.0 - self.per_violation * cost)
        return StepReward(energy_j, cost, dict(zip(REWARD_TERMS, values, strict=True)))
