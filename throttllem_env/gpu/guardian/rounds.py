"""Restoring some GPUs at once, in bounded time, whatever their driver does."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from throttllem_env.gpu.guardian.resetters import Resetter
from throttllem_env.gpu.guardian.ward import Ward


@dataclass(frozen=True)
class Try:
    """What came of a try to restore a GPU.

    Attributes:
        failure: What went wrong; empty if the driver said yes.
        seen: Whether the GPU's clock shows it.
    """

    failure: str = ""
    seen: bool = False


class Rounds:
    """Tries to restore GPUs, each in a thread of its own; waits for a call that hangs only so long."""

    def __init__(self, resetter: Resetter, patience_s: float) -> None:
        """Prepare.

        Args:
            resetter: Restores one GPU.
            patience_s: How long a round lasts at most.
        """
        self._resetter = resetter
        self._patience_s = patience_s
        self._running: dict[str, threading.Thread] = {}
        self._outcome: dict[str, Try] = {}

    def attempt(self, wards: Iterable[Ward]) -> dict[str, Try]:
        """Try all, at once.

        Returns:
            What came of it, by UUID.
        """
        wards = list(wards)
        for ward in wards:
            # A call that hung in an earlier round may return yet: it is the try of this one.
            if ward.uuid not in self._running:
                thread = threading.Thread(target=self._restore, args=(ward,), daemon=True)
                self._running[ward.uuid] = thread
                thread.start()
        deadline_s = time.monotonic() + self._patience_s
        return {ward.uuid: self._await(ward, deadline_s) for ward in wards}

    def _await(self, ward: Ward, deadline_s: float) -> Try:
        thread = self._running[ward.uuid]
        thread.join(max(0.0, deadline_s - time.monotonic()))
        if thread.is_alive():
            return Try(f"{ward}: the driver has not answered for {self._patience_s:g} s")
        del self._running[ward.uuid]
        return self._outcome.pop(ward.uuid)

    def _restore(self, ward: Ward) -> None:
        try:
            self._outcome[ward.uuid] = Try(seen=self._resetter.restore(ward))
        except Exception as error:  # whatever it is, the next round tries again
            self._outcome[ward.uuid] = Try(str(error) or repr(error))
