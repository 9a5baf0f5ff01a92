"""What a pool says of the wishes it is told, and what it has done."""

from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """What became of a wish for a size."""

    UNCHANGED = "unchanged"
    """It is the active size, or the one that warms already."""
    STARTED = "started"
    """A server of that size warms."""
    RESTARTED = "restarted"
    """A smaller one was warming; it is stopped, and this one warms."""
    CALLED_OFF = "called off"
    """Another one was warming; the active one stays."""
    IGNORED = "ignored"
    """Another change is under way."""
    REFUSED = "refused"
    """The node has too few GPUs; `ServerPool.refusal` says so."""


@dataclass(slots=True)
class PoolCounts:
    """What a pool has done.

    Attributes:
        size_changes: Servers started to change the size.
        ignored: Wishes not carried out: another change was under way, or too few GPUs.
        failures: Servers that did not come up or went down.
        restarts: Servers started in place of an active one that had failed.
    """

    size_changes: int = 0
    ignored: int = 0
    failures: int = 0
    restarts: int = 0
