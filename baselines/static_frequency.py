"""One clock for the whole run, chosen beforehand."""

from throttllem_env.baselines.checks import chosen_size
from throttllem_env.controller import Assignment, BaseController, ControllerError
from throttllem_env.types import Action, ObservationArray, Telemetry


class StaticFrequency(BaseController):
    """Locks a clock and keeps it, at the largest size or at one that is given."""

    def __init__(self, mhz: int, size: int = 0) -> None:
        """Choose.

        Args:
            mhz: The clock, MHz.
            size: The size; 0 for the scenario's largest.
        """
        self._mhz, self._size = mhz, size

    def reset(self, assignment: Assignment) -> None:
        """Check the choice against the scenario.

        Raises:
            ControllerError: The GPU does not support the clock, or the scenario has no such size.
        """
        super().reset(assignment)
        scenario = assignment.scenario
        if self._mhz not in scenario.gpu_spec.clocks_mhz:
            nearest_mhz = scenario.snap_mhz(self._mhz)
            raise ControllerError(
                f"static-frequency: mhz = {self._mhz}: not supported; the nearest is {nearest_mhz}"
            )
        self._chosen = chosen_size("static-frequency", scenario, self._size)

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The same every time."""
        return Action(self._mhz, self._chosen)
