"""throttllem-energy: of all clocks that keep every SLO, the one of least energy in the long run.

Our own controller. It shares the projection, the constraints and the autoscaler of the reference, and
differs in three things. (1) Energy against the clock is U-shaped, and a lower clock lets the batch grow: it
never goes below the clock of least long-run power for the recent load. (2) The projection's batch is filled
up with the requests that will arrive, so that slack is not spent early and won back at the top clock.
(3) A deadline that has passed binds nothing, and one that even the top clock would miss lifts the clock only
as far as speed is cheap; while requests wait, both bind as in the reference.
"""

from collections import deque
from dataclasses import replace
from typing import ClassVar

import numpy as np

from throttllem_env.agents.autoscaler import HEADROOM, INTERVAL_S, Autoscaler
from throttllem_env.controller import Assignment, BaseController, ControllerError, ControlPoints
from throttllem_env.prediction import Forecaster, Outlook, Verdict, first_feasible, judge
from throttllem_env.prediction.steady import SteadyLoad, SteadyState, steady_state
from throttllem_env.types import Action, FinishedRequest, ObservationArray, Telemetry

MARGIN, TOLERANCE, HASTE = 0.3, 0.002, 0.05
"""Chosen on the validation blocks of Azure 2023 conv at loads 0.5 and 1.0."""

REMEMBERED = 500
"""Finished requests that stand for the load's lengths."""

FEWEST = 20
"""Before so many have finished, only the projection counts."""


class ThrottllemEnergy(BaseController):
    """Least energy among feasible clocks; decides at every arrival and completion."""

    control_points: ClassVar[ControlPoints] = "events"

    def __init__(
        self,
        margin: float = MARGIN,
        headroom: float = HEADROOM,
        tolerance: float = TOLERANCE,
        haste: float = HASTE,
    ) -> None:
        """Set the margins.

        Args:
            margin: Share of the time left before a deadline that is kept in reserve, in [0, 1).
            headroom: Share by which a size's rated load must exceed the request rate.
            tolerance: Share of the least long-run power that may be given for slack.
            haste: The same where a request may be late at any clock.

        Raises:
            ControllerError: A value out of range.
        """
        if not 0 <= margin < 1:
            raise ControllerError(f"throttllem-energy: margin = {margin}: must be at least 0 and below 1")
        for name, value in (("headroom", headroom), ("tolerance", tolerance), ("haste", haste)):
            if not 0 <= value < float("inf"):
                raise ControllerError(f"throttllem-energy: {name} = {value}: must be a number of at least 0")
        self._margin, self._headroom = margin, headroom
        self._tolerance, self._haste = tolerance, haste

    def reset(self, assignment: Assignment) -> None:
        """Forget the last run."""
        super().reset(assignment)
        scenario = assignment.scenario
        self._forecaster = Forecaster.of(scenario, assignment.slo, assignment.lengths, margin=self._margin)
        self._autoscaler = Autoscaler(scenario, self._headroom, slo_scale=assignment.slo_scale)
        self._finished: deque[FinishedRequest] = deque(maxlen=REMEMBERED)
        self._load: SteadyLoad | None = None
        self._states: dict[tuple[int, int], SteadyState] = {}
        self._next_check_s = 0.0

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The clock of least energy among the feasible ones, and the size that the load needs."""
        self._finished.extend(telemetry.finished)
        if telemetry.time_s >= self._next_check_s:
            self._next_check_s = telemetry.time_s + INTERVAL_S
            self._update_load(telemetry)
        size = self._autoscaler.size(telemetry)
        return Action(self._frequency_mhz(telemetry), size)

    def _update_load(self, telemetry: Telemetry) -> None:
        enough = len(self._finished) >= FEWEST
        self._load = SteadyLoad.of(telemetry.recent.request_rate_rps, self._finished) if enough else None
        self._states = {}

    def steady(self, size: int, mhz: int) -> SteadyState | None:
        """Where a size at a clock settles under the recent load; None before enough is known of it."""
        if self._load is None:
            return None
        key = (size, mhz)
        if key not in self._states:
            scenario = self.assignment.scenario
            self._states[key] = steady_state(scenario, scenario.physics(size), mhz, self._load)
        return self._states[key]

    def thrifty_clock(self, size: int, tolerance: float) -> int:
        """Index of the highest clock whose long-run power is within a tolerance of the least.

        The curve is flat around its minimum: a little more power there buys much slack. Every third clock
        is close enough.

        Args:
            size: Instance size.
            tolerance: Share of the least long-run power that may be given for speed.
        """
        clocks = self.assignment.scenario.gpu_spec.clocks_mhz
        powers: list[tuple[int, float]] = []
        for index in range(len(clocks) - 1, -1, -3):
            state = self.steady(size, clocks[index])
            if state is None or not state.sustained:
                break
            powers.append((index, state.power_w))
        if not powers:
            return len(clocks) - 1
        limit_w = min(power_w for _, power_w in powers) * (1 + tolerance)
        return next(index for index, power_w in powers if power_w <= limit_w)

    def _frequency_mhz(self, telemetry: Telemetry) -> int:
        scenario = self.assignment.scenario
        if telemetry.idle:
            return scenario.idle_mhz
        clocks = scenario.gpu_spec.clocks_mhz
        high = len(clocks) - 1
        outlook = self._forecaster.outlook(telemetry)
        if outlook.lost:
            return clocks[high]
        # Where requests wait, hurrying for the late ones helps those behind them: the queue moves faster.
        bound = outlook
        if not len(telemetry.waiting):
            outlook = forget_the_late(outlook)
            bound = self._attainable(outlook, clocks[high])
        hurry = bool(np.any(bound.deadline_s > outlook.deadline_s))
        low = self._floor(outlook.size, hurry=hurry)
        if not self._feasible(bound, clocks[high]):
            return clocks[high]
        return clocks[first_feasible(lambda index: self._feasible(bound, clocks[index]), low, high)]

    def _floor(self, size: int, *, hurry: bool) -> int:
        """Index of the lowest clock to consider.

        For a request that may be late at any clock, the clock rises as far as speed is cheap, not to the
        top: most predictions of that kind are too long, and the last tenth of the clock costs most.
        """
        if self._load is None:
            return len(self.assignment.scenario.gpu_spec.clocks_mhz) - 1 if hurry else 0
        return self.thrifty_clock(size, self._haste if hurry else self._tolerance)

    def _attainable(self, outlook: Outlook, top_mhz: int) -> Outlook:
        """Lift deadlines that even the top clock would miss, arrivals counted in."""
        missed = self._verdict(outlook, top_mhz).finish_s > outlook.deadline_s
        return replace(outlook, deadline_s=np.where(missed, np.inf, outlook.deadline_s))

    def _feasible(self, outlook: Outlook, mhz: int) -> bool:
        return self._verdict(outlook, mhz).feasible

    def _verdict(self, outlook: Outlook, mhz: int) -> Verdict:
        return judge(self._with_arrivals(outlook, mhz), self._forecaster.predictor, mhz)

    def _with_arrivals(self, outlook: Outlook, mhz: int) -> Outlook:
        """Fill the projected batch and KV up to where they will settle."""
        projection, load, state = outlook.projection, self._load, self.steady(outlook.size, mhz)
        if load is None or state is None:
            return outlook
        batch = np.maximum(projection.batch, round(state.batch))
        blocks = round(state.batch * load.context_tokens / self.assignment.scenario.engine.block_size)
        filled = replace(projection, batch=batch, kv_blocks=np.maximum(projection.kv_blocks, blocks))
        return replace(outlook, projection=filled)


def forget_the_late(outlook: Outlook) -> Outlook:
    """Lift deadlines that have passed: nothing can be won there any more."""
    passed = outlook.deadline_s <= outlook.now_s
    return replace(outlook, deadline_s=np.where(passed, np.inf, outlook.deadline_s))
