"""Against clocks that flap: up at once, down with patience."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Steadiness:
    """How readily clocks follow a controller.

    A higher clock is never delayed, since a deadline may hang on it. A lower one has to wait, so that in
    any `hold_s` there is one way down at most, and it must be worth a change.

    Attributes:
        hold_s: Time after the last change before which the clock does not fall, seconds.
        min_step_mhz: Smallest step down.
    """

    hold_s: float = 0.25
    min_step_mhz: int = 30

    def __post_init__(self) -> None:
        if not 0 <= self.hold_s < math.inf:
            raise ValueError(f"hold_s = {self.hold_s}: expected seconds, 0 or more")
        if self.min_step_mhz < 0:
            raise ValueError(f"min_step_mhz = {self.min_step_mhz}: expected 0 or more")


class ClockMemory:
    """What GPUs are locked to, and whether it is time to change it.

    Args:
        steadiness: How readily.
    """

    def __init__(self, steadiness: Steadiness) -> None:
        """Start without any locks."""
        self._steadiness = steadiness
        self._locks: dict[int, tuple[int, float]] = {}  # clock and when it was set

    def locked_mhz(self, gpu: int) -> int | None:
        """The clock that a GPU is locked to, as far as the driver said; None without a lock."""
        lock = self._locks.get(gpu)
        return lock[0] if lock else None

    def since_s(self, gpu: int) -> float:
        """When it was locked, on the clock of those who told; -inf without a lock."""
        return self._locks[gpu][1] if gpu in self._locks else -math.inf

    def remember(self, gpu: int, mhz: int, now_s: float) -> None:
        """Note a lock that the driver has carried out."""
        self._locks[gpu] = (mhz, now_s)

    def forget(self, gpu: int) -> None:
        """Note that a lock is gone, or that nobody knows."""
        self._locks.pop(gpu, None)

    def due(self, gpus: Sequence[int], mhz: int, now_s: float) -> bool:
        """Whether GPUs, which change together, should be locked to a clock now.

        Args:
            gpus: Their indices.
            mhz: The clock.
            now_s: The time.
        """
        clocks = [self.locked_mhz(gpu) for gpu in gpus]
        known = [clock for clock in clocks if clock is not None]
        if len(known) < len(clocks) or min(known) < mhz:
            return True
        held = now_s - max(self.since_s(gpu) for gpu in gpus) < self._steadiness.hold_s
        return not held and max(known) - mhz >= max(1, self._steadiness.min_step_mhz)
