"""Controllers around another one: what is the same for all of them."""

from collections.abc import Iterator

from throttllem_env.controller import Assignment, Controller, ControlPoints
from throttllem_env.types import Action, ObservationArray, Telemetry


class Wrapper:
    """Asks the agent inside, at its own control points, and does what it says.

    Attributes:
        agent: The controller inside.
    """

    def __init__(self, agent: Controller) -> None:
        """Wrap.

        Args:
            agent: The controller inside.
        """
        self.agent = agent

    @property
    def control_points(self) -> ControlPoints:
        """Those of the agent."""
        return self.agent.control_points

    @property
    def period_s(self) -> float:
        """That of the agent, seconds."""
        return self.agent.period_s

    @property
    def needs_observation(self) -> bool:
        """Whether the agent reads observations."""
        return self.agent.needs_observation

    def reset(self, assignment: Assignment) -> None:
        """Forget the last run, inside too."""
        self.assignment = assignment
        self.agent.reset(assignment)

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """What the agent says."""
        return self.agent.act(observation, telemetry)

    def top(self, size: int | None = None) -> Action:
        """The top clock, and the largest size or the one that is given."""
        scenario = self.assignment.scenario
        return Action(scenario.top_mhz, scenario.largest_size if size is None else size)


def layers(controller: Controller) -> Iterator[Controller]:
    """A controller and what it wraps, from the outside in.

    Args:
        controller: Wrapped or not.
    """
    yield controller
    while isinstance(controller, Wrapper):
        controller = controller.agent
        yield controller
