"""Energy of the GPUs that a node has allocated, out of what a meter counts for each."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from throttllem_env.gpu.actuator import GpuReading
from throttllem_env.gpu.energy import EnergyMeter


@dataclass(frozen=True, slots=True)
class Holding:
    """An instance that has GPUs to itself.

    Attributes:
        gpus: Which.
        warming: Whether it warms, and serves nobody.
        busy: Whether it has requests.
    """

    gpus: tuple[int, ...]
    warming: bool
    busy: bool


class EnergyAccount:
    """What allocated GPUs have used since the account was opened.

    A GPU counts from its first reading after it was allocated.

    Args:
        meter: Counts what every GPU draws, allocated or not; it is fed here.

    Attributes:
        total_j: Energy so far, joules.
        warming_j: Of that, by instances that warmed.
        idle_j: Of that, by instances that had no request.
        gpu_seconds: GPUs allocated, integrated over time.
        opened_s: When it was first brought up to date, CLOCK_MONOTONIC; NaN before that.
        time_s: When it was last.
    """

    def __init__(self, meter: EnergyMeter) -> None:
        self.total_j = self.warming_j = self.idle_j = self.gpu_seconds = 0.0
        self.opened_s = self.time_s = math.nan
        self._meter = meter
        self._last: dict[int, tuple[float, float]] = {}  # by GPU: when, and joules by then

    def add(self, readings: Iterable[GpuReading], holdings: Sequence[Holding]) -> None:
        """Take in what GPUs say now.

        Args:
            readings: The latest of every GPU; all of them, so that the meter has nothing left to read.
            holdings: Who holds which.
        """
        self._meter.add(readings)
        mark = self._meter.mark()
        held = {}
        for holding in holdings:
            for gpu in holding.gpus:
                if gpu in mark.time_s:
                    held[gpu] = (mark.time_s[gpu], mark.energy_j[gpu])
                    self._count(gpu, held[gpu], holding)
        self._last = held
        if held:
            self.time_s = min(time_s for time_s, _ in held.values())
            if math.isnan(self.opened_s):
                self.opened_s = self.time_s

    def _count(self, gpu: int, now: tuple[float, float], holding: Holding) -> None:
        last_s, last_j = self._last.get(gpu, now)
        used_j = now[1] - last_j
        self.total_j += used_j
        self.gpu_seconds += now[0] - last_s
        if holding.warming:
            self.warming_j += used_j
        elif not holding.busy:
            self.idle_j += used_j
