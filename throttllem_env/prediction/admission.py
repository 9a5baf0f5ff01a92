"""Admission by projection (docs/design.md, The projection): may the head of the queue enter the engine now?

First come, first served; a head that must wait blocks the rest and is tried again at every completion. It
waits while the projected KV with it does not fit, or while, at the top clock, TBT would not hold or it would
make somebody late who is not late without it. An empty engine takes it in any case.
"""

import numpy as np

from throttllem_env.prediction.kernels.admission import ADMIT_LOST, NO_ROOM, WAIT, admit
from throttllem_env.prediction.kernels.future import Future, new_future
from throttllem_env.prediction.outlook import Forecaster
from throttllem_env.types import RequestTable, Telemetry


class ProjectedAdmission:
    """Decides about the head of the queue by putting it on the scoreboard virtually."""

    def __init__(self, forecaster: Forecaster) -> None:
        """Decide with the given forecaster."""
        self._forecaster = forecaster
        self._future = self._new_future(64, 256)

    def __call__(self, telemetry: Telemetry) -> tuple[bool, bool]:
        """Judge the head of `telemetry.queue`.

        Args:
            telemetry: The state now, with at least one request in `queue`.

        Returns:
            Whether to admit it now, and whether it is lost: its own deadline cannot be met, so it is
            served best-effort once its KV fits.
        """
        f, waiting = self._forecaster, with_head(telemetry)
        case = f.case(telemetry, waiting)
        n = len(case.predicted)
        if n > len(self._future.last_piece):
            self._future = self._new_future(2 * n, len(self._future.pieces))
        late = np.empty(n, np.bool_)
        while True:
            answer = admit(
                case.columns,
                case.running,
                n,
                case.predicted,
                case.deadline_s,
                case.limits,
                case.tables,
                case.question,
                self._future,
                late,
            )
            if answer != NO_ROOM:
                return answer != WAIT, answer == ADMIT_LOST
            needed = int(self._future.sweep[0]["pieces"])
            self._future = self._new_future(len(self._future.last_piece), 2 * needed)

    def _new_future(self, requests: int, pieces: int) -> Future:
        engine = self._forecaster.scenario.engine
        return new_future(requests, pieces, engine.block_size, engine.max_model_len)


def with_head(telemetry: Telemetry) -> RequestTable:
    """The engine's own queue with the head of the queue before it, but nobody behind the head."""
    q = telemetry.queue
    head = RequestTable(*(getattr(q, name)[:1] for name in RequestTable.__slots__))
    return RequestTable.concatenate([telemetry.active.waiting, head])
