"""What `measure_gpu.py` reads from the driver, and the energy that follows. Only getters are called."""

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

Reading = dict[str, float]
Clock = Callable[[], float]
LEAST_CHANGES = 5
"""Fewer changes of a value say nothing of its period."""


class Nvml:
    """What the driver tells of a GPU. Only getters are called."""

    def __init__(self, module: Any, uuid: str, clock: Clock = time.perf_counter) -> None:
        """Open the driver's library for one GPU."""
        module.nvmlInit()
        self._nvml, self._clock = module, clock
        self._gpu = module.nvmlDeviceGetHandleByUUID(uuid)
        self.readers: dict[str, Callable[[], float]] = {}
        gpu = self._gpu
        getters: dict[str, Callable[[], float]] = {
            "energy_mj": lambda: module.nvmlDeviceGetTotalEnergyConsumption(gpu),
            "power_mw": lambda: module.nvmlDeviceGetPowerUsage(gpu),
            "clock_mhz": lambda: module.nvmlDeviceGetClockInfo(gpu, module.NVML_CLOCK_SM),
            "event_reasons": lambda: module.nvmlDeviceGetCurrentClocksEventReasons(gpu),
            "temperature_c": lambda: module.nvmlDeviceGetTemperature(gpu, module.NVML_TEMPERATURE_GPU),
        }
        for name, read in getters.items():
            try:
                read()
            except module.NVMLError as error:
                print(f"{name}: this GPU does not tell: {error}", file=sys.stderr)
            else:
                self.readers[name] = read

    def describe(self) -> dict[str, Any]:
        """Driver, limits and top clock."""
        n, gpu = self._nvml, self._gpu
        return {
            "driver": str(n.nvmlSystemGetDriverVersion()),
            "power_limit_w": n.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3,
            "top_mhz": n.nvmlDeviceGetMaxClockInfo(gpu, n.NVML_CLOCK_SM),
        }

    def cost_us(self, repeats: int = 200) -> dict[str, dict[str, float]]:
        """How long reads take, microseconds: median and 99th percentile."""
        return {
            name: spread([1e6 * self._timed(read) for _ in range(repeats)])
            for name, read in self.readers.items()
        }

    def _timed(self, read: Callable[[], float]) -> float:
        begin_s = self._clock()
        read()
        return self._clock() - begin_s

    def update_period_s(self, name: str, seconds: float = 3.0) -> float | None:
        """Median time between two changes of what a reader tells; None where it hardly changes."""
        if name not in self.readers:
            return None
        read, changes = self.readers[name], list[float]()
        end_s, last = self._clock() + seconds, self.readers[name]()
        while (now_s := self._clock()) < end_s:
            if (value := read()) != last:
                changes.append(now_s)
                last = value
        gaps = [b - a for a, b in itertools.pairwise(changes)]
        return statistics.median(gaps) if len(gaps) >= LEAST_CHANGES else None

    def sample(self) -> Reading:
        """All readers at once."""
        return {name: float(read()) for name, read in self.readers.items()}


def spread(values: list[float]) -> dict[str, float]:
    """Median, 10th and 99th percentile, and how many there were."""
    ordered = sorted(values)
    low, high = (ordered[min(int(q * len(ordered)), len(ordered) - 1)] for q in (0.1, 0.99))
    return {"median": statistics.median(ordered), "p10": low, "p99": high, "count": len(ordered)}


def energy_of(
    begin: Reading, end: Reading, samples: list[Reading], elapsed_s: float, count: int
) -> dict[str, Any]:
    """Energy of an iteration from the counter, or else from power samples, and what was read meanwhile."""
    found: dict[str, Any] = {"energy_from": "nothing"}
    if "power_mw" in end:
        found["sampled_power_w"] = statistics.fmean(s["power_mw"] for s in samples) / 1e3
        joules = found["sampled_power_w"] * elapsed_s
        found["energy_from"] = "power samples"
    if "energy_mj" in end:
        joules = (end["energy_mj"] - begin["energy_mj"]) / 1e3
        found["energy_from"] = "counter"
    if found["energy_from"] != "nothing":
        found |= {"energy_j": joules / count, "power_w": joules / elapsed_s}
    for name in ("clock_mhz", "temperature_c"):
        if name in end:
            found[name] = statistics.median(s[name] for s in samples)
    reasons = {int(s["event_reasons"]) for s in samples if "event_reasons" in s}
    return found | {"event_reasons": sorted(reasons), "window_s": elapsed_s}
