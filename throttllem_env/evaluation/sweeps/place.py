"""Where calls are made: the protocol that processes of this machine and clusters fill."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class LostWorkerError(RuntimeError):
    """The process that made a call ended before the call did: killed, or lost with its machine."""


class Place(Protocol):
    """Where calls are made.

    Attributes:
        jobs: Calls at once.
        shared_memory: Whether workers can write to files that this process has mapped.
        description: What it is, for people; empty for this machine.
    """

    jobs: int
    shared_memory: bool
    description: str

    def call(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """Make one call and wait for it; used by several threads.

        Raises:
            LostWorkerError: The worker did; the call's own errors come as they are.
        """
        ...

    def share(self, value: T) -> T:
        """Bring a large value near all workers once; what returns is an argument of calls in its stead."""
        ...

    def close(self) -> None:
        """End all workers, whatever they do."""
        ...
