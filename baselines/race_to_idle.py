"""Race to idle: do what there is as fast as possible, then rest at the lowest clock.

Source: the oldest idea of power management; Albers and Antoniadis, "Race to idle: new algorithms for speed
scaling with a sleep state" (SODA 2012) say when it pays: where resting saves much and speed costs little. A
GPU that holds a model saves little at rest, and its last hundred MHz cost most, so here it should lose
against a steady pace.

Observes: whether anything runs or waits.
Parameters: `size`, 0 for the largest. Nothing to tune.
Simplified: a model's GPUs cannot sleep, since loading it again takes longer than a lull; so it rests at the
lowest clock. Requests are not held back to make lulls longer: admission is the same for all.
"""

from typing import ClassVar

from throttllem_env.baselines.checks import chosen_size
from throttllem_env.controller import Assignment, BaseController, ControlPoints
from throttllem_env.types import Action, ObservationArray, Telemetry


class RaceToIdle(BaseController):
    """The top clock or the lowest, nothing between."""

    control_points: ClassVar[ControlPoints] = "events"

    def __init__(self, size: int = 0) -> None:
        """Set it up.

        Args:
            size: The size; 0 for the scenario's largest.
        """
        self._size = size

    def reset(self, assignment: Assignment) -> None:
        """Look the size up.

        Raises:
            ControllerError: The scenario has no such size.
        """
        super().reset(assignment)
        self._chosen = chosen_size("race-to-idle", assignment.scenario, self._size)

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The top clock while there is work."""
        clocks = self.assignment.scenario.gpu_spec.clocks_mhz
        return Action(clocks[0] if telemetry.idle else clocks[-1], self._chosen)
