"""The reference controller: throttLL'eM (Kakolyris et al., HPCA 2025, arXiv 2408.05235).

Project the batch and the KV cache, predict iteration times, pick the lowest clock that keeps every SLO,
and resize the instance with the load.
"""

from typing import ClassVar, get_args

from throttllem_env.agents.autoscaler import HEADROOM, Autoscaler
from throttllem_env.controller import Assignment, BaseController, ControllerError, ControlPoints
from throttllem_env.prediction import Forecaster, PrefillModel, lowest_feasible_mhz
from throttllem_env.suggest import nearest
from throttllem_env.types import Action, ObservationArray, Telemetry

MARGIN = 0.2
"""Tuned, with the headroom, on the validation blocks of Azure 2023 conv at loads 0.5 to 1.0
(`python scripts/tune.py margins --trace ...`); 0 is the paper's."""


class Throttllem(BaseController):
    """Throttles and autoscales; decides at every arrival and completion."""

    control_points: ClassVar[ControlPoints] = "events"
    throttles: ClassVar[bool] = True
    autoscales: ClassVar[bool] = True

    def __init__(
        self, margin: float = MARGIN, headroom: float = HEADROOM, prefill: PrefillModel = "expected"
    ) -> None:
        """Set the margins, which are tuned on validation blocks only.

        Args:
            margin: Share of the time left before a deadline that is kept in reserve, in [0, 1).
            headroom: Share by which a size's rated load must exceed the request rate.
            prefill: Which prefill a projection counts: `ignore` (the paper's), `pending`, `expected`.

        Raises:
            ControllerError: A value out of range.
        """
        if not 0 <= margin < 1:
            raise ControllerError(f"throttllem: margin = {margin}: must be at least 0 and below 1")
        if not 0 <= headroom < float("inf"):
            raise ControllerError(f"throttllem: headroom = {headroom}: must be a number of at least 0")
        if prefill not in get_args(PrefillModel):
            raise ControllerError(
                f"throttllem: prefill = {prefill!r}: {nearest(prefill, get_args(PrefillModel))}"
            )
        self._margin, self._headroom, self._prefill = margin, headroom, prefill

    def reset(self, assignment: Assignment) -> None:
        """Forget the last run."""
        super().reset(assignment)
        scenario = assignment.scenario
        scaler = Autoscaler(scenario, self._headroom, slo_scale=assignment.slo_scale)
        self._autoscaler = scaler if self.autoscales else None
        self._last_mhz = scenario.top_mhz
        self._forecaster = Forecaster.of(
            scenario, assignment.slo, assignment.lengths, self._prefill, self._margin
        )

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The lowest feasible clock, and the size that the load needs."""
        scenario = self.assignment.scenario
        size = self._autoscaler.size(telemetry) if self._autoscaler else scenario.largest_size
        mhz = self._frequency_mhz(telemetry) if self.throttles else scenario.top_mhz
        return Action(mhz, size)

    def _frequency_mhz(self, telemetry: Telemetry) -> int:
        """The scenario's idle clock when nothing runs, else the lowest that keeps every SLO."""
        scenario = self.assignment.scenario
        if telemetry.idle:
            return scenario.idle_mhz
        outlook = self._forecaster.outlook(telemetry)
        self._last_mhz, _ = lowest_feasible_mhz(outlook, scenario.gpu_spec.clocks_mhz, self._last_mhz)
        return self._last_mhz


class ThrottllemFrequency(Throttllem):
    """Its first half: throttles at the largest size."""

    autoscales: ClassVar[bool] = False


class ThrottllemAutoscale(Throttllem):
    """Its second half: resizes at the top clock."""

    throttles: ClassVar[bool] = False
