"""The clocks that the GPUs of a live run really had, and when."""

import threading
import time
from typing import Self

from throttllem_env.gpu import DeviceFile
from throttllem_env.live.backend import LiveBackend
from throttllem_env.types import InstanceState

LOOK_S = 0.01
"""Short against an iteration."""


class ClockLog:
    """Looks at the clock of the active server's GPUs for the length of a block; the slowest of them counts.

    Args:
        backend: Whose; it was reset.

    Attributes:
        changes: When a clock began to rule, `time.monotonic()`, and which, MHz.
    """

    def __init__(self, backend: LiveBackend) -> None:
        self.changes: list[tuple[float, int]] = []
        self._backend = backend
        self._device = DeviceFile(backend.device_file)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="clock-log", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self._device.close()

    def _watch(self) -> None:
        while not self._done.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        active = [s for s in self._backend.servers if s.state is InstanceState.ACTIVE]
        if active:
            mhz = int(self._device.gpus["sm_mhz"][list(active[0].gpus)].min())
            if not self.changes or self.changes[-1][1] != mhz:
                self.changes.append((time.monotonic(), mhz))
