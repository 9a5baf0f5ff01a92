"""Telemetry that comes late: what a controller is worth when it sees the past."""

import math
from collections import deque

from throttllem_env.controller import Assignment, Controller, ControllerError
from throttllem_env.controller.watchdog import Watchdog
from throttllem_env.controller.wrapper import Wrapper
from throttllem_env.types import Action, ObservationArray, Telemetry


class Stale(Wrapper):
    """Shows the agent everything, in order, but some time after it was true.

    The agent does not know: it is asked about each telemetry when that is old enough, and takes its time for
    now. A watchdog inside is told the age, as a live server would. Until the first telemetry is old enough
    the clock is the top one and the size the largest, as at the start of every run.
    """

    def __init__(self, agent: Controller, delay_s: float) -> None:
        """Delay an agent's telemetry.

        Args:
            agent: Who sees the past.
            delay_s: By how much, seconds.

        Raises:
            ControllerError: The delay is below 0 or not finite.
        """
        super().__init__(agent)
        if not 0 <= delay_s < math.inf:
            raise ControllerError(f"stale: delay_s = {delay_s}: must be a finite number of at least 0")
        self._delay_s = delay_s

    def reset(self, assignment: Assignment) -> None:
        """Forget the last run, inside too."""
        super().reset(assignment)
        self._due: deque[tuple[ObservationArray | None, Telemetry]] = deque()
        self._shown: tuple[ObservationArray | None, Telemetry] | None = None
        self._action = self.top()

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """What the agent says about what was true `delay_s` ago."""
        self._due.append((observation, telemetry))
        while self._due and self._due[0][1].time_s <= telemetry.time_s - self._delay_s:
            self._shown = self._due.popleft()
            self._action = self._ask(*self._shown, self._delay_s)
        if self._shown is not None and isinstance(self.agent, Watchdog):
            # Nothing newer has come since: the watchdog sees it age, and does not ask its agent twice.
            self._action = self._ask(*self._shown, telemetry.time_s - self._shown[1].time_s)
        return self._action

    def _ask(self, observation: ObservationArray | None, telemetry: Telemetry, age_s: float) -> Action:
        if isinstance(self.agent, Watchdog):
            return self.agent.act_aged(observation, telemetry, age_s=age_s)
        return self.agent.act(observation, telemetry)
