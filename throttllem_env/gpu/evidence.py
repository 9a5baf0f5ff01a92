"""What a clock under load says about locks that nobody can be asked about."""

import time
from collections.abc import Callable

from throttllem_env.gpu.actuator import Actuator, ActuatorError, GpuReading
from throttllem_env.gpu.caution import Caution

BETWEEN_READINGS_S = 0.05


class Evidence:
    """Tells from readings whether a GPU runs at its normal clock or is held below.

    Args:
        actuator: Reads the GPUs.
        caution: Tolerance, how many readings in a row it takes, and the operator's own setting.
        sleep: Waits, seconds; for tests.
    """

    def __init__(
        self, actuator: Actuator, caution: Caution, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Remember how to judge."""
        self._actuator, self._caution, self._sleep = actuator, caution, sleep
        self._top_mhz = {info.index: info.top_mhz for info in actuator.gpus}

    def is_low(self, reading: GpuReading) -> bool:
        """Whether a reading shows a clock below that of a GPU that nobody has locked."""
        restore_mhz, top_mhz = self._caution.restore_mhz, self._top_mhz[reading.gpu]
        normal_mhz = min(top_mhz, restore_mhz[1]) if restore_mhz else top_mhz
        return reading.tells and normal_mhz - reading.sm_mhz > self._caution.tolerance_mhz

    def looks_locked(self, gpu: int) -> bool:
        """Read a GPU: whether some readings in a row are all too low. One that cannot be read looks free."""
        for attempt in range(self._caution.strikes):
            if attempt:
                self._sleep(BETWEEN_READINGS_S)
            try:
                reading = self._actuator.read(gpu)
            except ActuatorError:
                return False
            if not self.is_low(reading):
                return False
        return True
