"""A plain PID loop on the slack in the time between tokens.

Source: the textbook controller (Astrom and Hagglund, "PID Controllers", 1995), in the form that operators
would try first: the error is the share of the target time per token that is left over or missing.

Observes: measured times between tokens, finished answers' lengths (for the target), waiting requests.
Parameters: `setpoint`, share of the E2E SLO that a long answer may take; `gain`, `integral_s`,
`derivative_s`; `window_s` of the measurement; `size`. Tuned on train and validation blocks
(`scripts/tune.py rivals`, docs/rivals.md).
Simplified: nothing, but for what every loop needs here: the integral is bounded by the range of the clock,
and a request that has waited long for a place lifts the clock to the top, since it has no token to measure.
"""

from typing import ClassVar

from throttllem_env.baselines.checks import check_range, chosen_size
from throttllem_env.baselines.pace import Pace
from throttllem_env.baselines.signals import TokenMeter, longest_wait_s
from throttllem_env.controller import Assignment, BaseController
from throttllem_env.types import Action, ObservationArray, Telemetry

SETPOINT, GAIN, INTEGRAL_S, DERIVATIVE_S, WINDOW_S = 0.95, 0.2, 5.0, 0.0, 2.0

LONG_WAIT_S = 2.0
"""Whoever waits so long for a place in the batch waits for speed."""


class Pid(BaseController):
    """Error in, clock out."""

    period_s: ClassVar[float] = 0.5

    def __init__(
        self,
        setpoint: float = SETPOINT,
        gain: float = GAIN,
        integral_s: float = INTEGRAL_S,
        derivative_s: float = DERIVATIVE_S,
        window_s: float = WINDOW_S,
        size: int = 0,
    ) -> None:
        """Set it up.

        Args:
            setpoint: Share of the E2E SLO that a long answer may take for its tokens.
            gain: Share of the clock's range by which it moves for an error of 100 %.
            integral_s: Time in which a lasting error moves it by as much again, seconds.
            derivative_s: How far an error's trend is looked ahead, seconds.
            window_s: Over which times between tokens are averaged, seconds.
            size: The size; 0 for the scenario's largest.

        Raises:
            ControllerError: A value out of range.
        """
        check_range("pid", 0.01, 1.0, setpoint=setpoint)
        check_range("pid", 0.0, 100.0, gain=gain, derivative_s=derivative_s)
        check_range("pid", 0.1, 3600.0, integral_s=integral_s, window_s=window_s)
        self._setpoint, self._gain = setpoint, gain
        self._integral_s, self._derivative_s = integral_s, derivative_s
        self._window_s, self._size = window_s, size

    def reset(self, assignment: Assignment) -> None:
        """Begin at the top clock.

        Raises:
            ControllerError: The scenario has no such size.
        """
        super().reset(assignment)
        self._chosen = chosen_size("pid", assignment.scenario, self._size)
        self._pace = Pace(assignment, self._setpoint)
        self._meter = TokenMeter(self._window_s)
        self._integral, self._last_error = 1.0, 0.0

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """Between the lowest clock (0) and the top (1), where the loop stands."""
        self._pace.observe(telemetry)
        self._meter.observe(telemetry)
        scenario = self.assignment.scenario
        measured_s = self._meter.mean_tbt_s
        if telemetry.idle or measured_s is None:
            return Action(scenario.idle_mhz, self._chosen)
        position = self.step(measured_s / self._pace.target_s - 1)
        if longest_wait_s(telemetry) > LONG_WAIT_S:
            position = 1.0
        clocks = scenario.gpu_spec.clocks_mhz
        return Action(clocks[round(position * (len(clocks) - 1))], self._chosen)

    def step(self, error: float) -> float:
        """One turn of the loop.

        Args:
            error: By how much the time between tokens is above its target, as a share of it.

        Returns:
            Where the clock should be, from 0 for the lowest to 1 for the top.
        """
        # Once an iteration runs past its target by far, how far says nothing more.
        error = min(error, 1.0)
        moved = self._gain * error * self.period_s / self._integral_s
        self._integral = min(max(self._integral + moved, 0.0), 1.0)
        trend = (error - self._last_error) / self.period_s
        self._last_error = error
        position = self._integral + self._gain * (error + self._derivative_s * trend)
        return min(max(position, 0.0), 1.0)
