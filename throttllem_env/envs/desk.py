"""Memory that compiled environments work in, one after another, and that grows as needed."""

from typing import Any

import numpy as np

from throttllem_env.envs.kernels.inputs import new_scratch
from throttllem_env.envs.kernels.lanes import DESK_AT
from throttllem_env.envs.view import HORIZONS_S
from throttllem_env.kernels.addresses import address_of, addresses_of


class Workplace:
    """A `Desk` with its addresses.

    Attributes:
        address: Of its DESK_AT; it stays, whatever grows.
    """

    def __init__(self, requests: int, pieces: int, block_size: int, longest_tokens: int) -> None:
        """Allocate.

        Args:
            requests: How many requests of one environment it holds.
            pieces: How many pieces a projection may have.
            block_size: Tokens per KV block.
            longest_tokens: Most tokens that a request may still have to come.
        """
        self._at = np.zeros(1, DESK_AT)
        self.address = address_of(self._at)
        self._requests, self._pieces = requests, pieces
        self._engine = block_size, longest_tokens
        self._allocate()

    def _allocate(self) -> None:
        n = self._requests
        scratch = new_scratch(n, self._pieces, *self._engine, len(HORIZONS_S))
        counts, flags = np.empty((4, n), np.int64), np.empty((2, n), np.bool_)
        arrays: tuple[Any, ...] = (counts, np.empty(n), *flags, *scratch[1:])
        self._kept = arrays, scratch
        self._at[0] = (*addresses_of(arrays), addresses_of(scratch.future))

    def another(self) -> "Workplace":
        """A place of the same size."""
        return Workplace(self._requests, self._pieces, *self._engine)

    def hold(self, requests: int) -> None:
        """Have room for so many requests."""
        if requests > self._requests:
            self._requests = 2 * requests
            self._allocate()

    def double_pieces(self) -> None:
        """Have room for twice as many pieces; what lay on the desk is lost."""
        self._pieces *= 2
        self._allocate()
