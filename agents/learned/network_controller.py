"""A network as a controller: the observation in, the best action out."""

from typing import cast

from throttllem_env.agents.learned.deciders import make_decider
from throttllem_env.agents.learned.network import Network
from throttllem_env.agents.learned.policy_file import PolicyFile
from throttllem_env.controller import Assignment, ControllerError, ControlPoints
from throttllem_env.envs.features import feature_groups
from throttllem_env.scenario import Scenario
from throttllem_env.suggest import nearest
from throttllem_env.types import Action, ObservationArray, Telemetry


class NetworkController:
    """Decides as a trained network does, and draws nothing: it always takes the best action.

    Attributes:
        control_points: Those of its training.
        period_s: That of its training, seconds.
        needs_observation: True.
    """

    needs_observation = True

    def __init__(self, policy: PolicyFile, label: str) -> None:
        """Build the network.

        Args:
            policy: Of the kind `network`.
            label: How messages call it.

        Raises:
            ControllerError: Something is missing in it.
        """
        self._label = label
        try:
            self._network = Network(policy.description["network"], policy.arrays)
            self._decider = make_decider(policy.description["actions"])
            self._features = tuple(policy.description["observation_names"])
            self.control_points = cast(ControlPoints, str(policy.description["control"]))
            self.period_s = float(policy.description["control_period_s"])
        except KeyError as error:
            raise ControllerError(f"agent = {label!r}: damaged: {error} is missing") from None
        for what, found, wanted in (
            ("features", self._network.inputs, len(self._features) + self._decider.extra),
            ("outputs", self._network.outputs, self._decider.outputs),
        ):
            if found != wanted:
                raise ControllerError(
                    f"agent = {label!r}: damaged: its network has {found} {what}, not {wanted}"
                )

    def reset(self, assignment: Assignment) -> None:
        """Begin a run.

        Raises:
            ControllerError: The scenario's observations or actions are not those that it was trained on; the
                message names the difference.
        """
        scenario = assignment.scenario
        try:
            self._columns = _columns(self._features, scenario)
            self._decider.reset(assignment)
        except ControllerError as error:
            raise ControllerError(
                f"agent = {self._label!r} does not fit scenario {scenario.name!r}: {error}"
            ) from None
        self._network.forget()

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """Decide."""
        if observation is None:
            raise ValueError(f"agent = {self._label!r}: it needs an observation")
        return self._decider.decide(self._network, observation[self._columns], telemetry)


def _columns(features: tuple[str, ...], scenario: Scenario) -> list[int]:
    """Where features stand in what a scenario shows."""
    groups = feature_groups(scenario, projections=True).values()
    shown = [feature.name for group in groups for feature in group]
    for name in features:
        if name not in shown:
            raise ControllerError(f"observation: feature {name!r} is not there; {nearest(name, shown)}")
    return [shown.index(name) for name in features]
