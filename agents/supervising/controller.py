"""learned: a searched policy supervises the projection (`supervision`); needs NumPy alone."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from throttllem_env.agents.supervising.policy_file import PolicyFile, require_aim, shipped_policy
from throttllem_env.agents.supervising.supervision import Node, Supervision
from throttllem_env.controller import Assignment, BaseController
from throttllem_env.envs.features import feature_groups
from throttllem_env.types import Action, ObservationArray, Telemetry


class Learned(BaseController):
    """Asked once per second, as it was trained."""

    needs_observation: ClassVar[bool] = True

    def __init__(self, policy: str = "", aim: str = "punctual") -> None:
        """Choose a policy.

        Args:
            policy: Path of a policy's file; without one, the policy that is shipped for the scenario.
            aim: Which of those that are shipped: `punctual`, late no more often than `throttllem`, or
                `thrifty`, the least energy that holds the SLOs.

        Raises:
            ControllerError: There is no such policy, or no such aim.
        """
        self._aim = require_aim(aim)
        self._given = PolicyFile.load(Path(policy)) if policy else None

    def reset(self, assignment: Assignment) -> None:
        """Forget the last run.

        Raises:
            ControllerError: No policy is shipped for the scenario, and none was given.
        """
        super().reset(assignment)
        scenario = assignment.scenario
        policy = self._given or shipped_policy(scenario.name, self._aim)
        groups = feature_groups(scenario, projections=True)
        names = [feature.name for group in groups.values() for feature in group]
        node = Node(scenario, assignment.slo_scale)
        self._supervision = Supervision(policy.policies, node, names)

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The clock within the policy's bounds, and the size that its demand needs."""
        if observation is None:
            raise ValueError("observation = None: learned reads the environment's observation")
        scenario = self.assignment.scenario
        clocks, sizes = self._supervision.decide(observation[None, None], np.array([[telemetry.time_s]]))
        return Action(scenario.gpu_spec.clocks_mhz[int(clocks[0, 0])], scenario.sizes[int(sizes[0, 0])])


def from_path(path: str) -> Learned:
    """The controller that a policy's file is.

    Args:
        path: What `throttllem train --algo cma-es` wrote.

    Raises:
        ControllerError: There is no such file, or it is no policy.
    """
    return Learned(path)
