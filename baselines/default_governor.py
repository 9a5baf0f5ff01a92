"""The vendor's default: boost while anything runs, drop when nothing has run for a while.

Source: what NVIDIA's driver does when nobody locks a clock. Its rule is not published. What is known is
what is seen: any kernel brings the highest clock that power and heat allow, memory-bound or not (GreenLLM,
arXiv 2508.16449, and VoltanaLLM, arXiv 2509.04827, start from that), and an idle board falls back to a low
clock.

Observes: whether anything runs or waits.
Parameters: `linger_s`, how long the boost outlives the work; `size`, 0 for the largest. Not tuned: a user
of the driver cannot set them; one second is what boards show.
Simplified: drops straight to the lowest clock rather than through performance states. Thermal limits are
not modelled; the board's power limit is, by the simulator.
"""

from typing import ClassVar

from throttllem_env.baselines.checks import check_range, chosen_size
from throttllem_env.controller import Assignment, BaseController, ControlPoints
from throttllem_env.types import Action, ObservationArray, Telemetry


class DefaultGovernor(BaseController):
    """Boosts at work, rests without."""

    control_points: ClassVar[ControlPoints] = "events"

    def __init__(self, linger_s: float = 1.0, size: int = 0) -> None:
        """Set it up.

        Args:
            linger_s: How long the top clock is kept without work, seconds.
            size: The size; 0 for the scenario's largest.

        Raises:
            ControllerError: A value out of range.
        """
        check_range("default-governor", 0.0, 3600.0, linger_s=linger_s)
        self._linger_s, self._size = linger_s, size

    def reset(self, assignment: Assignment) -> None:
        """Forget the last run.

        Raises:
            ControllerError: The scenario has no such size.
        """
        super().reset(assignment)
        self._chosen = chosen_size("default-governor", assignment.scenario, self._size)
        self._worked_s = float("-inf")

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The top clock with work and shortly after, else the lowest."""
        scenario = self.assignment.scenario
        if not telemetry.idle:
            self._worked_s = telemetry.time_s
        resting = telemetry.time_s - self._worked_s > self._linger_s
        return Action(scenario.gpu_spec.clocks_mhz[0] if resting else scenario.top_mhz, self._chosen)
