"""throttllem-energy: of all clocks and sizes that keep every SLO, those of least energy in the long run.

Our own controller. It shares the projection and the constraints of the reference, and differs in four things.
(1) Energy against the clock is U-shaped, and a lower clock lets the batch grow: it never goes below the clock
of least long-run power for the recent load. (2) The projection's batch is filled up with the requests that
will arrive, so that slack is not spent early and won back at the top clock. (3) What it keeps in reserve is a
share of the slack that the top clock would leave, which is small where a deadline is tight: it need not
sprint for a reserve. A request that even the top clock would make late gets the top clock if it can be saved
should its predicted length be too long; otherwise it lifts the clock only as far as speed is cheap, unless
others wait behind it. (4) A change of size must pay for itself (`energy_autoscaler`).
"""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from throttllem_env.agents.energy_autoscaler import HEADROOM, HYSTERESIS, PATIENCE, EnergyAutoscaler
from throttllem_env.agents.long_run import LongRun
from throttllem_env.controller import Assignment, BaseController, ControllerError, ControlPoints
from throttllem_env.prediction import Forecaster, Outlook, Verdict, first_feasible, judge
from throttllem_env.types import Action, BoolArray, ObservationArray, Telemetry

MARGIN, TOLERANCE, HASTE, DOUBT = 0.5, 0.002, 0.2, 0.23
"""Chosen on train and validation blocks of Azure 2023 conv, loads 0.5 to 1.0, SLO scales 0.75 to 1.5
(`scripts/tune.py energy`); a doubt of 0.23 takes back the 30 % by which `noisy-30` enlarges lengths."""


class ThrottllemEnergy(BaseController):
    """Least energy among feasible clocks; decides at every arrival and completion."""

    control_points: ClassVar[ControlPoints] = "events"

    def __init__(
        self,
        margin: float = MARGIN,
        headroom: float = HEADROOM,
        tolerance: float = TOLERANCE,
        haste: float = HASTE,
        doubt: float = DOUBT,
        hysteresis: float = HYSTERESIS,
        patience: float = PATIENCE,
    ) -> None:
        """Set the margins.

        Args:
            margin: Share of the slack at the top clock that is kept in reserve, in [0, 1).
            headroom: Share by which a size's rated load must exceed the request rate.
            tolerance: Share of the least long-run power that may be given for slack.
            haste: The same where a request will be late at any clock.
            doubt: Share by which a predicted completion may be too far off, in [0, 1).
            hysteresis: Share by which it must exceed the rate besides, before shrinking to that size.
            patience: Share of the cost of a change of size and back that must have been missed before it.

        Raises:
            ControllerError: A value out of range.
        """
        for name, value in {"margin": margin, "doubt": doubt}.items():
            if not 0 <= value < 1:
                raise ControllerError(f"throttllem-energy: {name} = {value}: must be at least 0 and below 1")
        shares = {"headroom": headroom, "tolerance": tolerance, "haste": haste}
        shares |= {"hysteresis": hysteresis, "patience": patience}
        for name, value in shares.items():
            if not 0 <= value < float("inf"):
                raise ControllerError(f"throttllem-energy: {name} = {value}: must be a number of at least 0")
        self._margin, self._tolerance, self._haste, self._doubt = margin, tolerance, haste, doubt
        self._sizing = {"headroom": headroom, "hysteresis": hysteresis, "patience": patience}

    def reset(self, assignment: Assignment) -> None:
        """Forget the last run."""
        super().reset(assignment)
        scenario = assignment.scenario
        self._forecaster = Forecaster.of(scenario, assignment.slo, assignment.lengths)
        self.long_run = LongRun(scenario, assignment.slo.e2e_s)
        self._autoscaler = EnergyAutoscaler(
            scenario, self.long_run, slo_scale=assignment.slo_scale, **self._sizing
        )
        self._last = len(scenario.gpu_spec.clocks_mhz) - 1

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The clock of least energy among the feasible ones, and the size that the load needs."""
        self.long_run.observe(telemetry)
        size = self._autoscaler.size(telemetry)
        return Action(self._frequency_mhz(telemetry), size)

    def _frequency_mhz(self, telemetry: Telemetry) -> int:
        scenario = self.assignment.scenario
        if telemetry.idle:
            return scenario.idle_mhz
        clocks = scenario.gpu_spec.clocks_mhz
        high = len(clocks) - 1
        outlook = self._forecaster.outlook(telemetry)
        if outlook.lost:
            return clocks[high]
        at_top = self._verdict(outlook, clocks[high])
        late = at_top.finish_s > outlook.deadline_s
        # Where requests wait, hurrying for the late ones helps those behind them: the queue moves faster.
        if (len(telemetry.waiting) and late.any()) or np.any(late & self.may_be_saved(outlook, at_top)):
            return clocks[high]
        bound = self.with_reserve(outlook, at_top, late)
        hurry = bool(np.any(late & (outlook.deadline_s > outlook.now_s)))
        low = self._floor(outlook.size, hurry=hurry)
        found = first_feasible(lambda index: self._feasible(bound, clocks[index]), low, high, self._last)
        self._last = high if found is None else found
        return clocks[self._last]

    def may_be_saved(self, outlook: Outlook, at_top: Verdict) -> BoolArray:
        """Who keeps the deadline at the top clock if the predicted length is too long by the doubt.

        Args:
            outlook: With the true deadlines.
            at_top: How they fare at the top clock.

        Returns:
            bool[n].
        """
        left_s = outlook.deadline_s - outlook.now_s
        saved: BoolArray = (at_top.finish_s - outlook.now_s) * (1 - self._doubt) <= left_s
        return saved

    def with_reserve(self, outlook: Outlook, at_top: Verdict, late: BoolArray) -> Outlook:
        """Deadlines that keep a share of the slack at the top clock; none for those late at any clock.

        Args:
            outlook: With the true deadlines.
            at_top: How they fare at the top clock.
            late: bool[n], who misses them even there.
        """
        deadline_s = outlook.deadline_s
        slack_s = np.where(np.isfinite(deadline_s), deadline_s - at_top.finish_s, 0.0)
        return replace(outlook, deadline_s=np.where(late, np.inf, deadline_s - self._margin * slack_s))

    def _floor(self, size: int, *, hurry: bool) -> int:
        """Index of the lowest clock to consider.

        For a request that may be late at any clock, the clock rises as far as speed is cheap, not to the
        top: most predictions of that kind are too long, and the last tenth of the clock costs most.
        """
        if self.long_run.load is None:
            return len(self.assignment.scenario.gpu_spec.clocks_mhz) - 1 if hurry else 0
        return self.long_run.thrifty_clock(size, self._haste if hurry else self._tolerance)

    def _feasible(self, outlook: Outlook, mhz: int) -> bool:
        return self._verdict(outlook, mhz).feasible

    def _verdict(self, outlook: Outlook, mhz: int) -> Verdict:
        """Judge with the projected batch and KV filled up to where they will settle."""
        load, state = self.long_run.load, self.long_run.steady(outlook.size, mhz)
        if load is None or state is None:
            return judge(outlook, mhz)
        blocks = round(state.batch * load.context_tokens / self.assignment.scenario.engine.block_size)
        return judge(outlook, mhz, batch_floor=round(state.batch), kv_floor=blocks)
