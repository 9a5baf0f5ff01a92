"""Power capping: a limit on the mean power of a GPU, held by feedback, as running-average limiters do.

Source: the limit that `nvidia-smi -pl` sets and POLCA (Patel et al., "Characterizing Power Management
Opportunities for LLMs in the Cloud", ASPLOS 2024) manages clusters with; the form of Intel's running
average power limit. What POLCA finds is that a cap takes more watts than speed. A cap knows no deadlines.

Observes: measured power, number of GPUs.
Parameters: `cap_w`, mean watts per GPU; `window_s`, over which they are averaged; `size`, 0 for the
largest. `cap_w` was tuned on train and validation blocks (`scripts/tune.py rivals`, docs/rivals.md).
Simplified: a board's own regulator acts within milliseconds, so it cuts each prompt's peak (a scenario's
`power_cap_w` does that); whoever sets clocks from outside comes too late for a prompt of a tenth of a
second, and can only hold a mean.
"""

from collections import deque
from typing import ClassVar

from throttllem_env.baselines.checks import check_range, chosen_size
from throttllem_env.controller import Assignment, BaseController
from throttllem_env.types import Action, ObservationArray, Telemetry

CAP_W, WINDOW_S = 190.0, 2.0

GAIN_PER_S = 0.5
"""Share of the clock's range by which it moves in a second for an error of 100 %."""


class PowerCap(BaseController):
    """Lowers the clock above the cap, raises it below."""

    period_s: ClassVar[float] = 0.5

    def __init__(self, cap_w: float = CAP_W, window_s: float = WINDOW_S, size: int = 0) -> None:
        """Set it up.

        Args:
            cap_w: Mean watts that a GPU may draw.
            window_s: Over which power is averaged, seconds.
            size: The size; 0 for the scenario's largest.

        Raises:
            ControllerError: A value out of range.
        """
        check_range("power-cap", 1.0, 2000.0, cap_w=cap_w)
        check_range("power-cap", 0.5, 3600.0, window_s=window_s)
        self._cap_w, self._window_s, self._size = cap_w, window_s, size

    def reset(self, assignment: Assignment) -> None:
        """Begin at the top clock.

        Raises:
            ControllerError: The scenario has no such size.
        """
        super().reset(assignment)
        self._chosen = chosen_size("power-cap", assignment.scenario, self._size)
        self._position = 1.0
        self._spent: deque[tuple[float, float, float]] = deque()  # (until, joules, GPU seconds)

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """Where the loop stands; the scenario's idle clock when nothing runs."""
        scenario = self.assignment.scenario
        self._measure(telemetry)
        if telemetry.idle:
            return Action(scenario.idle_mhz, self._chosen)
        error = 1 - self.mean_w / self._cap_w
        self._position = min(max(self._position + GAIN_PER_S * self.period_s * error, 0.0), 1.0)
        clocks = scenario.gpu_spec.clocks_mhz
        return Action(clocks[round(self._position * (len(clocks) - 1))], self._chosen)

    @property
    def mean_w(self) -> float:
        """Mean power of a GPU over the window; 0 before any time has passed."""
        gpu_seconds = sum(spent[2] for spent in self._spent)
        return sum(spent[1] for spent in self._spent) / gpu_seconds if gpu_seconds > 0 else 0.0

    def _measure(self, telemetry: Telemetry) -> None:
        elapsed_s = telemetry.time_s - telemetry.previous_s
        gpus = telemetry.active.size + sum(instance.size for instance in telemetry.others)
        self._spent.append((telemetry.time_s, telemetry.power_w * elapsed_s, gpus * elapsed_s))
        while self._spent[0][0] <= telemetry.time_s - self._window_s:
            self._spent.popleft()
