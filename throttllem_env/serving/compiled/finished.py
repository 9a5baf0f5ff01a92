"""Finished requests as a view of a node's arrays."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from throttllem_env.serving.kernels.layout import Node
from throttllem_env.types import FinishedRequest

_COLUMNS = ("arrival_s", "first_token_s", "last_token_s", "prompt", "generated", "preemptions")


class FinishedRequests(Sequence[FinishedRequest]):
    """A stretch of the order in which requests finished; each is made into an object when it is looked at.

    Nothing is copied: neither that order nor a finished request changes any more. So an interval that
    millions finish in costs nothing.
    """

    def __init__(self, node: Node, first: int, end: int) -> None:
        """Look at a stretch.

        Args:
            node: Whose requests.
            first: Position of the first one in the order in which they finished.
            end: Position after the last one.
        """
        self._ids = node.finished[first:end]
        self._requests = node.requests

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> FinishedRequest: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[FinishedRequest, ...]: ...

    def __getitem__(self, index: int | slice) -> FinishedRequest | tuple[FinishedRequest, ...]:
        return tuple(self)[index] if isinstance(index, slice) else self._at(self._ids[[index]])[0]

    def __iter__(self) -> Iterator[FinishedRequest]:
        return iter(self._at(self._ids) if len(self._ids) else ())

    def _at(self, ids: NDArray[np.int32]) -> list[FinishedRequest]:
        rows = self._requests[ids]
        columns = (rows[name].tolist() for name in _COLUMNS)
        return [FinishedRequest(*row) for row in zip(ids.tolist(), *columns, strict=True)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))
