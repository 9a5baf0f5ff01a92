"""What a node is made of, as far as control looks at it: servers, and the pool that keeps them.

`throttllem_env.serving.vllm.servers` has the real ones.
"""

from typing import Protocol

from throttllem_env.live.engine_view import EngineReport
from throttllem_env.types import InstanceState


class PoolServer(Protocol):
    """A server as a process, on GPUs that it has to itself."""

    @property
    def url(self) -> str:
        """Its scheme, host and port."""
        ...

    @property
    def size(self) -> int:
        """Tensor-parallel degree."""
        ...

    @property
    def gpus(self) -> tuple[int, ...]:
        """The GPUs that it has to itself."""
        ...

    @property
    def state(self) -> InstanceState:
        """Warming, active or draining."""
        ...

    @property
    def since_s(self) -> float:
        """When it entered that state, CLOCK_MONOTONIC."""
        ...

    @property
    def stats(self) -> EngineReport | None:
        """What its engine last said of itself."""
        ...


class Counts(Protocol):
    """What a pool has done."""

    @property
    def size_changes(self) -> int:
        """Servers started to change the size."""
        ...

    @property
    def ignored(self) -> int:
        """Wishes for a size that were not carried out."""
        ...

    @property
    def failures(self) -> int:
        """Servers that did not come up or went down."""
        ...


class Pool(Protocol):
    """The servers of one node."""

    @property
    def active(self) -> PoolServer | None:
        """The server that takes new requests; None while there is none."""
        ...

    @property
    def servers(self) -> tuple[PoolServer, ...]:
        """All there are: active, warming, draining."""
        ...

    @property
    def counts(self) -> Counts:
        """What the pool has done."""
        ...

    def resize(self, size: int) -> object:
        """Wish for another size; the change goes on behind the active server's back."""
        ...
