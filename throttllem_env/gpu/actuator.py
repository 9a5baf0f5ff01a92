"""What sets the clocks of real GPUs and reads what they do.

An `Actuator` is a thin layer over a driver: it tells what GPUs there are, locks and resets their clocks,
and reads them. It neither retries nor judges; `SafeActuator` does, around any of them. GPUs are named by
the driver's index everywhere (`GpuInfo.index`), whatever order they were given in.

A clock that a GPU does not have never reaches a driver: `snap_mhz` refuses what lies outside the supported
range and moves everything else to the nearest supported clock.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

DRIVER_TIMEOUT_S = 10.0
"""How long a change of a clock may take before it counts as failed, seconds."""


class Trouble(StrEnum):
    """What can go wrong between us and a driver."""

    NO_PERMISSION = "no-permission"
    """The driver knows how, but not for this user."""
    LOST = "lost"
    """The GPU fell off the bus or needs a reset."""
    NOT_SUPPORTED = "not-supported"
    """The GPU or its driver cannot do it, at least not in this mode."""
    DID_NOT_TAKE = "did-not-take"
    """The driver said yes, and the clock under load says no."""
    FOREIGN_LOCK = "foreign-lock"
    """Somebody else seems to hold the clock."""
    READ_ONLY = "read-only"
    """This actuator only observes."""
    TIMEOUT = "timeout"
    """The driver did not answer in time; what was asked may still happen."""
    UNAVAILABLE = "unavailable"
    """There is no driver, no daemon or no such GPU."""
    UNKNOWN = "unknown"
    """Anything else; the message has the driver's words."""


class ActuatorError(RuntimeError):
    """A driver did not do what it was asked to.

    Attributes:
        trouble: What kind of failure.
        gpu: The driver's index of the GPU, or None where it concerns no single one.
    """

    def __init__(self, trouble: Trouble, message: str, gpu: int | None = None) -> None:
        """Describe a failure.

        Args:
            trouble: What kind.
            message: For people; names what was asked and what to do about it.
            gpu: Which GPU.
        """
        super().__init__(message if gpu is None else f"GPU {gpu}: {message}")
        self.trouble = trouble
        self.gpu = gpu


class ClockRangeError(ValueError):
    """A clock lies outside what the GPU supports.

    Attributes:
        nearest_mhz: The nearest supported clock.
    """

    def __init__(self, mhz: float, clocks_mhz: Sequence[int], nearest_mhz: int) -> None:
        """Describe it.

        Args:
            mhz: What was asked for.
            clocks_mhz: What is supported, ascending.
            nearest_mhz: The nearest of these.
        """
        super().__init__(
            f"frequency_mhz = {mhz}: supported are {clocks_mhz[0]} to {clocks_mhz[-1]} MHz; "
            f"the nearest is {nearest_mhz}"
        )
        self.nearest_mhz = nearest_mhz


@dataclass(frozen=True)
class GpuInfo:
    """What does not change about a GPU.

    Attributes:
        index: The driver's index; all methods of an actuator take it.
        uuid: The driver's name for this piece of hardware; stays the same after a reboot.
        name: The product's name.
        clocks_mhz: Supported SM clocks, ascending.
        power_limit_w: The enforced power limit, watts; None if unknown.
        persistence: Whether the driver stays loaded without clients. Without it, locks are
            forgotten when the last client leaves. None if unknown.
        counter: Whether the driver counts total energy.
    """

    index: int
    uuid: str
    name: str
    clocks_mhz: tuple[int, ...]
    power_limit_w: float | None = None
    persistence: bool | None = None
    counter: bool = True

    @property
    def top_mhz(self) -> int:
        """The highest supported clock: where a GPU is safe."""
        return self.clocks_mhz[-1]


# Reasons that make a GPU run below the clock that was asked for, whoever asked; names as in `reasons.py`.
SLOWING_REASONS = frozenset(
    {"power-cap", "hw-slowdown", "sync-boost", "sw-thermal", "hw-thermal", "hw-power-brake"}
)


@dataclass(frozen=True)
class GpuReading:
    """A GPU at one moment.

    Attributes:
        gpu: The driver's index.
        time_s: When, `time.monotonic()`.
        sm_mhz: The SM clock.
        power_w: Power of the board, watts; drivers average it over up to a second.
        energy_j: The driver's counter of total energy, joules since it began; None without one.
        reasons: Why the clock is what it is, plain names as in `reasons.py`.
        utilization: Share of the last sample period in which a kernel ran, 0 to 1.
        temperature_c: Of the chip.
    """

    gpu: int
    time_s: float
    sm_mhz: int
    power_w: float
    energy_j: float | None
    reasons: frozenset[str] = frozenset()
    utilization: float = 0.0
    temperature_c: float = math.nan

    @property
    def tells(self) -> bool:
        """Whether the clock says anything about a lock: only under load, with no reason to be slower."""
        return self.utilization > 0 and "idle" not in self.reasons and not self.reasons & SLOWING_REASONS


@dataclass(frozen=True)
class LockOutcome:
    """What became of a change of clocks.

    Attributes:
        mhz: The clock that was asked for, snapped; None for a reset.
        took_s: Seconds that the driver needed, for each GPU that it changed.
        failed: What went wrong, for each GPU that it did not change.
    """

    mhz: int | None
    took_s: Mapping[int, float] = field(default_factory=dict)
    failed: Mapping[int, ActuatorError] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every GPU was changed."""
        return not self.failed


class Actuator(Protocol):
    """Clocks of some GPUs of one node.

    Methods may be called from any thread, one at a time per actuator unless the class says otherwise.

    Attributes:
        name: By which `make_actuator` knows it.
        writes: Whether it ever changes anything; False for a dry run.
    """

    name: str
    writes: bool

    @property
    def gpus(self) -> tuple[GpuInfo, ...]:
        """The GPUs that it was opened for."""
        ...

    def lock(self, gpus: Sequence[int], mhz: int) -> LockOutcome:
        """Lock the SM clock of some GPUs, all at once as far as the driver allows.

        Args:
            gpus: Their indices.
            mhz: The clock; snapped to the nearest supported one.

        Returns:
            What became of each. Failures of single GPUs are in it, not raised.

        Raises:
            ClockRangeError: The clock is outside some GPU's range; then nothing was changed.
            ActuatorError: `UNAVAILABLE`: it was not opened for one of these GPUs.
        """
        ...

    def reset(self, gpus: Sequence[int]) -> LockOutcome:
        """Give GPUs their normal clocks back: the driver's default, or the operator's `restore_mhz`.

        Args:
            gpus: Their indices.

        Returns:
            What became of each.

        Raises:
            ActuatorError: `UNAVAILABLE`: it was not opened for one of these GPUs.
        """
        ...

    def read(self, gpu: int) -> GpuReading:
        """Read a GPU now.

        Args:
            gpu: Its index.

        Raises:
            ActuatorError: The driver refused, or the GPU is lost.
        """
        ...

    def close(self) -> None:
        """Let go of the driver. Clocks stay as they are; may be called twice."""
        ...


def snap_mhz(mhz: float, clocks_mhz: Sequence[int]) -> int:
    """Find the supported clock for a request.

    Args:
        mhz: What was asked for.
        clocks_mhz: What is supported, ascending.

    Returns:
        The nearest supported clock; of two equally near ones the higher, since it is the safer one.

    Raises:
        ClockRangeError: The request is below the lowest or above the highest, or no number.

    Examples:
        >>> snap_mhz(1001, (210, 990, 1005, 1410))
        1005
        >>> snap_mhz(1500, (210, 990, 1005, 1410))
        Traceback (most recent call last):
            ...
        throttllem_env.gpu.actuator.ClockRangeError: frequency_mhz = 1500: supported are 210 to 1410 MHz; \
the nearest is 1410
    """
    lowest, highest = clocks_mhz[0], clocks_mhz[-1]
    if math.isnan(mhz):
        raise ClockRangeError(mhz, clocks_mhz, highest)
    if not lowest <= mhz <= highest:
        raise ClockRangeError(mhz, clocks_mhz, lowest if mhz < lowest else highest)
    return min(clocks_mhz, key=lambda clock: (abs(clock - mhz), -clock))
