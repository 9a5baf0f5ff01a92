"""Admission by projection (docs/design.md, The projection): may the head of the queue enter the engine now?

First come, first served; a head that must wait blocks the rest and is tried again at every completion.
"""

import numpy as np

from throttllem_env.prediction.feasibility import Outlook, Verdict, judge
from throttllem_env.prediction.outlook import Forecaster
from throttllem_env.types import RequestTable, Telemetry


class ProjectedAdmission:
    """Decides about the head of the queue by putting it on the scoreboard virtually."""

    def __init__(self, forecaster: Forecaster) -> None:
        """Decide with the given forecaster."""
        self._forecaster = forecaster

    def __call__(self, telemetry: Telemetry) -> tuple[bool, bool]:
        """Judge the head of `telemetry.queue`.

        Args:
            telemetry: The state now, with at least one request in `queue`.

        Returns:
            Whether to admit it now, and whether it is lost: its own deadline cannot be met, so it is
            served best-effort once its KV fits.
        """
        if not (len(telemetry.active.running) or len(telemetry.active.waiting)):
            return True, not self._own_deadline_met(self._with_head(telemetry))
        outlook = self._with_head(telemetry)
        if not outlook.fits or not self._others_safe(telemetry, outlook):
            return False, False
        return True, not self._own_deadline_met(outlook)

    def _with_head(self, telemetry: Telemetry) -> Outlook:
        """The outlook with the head, but nobody behind it, behind the engine's own queue."""
        q = telemetry.queue
        head = RequestTable(*(getattr(q, name)[:1] for name in RequestTable.__slots__))
        waiting = RequestTable.concatenate([telemetry.active.waiting, head])
        return self._forecaster.outlook(telemetry, waiting)

    def _others_safe(self, telemetry: Telemetry, outlook: Outlook) -> bool:
        """Whether, at the top clock, TBT holds and the head makes nobody late.

        Those who are late without it already are no reason to keep it waiting.
        """
        verdict = self._at_top(outlook)
        kept = outlook.deadline_s[:-1] - verdict.finish_s[:-1] >= 0
        if verdict.tbt_s > outlook.tbt_slo_s:
            return False
        if np.all(kept):
            return True
        before = self._forecaster.outlook(telemetry, telemetry.active.waiting)
        late_before = self._at_top(before).finish_s > before.deadline_s
        return bool(np.all(kept | late_before))

    def _own_deadline_met(self, outlook: Outlook) -> bool:
        return bool(self._at_top(outlook).finish_s[-1] <= outlook.deadline_s[-1])

    def _at_top(self, outlook: Outlook) -> Verdict:
        return judge(outlook, self._forecaster.scenario.top_mhz)
