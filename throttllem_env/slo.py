"""Latency targets, deadlines and attainment.

A request is attained when it completes within the E2E SLO of its arrival. Everything else that arrived
(late, rejected, aborted, lost or unfinished) is a violation.
"""

from dataclasses import dataclass

import numpy as np

from throttllem_env.types import Telemetry


@dataclass(frozen=True, slots=True)
class Slo:
    """Targets of a scenario.

    Attributes:
        e2e_s: End-to-end latency within which a request must complete, seconds.
        tbt_s: Bound on the mean time between tokens, weighted by tokens, seconds.
        attainment: Share of requests that must meet `e2e_s`.
    """

    e2e_s: float
    tbt_s: float
    attainment: float

    def scaled(self, factor: float) -> "Slo":
        """The same targets with latencies `factor` times as long."""
        return Slo(self.e2e_s * factor, self.tbt_s * factor, self.attainment)

    def attained(self, attainment: float, tbt_mean_s: float) -> bool:
        """Whether a run keeps both targets."""
        return attainment >= self.attainment and tbt_mean_s <= self.tbt_s


def deadlines_passed(telemetry: Telemetry, previous_s: float, e2e_slo_s: float) -> int:
    """Count the deadlines that passed unmet in (previous_s, telemetry.time_s].

    A deadline counts when it passes, not when its request completes at last, so that a controller
    learns of it at once and only once.

    Args:
        telemetry: State at the end of the interval, with what finished in it.
        previous_s: Start of the interval, seconds.
        e2e_slo_s: The E2E SLO, seconds.

    Returns:
        Number of requests whose deadline lies in the interval and was missed.
    """
    now_s = telemetry.time_s
    tables = [telemetry.queue]
    for instance in (telemetry.active, *telemetry.others):
        tables += [instance.running, instance.waiting]
    missed = 0
    for deadlines_s in [table.arrival_s + e2e_slo_s for table in tables if len(table)]:
        missed += int(np.count_nonzero((deadlines_s > previous_s) & (deadlines_s <= now_s)))
    for request in telemetry.finished:
        deadline_s = request.arrival_s + e2e_slo_s
        missed += previous_s < deadline_s <= now_s and request.finish_s > deadline_s
    return missed
