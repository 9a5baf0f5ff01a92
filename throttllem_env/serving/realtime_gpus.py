"""The GPUs of one instance in real time: an iteration takes as long as the modelled GPU would need.

Clocks come from the mapped file, and energies go there (throttllem_env.gpu.device_file); what else sets the
time is the scenario's physics. A sleep ends at an absolute deadline: the previous iteration's end, plus what
this one takes, so that what the host does in between, and how late it wakes, do not add up.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from throttllem_env.gpu import DeviceFile
from throttllem_env.hardware import ClockTable, IterationWork
from throttllem_env.hardware.physics import IterationTime
from throttllem_env.scenario import Scenario, load_scenario

DEVICE_FILE = "THROTTLLEM_DEVICE_FILE"
DEVICE_GPUS = "THROTTLLEM_DEVICE_GPUS"
SCENARIO = "THROTTLLEM_SCENARIO"

MAX_LAG_NS = 100_000_000
"""Lag behind the modelled GPU that is caught up; what is beyond it is given up, and counted."""


@dataclass(frozen=True, slots=True)
class Emulation:
    """What an emulated instance is told, all of it in environment variables.

    Attributes:
        device_file: GPUs of the node (`THROTTLLEM_DEVICE_FILE`).
        gpus: Its own among them (`THROTTLLEM_DEVICE_GPUS`, such as `0,1`); their number is its size.
        scenario: Name of a scenario, or path of its YAML file (`THROTTLLEM_SCENARIO`).
    """

    device_file: Path
    gpus: tuple[int, ...]
    scenario: str

    def variables(self) -> dict[str, str]:
        """As environment variables."""
        gpus = ",".join(map(str, self.gpus))
        return {DEVICE_FILE: str(self.device_file), DEVICE_GPUS: gpus, SCENARIO: self.scenario}

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> "Emulation":
        """Read environment variables.

        Raises:
            ValueError: One is missing, or names no GPUs.
        """
        for name in (DEVICE_FILE, DEVICE_GPUS, SCENARIO):
            if not variables.get(name):
                raise ValueError(f"{name} is not set: an emulated server needs it")
        try:
            gpus = tuple(int(part) for part in variables[DEVICE_GPUS].split(","))
        except ValueError:
            raise ValueError(f"{DEVICE_GPUS} = {variables[DEVICE_GPUS]!r}: expected e.g. 0,1") from None
        return cls(Path(variables[DEVICE_FILE]), gpus, variables[SCENARIO])

    def load(self) -> Scenario:
        """The scenario.

        Raises:
            ValueError: It has no instance of that size, or the file no such GPUs.
        """
        scenario = load_scenario(self.scenario)
        size = len(self.gpus)
        if size not in scenario.sizes:
            raise ValueError(f"{DEVICE_GPUS} names {size} GPUs: {scenario.name} has sizes {scenario.sizes}")
        return scenario


class RealTimeGpus:
    """Emulated GPUs of one instance, whose iterations take real time.

    Attributes:
        scenario: What they are.
        size: How many.
    """

    def __init__(
        self,
        emulation: Emulation,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep_s: Callable[[float], None] = time.sleep,
    ) -> None:
        """Map the file and fill the tables.

        Args:
            emulation: Which GPUs, of what kind.
            clock_ns: CLOCK_MONOTONIC.
            sleep_s: Sleeps.

        Raises:
            ValueError: Scenario and GPUs do not go together.
        """
        self.scenario, self.size = emulation.load(), len(emulation.gpus)
        self._device, self._gpus = DeviceFile(emulation.device_file), list(emulation.gpus)
        there = len(self._device.gpus)
        if not all(0 <= gpu < there for gpu in self._gpus) or len(set(self._gpus)) < self.size:
            has = f"{emulation.device_file} has GPUs 0 to {there - 1}"
            raise ValueError(f"{DEVICE_GPUS} = {self._gpus}: {has}, each to be named once")
        self._clock_ns, self._sleep_s = clock_ns, sleep_s
        self._physics = self.scenario.physics(self.size)
        for mhz in self._device.clocks_mhz:  # no table is filled while requests wait
            self._physics.at(mhz).iteration(IterationWork(1, 1, 1, 1))
        self._end_ns = 0

    def run(self, work: IterationWork, *, continues: bool) -> None:
        """Spend the time and energy of an iteration.

        Args:
            work: What it has to do.
            continues: Whether the engine has had work ever since the last one: then this one began when
                that one ended, whatever the time is now.
        """
        now_ns = self._clock_ns()
        lag_ns = max(now_ns - self._end_ns, 0) if continues else 0
        given_up_ns = max(lag_ns - MAX_LAG_NS, 0)
        start_ns = now_ns - lag_ns + given_up_ns
        mhz = self._device.gpus["sm_mhz"][self._gpus].tolist()
        taken = self._physics.at(min(mhz)).iteration(work)  # the others wait for the slowest
        self._end_ns = start_ns + int(taken.total_s * 1e9)
        for gpu, clock in zip(self._gpus, mhz, strict=True):
            energy_j = iteration_energy_j(self._physics.at(clock), taken, work)
            self._device.book_iteration(gpu, energy_j, self._end_ns, taken.total_s)
        self._wait(given_up_ns)

    def _wait(self, given_up_ns: int) -> None:
        """Sleep until the iteration's end, and account for what was missed."""
        was_over = self._clock_ns() >= self._end_ns
        while (left_ns := self._end_ns - self._clock_ns()) > 0:
            self._sleep_s(left_ns / 1e9)
        for gpu in self._gpus:
            self._device.book_lag(gpu, -left_ns, given_up_ns, was_over=was_over)

    def close(self) -> None:
        """Unmap the file."""
        self._device.close()


def iteration_energy_j(table: ClockTable, taken: IterationTime, work: IterationWork) -> float:
    """What one GPU draws in an iteration, at the power of its own clock for as long as the slowest needs.

    Args:
        table: Its clock's.
        taken: How long the parts of the iteration take.
        work: What it has to do.
    """
    energy_j = table.idle_w * taken.host_s + table.decode_power_w(work.decode_batch) * taken.decode_s
    if work.prefill_tokens:
        energy_j += table.prefill_power_w(work.prefill_tokens) * taken.prefill_s
    return energy_j
