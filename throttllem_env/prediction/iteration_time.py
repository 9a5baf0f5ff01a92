"""How long projected iterations will take: the predictor M, behind a protocol.

The paper's M predicts iterations per second from size, batch, KV blocks and clock; what the projection
needs is its inverse, plus the time of the prompt tokens that an iteration computes on the side.
"""

from typing import Protocol

import numpy as np

from throttllem_env.prediction.kernels.columns import TimeTables
from throttllem_env.prediction.time_tables import physics_tables
from throttllem_env.scenario import Scenario
from throttllem_env.types import FloatArray, IntArray


class IterationTimePredictor(Protocol):
    """Predicts iteration times; all methods take and return arrays of one shape.

    Attributes:
        identity: Says in results which predictor it was; equal ones predict alike.
    """

    identity: str

    def decode_s(self, size: int, batch: IntArray, kv_blocks: IntArray, mhz: int) -> FloatArray:
        """Decode iterations: 1 / M(size, batch, KV blocks, clock).

        Args:
            size: Tensor-parallel degree.
            batch: int64[n], decoding requests.
            kv_blocks: int64[n], KV blocks in use.
            mhz: The clock.

        Returns:
            float64[n], seconds.
        """
        ...

    def prefill_s(self, size: int, tokens: FloatArray, attention: FloatArray, mhz: int) -> FloatArray:
        """Time that prefill chunks add to iterations.

        Args:
            size: Tensor-parallel degree.
            tokens: float64[n], prompt tokens.
            attention: float64[n], sum of n (2 computed + n) over the chunks.
            mhz: The clock.

        Returns:
            float64[n], seconds.
        """
        ...

    def tables(self, size: int, clocks_mhz: tuple[int, ...]) -> TimeTables:
        """The same at every clock, as kernels read it; equal questions share one answer.

        Args:
            size: Tensor-parallel degree.
            clocks_mhz: The clocks.
        """
        ...


class AnalyticIterationTime:
    """M read off the latency model of the scenario's hardware, without measurement noise."""

    identity = "physics"

    def __init__(self, scenario: Scenario) -> None:
        """Prepare for all sizes of a scenario."""
        self._physics = {size: scenario.physics(size) for size in scenario.sizes}
        self._block_size = scenario.engine.block_size
        self._max_batch = scenario.engine.max_num_seqs

    def decode_s(self, size: int, batch: IntArray, kv_blocks: IntArray, mhz: int) -> FloatArray:
        """See `IterationTimePredictor`. A request's last block is half full on average."""
        batch = np.minimum(batch, self._max_batch)
        kv_tokens = self._block_size * kv_blocks - (self._block_size - 1) / 2 * batch
        return self._physics[size].at(mhz).decode_iterations_s(batch, np.maximum(kv_tokens, 0.0))

    def prefill_s(self, size: int, tokens: FloatArray, attention: FloatArray, mhz: int) -> FloatArray:
        """See `IterationTimePredictor`."""
        return self._physics[size].at(mhz).prefill_chunks_s(tokens, attention)

    def tables(self, size: int, clocks_mhz: tuple[int, ...]) -> TimeTables:
        """See `IterationTimePredictor`."""
        return physics_tables(self._physics[size], clocks_mhz, self._block_size, self._max_batch)
