"""Clocks of emulated GPUs: a change takes time, and the GPUs of an instance change in turn."""

import math

import numpy as np

from throttllem_env.scenario import Switching

# Phi^-1(0.99): turns a lognormal's p99 into its sigma.
Z99 = 2.3263478740408408


def sample_switch_s(switching: Switching, rng: np.random.Generator) -> float:
    """Draw how long one GPU takes to change its clock, seconds."""
    return sample_switches_s(switching, rng, 1)[0]


def sample_switches_s(switching: Switching, rng: np.random.Generator, count: int) -> list[float]:
    """Draw so many in one go: the same as one after another."""
    median_s = switching.median_s
    if switching.p99_s <= median_s or median_s == 0:
        return [median_s] * count
    sigma = math.log(switching.p99_s / median_s) / Z99
    return [median_s * math.exp(sigma * z) for z in rng.standard_normal(count).tolist()]


class EmulatedClocks:
    """Locked clocks of one instance's GPUs.

    Attributes:
        mhz: Clock of each GPU now.
        target_mhz: The clock last asked for.
    """

    def __init__(self, size: int, mhz: int, switching: Switching, rng: np.random.Generator) -> None:
        """Start with all GPUs at one clock.

        Args:
            size: Number of GPUs.
            mhz: Their clock.
            switching: How long a change takes.
            rng: Draws the times.
        """
        self.mhz = [mhz] * size
        self.target_mhz = mhz
        self._switching = switching
        self._rng = rng
        self._pending: list[tuple[float, int]] = []  # (when, GPU), ascending

    @property
    def ruling_mhz(self) -> int:
        """The slowest GPU's clock: tensor-parallel GPUs wait for one another."""
        return min(self.mhz)

    def set(self, mhz: int, now_s: float) -> None:
        """Ask for another clock; GPUs that still wait for an earlier change go straight to the new one."""
        if mhz == self.target_mhz:
            return
        self.target_mhz = mhz
        at_s, self._pending = now_s, []
        for gpu in range(len(self.mhz)):
            at_s += sample_switch_s(self._switching, self._rng)
            self._pending.append((at_s, gpu))

    @property
    def next_change_s(self) -> float:
        """When the next GPU changes, or infinity."""
        return self._pending[0][0] if self._pending else math.inf

    def settle(self, now_s: float) -> None:
        """Carry out every change that is due."""
        while self._pending and self._pending[0][0] <= now_s:
            self.mhz[self._pending.pop(0)[1]] = self.target_mhz
