"""Clocks as a careful actuator carries them out: up at once, down with patience (`gpu.flapping`)."""

import math
from collections.abc import Callable

from throttllem_env.gpu.flapping import ClockMemory, Steadiness
from throttllem_env.types import Action, Telemetry

GPU = 0
"""The GPUs of an instance change together: one stands for all."""


class SteadyClocks:
    """The clock of the active instance, as it follows what is asked for.

    Args:
        top_mhz: The clock of an instance that has just become active.
    """

    def __init__(self, top_mhz: int) -> None:
        self._top_mhz = top_mhz
        self._since_s = -math.inf
        self._memory = ClockMemory(Steadiness())
        self._memory.remember(GPU, top_mhz, -math.inf)

    def carried_out(self, action: Action, active_since_s: float, now_s: float) -> Action:
        """What becomes of a wish now.

        Args:
            action: The wish.
            active_since_s: When the active instance became that.
            now_s: Now.
        """
        if active_since_s > self._since_s:
            self._since_s = active_since_s
            self._memory.remember(GPU, self._top_mhz, active_since_s)
        if self._memory.due([GPU], action.frequency_mhz, now_s):
            self._memory.remember(GPU, action.frequency_mhz, now_s)
        locked_mhz = self._memory.locked_mhz(GPU)
        assert locked_mhz is not None, "it was remembered"
        return Action(locked_mhz, action.size)


def steadily(decide: Callable[[Telemetry], Action], top_mhz: int) -> Callable[[Telemetry], Action]:
    """A controller's decisions as they are carried out; what is put off is tried again at the next one.

    Args:
        decide: Asks the controller.
        top_mhz: The top clock.
    """
    clocks = SteadyClocks(top_mhz)

    def decided(telemetry: Telemetry) -> Action:
        return clocks.carried_out(decide(telemetry), telemetry.active.since_s, telemetry.time_s)

    return decided
