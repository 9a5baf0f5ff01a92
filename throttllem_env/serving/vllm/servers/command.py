"""How a server is started: its command line and environment, for every size."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """A process to start.

    Attributes:
        argv: Program and arguments.
        model: The name under which it serves its model.
        environment: Variables set for it beside the inherited ones; None takes one away.
    """

    argv: tuple[str, ...]
    model: str
    environment: Mapping[str, str | None] = field(default_factory=dict)


class Launch(Protocol):
    """Says how a server of a size is started; `emulated.EmulatedLaunch` and `real.RealLaunch` are two."""

    def __call__(self, size: int, gpus: tuple[int, ...], port: int) -> ServerCommand:
        """Describe the server.

        Args:
            size: Tensor-parallel degree.
            gpus: Indices of the node's GPUs that it has to itself.
            port: Where it shall listen, on loopback.
        """
