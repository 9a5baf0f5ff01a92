"""What happens to GPUs, for the log."""

import logging
from dataclasses import dataclass

from throttllem_env.gpu.actuator import Trouble


@dataclass(frozen=True)
class GpuEvent:
    """Something that an operator wants to read in the log.

    Attributes:
        time_s: When, `time.monotonic()`.
        kind: `lock-failed`, `did-not-take`, `safe-state`, `safe-state-failed`, `safe-state-over`,
            `foreign-lock`, `foreign-lock-overridden`, `gpu-unreadable`, `gpu-readable` or `reset-failed`.
        gpus: Which GPUs, driver's indices.
        message: For people.
        trouble: What kind of failure, if it is one.
    """

    time_s: float
    kind: str
    gpus: tuple[int, ...]
    message: str
    trouble: Trouble | None = None


def log_event(event: GpuEvent) -> None:
    """Write an event to the log `throttllem_env.gpu`."""
    listed = ",".join(map(str, event.gpus))
    logging.getLogger("throttllem_env.gpu").warning("%s on GPU %s: %s", event.kind, listed, event.message)
