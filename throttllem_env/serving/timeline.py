"""A run as a function of time, sampled about once per second."""

from dataclasses import dataclass, field, fields

import numpy as np

from throttllem_env.prediction import Forecaster, look_ahead
from throttllem_env.slo import deadlines_passed
from throttllem_env.types import FloatArray, Telemetry

SAMPLE_S = 1.0
PROJECT_AHEAD_S = 5.0


@dataclass(slots=True)
class Timeline:
    """Samples as columns of equal length.

    Attributes:
        time_s: When.
        frequency_mhz: Clock of the active instance.
        size: Its size.
        gpus: GPUs allocated to all instances.
        batch: Requests running on the active instance.
        kv_share: Share of its KV blocks in use.
        queue: Requests waiting for it.
        power_w: Mean power of all allocated GPUs since the last sample.
        energy_j: Their energy so far.
        violations: Deadlines missed and requests refused so far.
        tokens: Output tokens so far.
        projected_batch: What was projected for this moment some seconds before; nan without a projection.
        projected_kv_share: Likewise.
    """

    time_s: list[float] = field(default_factory=list)
    frequency_mhz: list[float] = field(default_factory=list)
    size: list[float] = field(default_factory=list)
    gpus: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    kv_share: list[float] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    power_w: list[float] = field(default_factory=list)
    energy_j: list[float] = field(default_factory=list)
    violations: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    projected_batch: list[float] = field(default_factory=list)
    projected_kv_share: list[float] = field(default_factory=list)

    def column(self, name: str) -> FloatArray:
        """One column as float64[n]."""
        return np.array(getattr(self, name), np.float64)


COLUMNS = tuple(f.name for f in fields(Timeline))


class TimelineRecorder:
    """Builds a timeline from the telemetry of every control point.

    Attributes:
        timeline: The samples so far.
        violations: Deadlines missed and requests refused so far.
        mhz_seconds: Clock of the active instance, integrated over time.
        last: The latest telemetry.
    """

    last: Telemetry

    def __init__(
        self, forecaster: Forecaster, violations_slo_s: float, ahead_s: float = PROJECT_AHEAD_S
    ) -> None:
        """Prepare.

        Args:
            forecaster: Makes the projections that are drawn against what happened.
            violations_slo_s: The E2E SLO.
            ahead_s: How far projections look ahead, at least 1 s.
        """
        self.timeline = Timeline()
        self.violations = 0
        self.mhz_seconds = 0.0
        self._forecaster = forecaster
        self._slo_s = violations_slo_s
        self._ahead_s = ahead_s
        self._tokens = 0
        self._last_s = 0.0
        self._projections: list[tuple[float, float, float]] = []  # (for when, batch, KV share)

    def record(self, telemetry: Telemetry) -> None:
        """Take note of a control point."""
        elapsed_s = telemetry.time_s - self._last_s
        self.mhz_seconds += telemetry.active.frequency_mhz * elapsed_s
        self.violations += deadlines_passed(telemetry, self._last_s, self._slo_s) + telemetry.rejected
        self._tokens += telemetry.tokens_generated
        self._last_s, self.last = telemetry.time_s, telemetry
        sampled = self.timeline.time_s
        # Seconds are counted, not time since the last sample: boundaries overshoot by varying amounts.
        if not sampled or telemetry.time_s // SAMPLE_S > sampled[-1] // SAMPLE_S:
            self._sample(telemetry)

    def _sample(self, telemetry: Telemetry) -> None:
        line, active = self.timeline, telemetry.active
        since_s = telemetry.time_s - line.time_s[-1] if line.time_s else 0.0
        used_j = telemetry.energy_j - line.energy_j[-1] if line.energy_j else 0.0
        projected_batch, projected_kv = self._due_projection(telemetry.time_s)
        values = {
            "time_s": telemetry.time_s,
            "frequency_mhz": active.frequency_mhz,
            "size": active.size,
            "gpus": active.size + sum(i.size for i in telemetry.others),
            "batch": len(active.running),
            "kv_share": active.kv_blocks_used / active.kv_blocks_total,
            "queue": len(telemetry.waiting),
            "power_w": used_j / since_s if since_s > 0 else telemetry.power_w,
            "energy_j": telemetry.energy_j,
            "violations": self.violations,
            "tokens": self._tokens,
            "projected_batch": projected_batch,
            "projected_kv_share": projected_kv,
        }
        for name, value in values.items():
            getattr(line, name).append(float(value))
        self._project(telemetry)

    def _project(self, telemetry: Telemetry) -> None:
        """Remember what the projection says about a sample to come."""
        due_s = telemetry.time_s // SAMPLE_S * SAMPLE_S + self._ahead_s
        if telemetry.idle:  # projected as well, at a cost, nobody would be there
            self._projections.append((due_s, 0.0, 0.0))
            return
        outlook = self._forecaster.outlook(telemetry)
        mhz = telemetry.active.frequency_mhz
        horizon_s = np.array([due_s - telemetry.time_s])
        batch, kv = look_ahead(outlook, mhz, horizon_s)
        share = kv[0] / telemetry.active.kv_blocks_total
        self._projections.append((due_s, float(batch[0]), float(share)))

    def _due_projection(self, now_s: float) -> tuple[float, float]:
        """The latest projection made for a moment up to now."""
        due = (float("nan"), float("nan"))
        while self._projections and self._projections[0][0] <= now_s:
            _, *values = self._projections.pop(0)
            due = (values[0], values[1])
        return due
