"""An agent that reads the environment's observation, in the loop that evaluates every controller."""

from typing import ClassVar

import numpy as np

from throttllem_env.controller import Assignment, BaseController
from throttllem_env.envs.features import feature_groups
from throttllem_env.evaluation.runner import run_controller
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.workload import prepare_workload
from throttllem_env.types import Action, ObservationArray, Telemetry

WEIGHTS = {"batch": 1.0, "kv_used": 0.5}
"""A policy of two numbers by feature; a trained one has more."""


class Linear(BaseController):
    """The clock as a linear function of the observation, at the largest size."""

    needs_observation: ClassVar[bool] = True

    def reset(self, assignment: Assignment) -> None:
        """Find out where each feature stands in the observation."""
        super().reset(assignment)
        groups = feature_groups(assignment.scenario, projections=True)
        names = [feature.name for group in groups.values() for feature in group]
        self._weights = np.array([WEIGHTS.get(name, 0.0) for name in names])

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """A share of the range of clocks."""
        assert observation is not None
        clocks = self.assignment.scenario.gpu_spec.clocks_mhz
        share = float(np.clip(0.4 + observation @ self._weights, 0, 1))
        return Action(clocks[round(share * (len(clocks) - 1))], self.assignment.scenario.largest_size)


def main() -> None:
    """Serve five minutes of generated chat requests."""
    scenario = load_scenario("llama2-13b-a100")
    workload = prepare_workload("azure-conv-like", scenario, load=0.5, seed=0, duration_s=300)
    metrics = run_controller(Linear(), scenario, workload, slo=scenario.latency_slo()).metrics
    print(f"linear: {metrics['energy_j'] / 3.6e6:.3f} kWh, {metrics['slo_attainment']:.2%} in time")


if __name__ == "__main__":
    main()
