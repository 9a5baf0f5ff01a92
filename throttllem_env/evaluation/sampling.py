"""A thread that looks at something again and again for the length of a block."""

import threading
import time
from abc import ABC, abstractmethod
from typing import Self


class Sampler(ABC):
    """Looks every period as long as its block lasts; a look that takes long puts the next one off."""

    def __init__(self, period_s: float, name: str) -> None:
        """Prepare; the first look comes a period after the block has begun.

        Args:
            period_s: From the end of a look to the next one, seconds.
            name: Of the thread.
        """
        self._period_s = period_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    @abstractmethod
    def look(self, late_s: float) -> None:
        """Take a sample.

        Args:
            late_s: How much later than it was due, seconds.
        """

    def _run(self) -> None:
        due_s = time.monotonic() + self._period_s
        while not self._done.wait(max(due_s - time.monotonic(), 0.0)):
            self.look(time.monotonic() - due_s)
            due_s = time.monotonic() + self._period_s
