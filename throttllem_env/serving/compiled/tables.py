"""Physics as dense arrays that kernels look things up in, by size, clock, and batch or chunk."""

from functools import cache

import numpy as np

from throttllem_env.hardware import Physics
from throttllem_env.scenario import Scenario
from throttllem_env.serving.kernels.layout import CLOCK_ROW, DECODE_ROW, PREFILL_ROW


class DenseTables:
    """`ClockTable` of all sizes and clocks; a clock's row is filled when it is first asked for.

    Attributes:
        decode: DECODE_ROW[sizes, clocks, max_num_seqs + 1].
        prefill: PREFILL_ROW[sizes, clocks, token budget + 1].
        clocks: CLOCK_ROW[sizes, clocks].
    """

    def __init__(self, physics: tuple[Physics, ...], max_batch: int, max_chunk_tokens: int) -> None:
        """Allocate the arrays.

        Args:
            physics: By size, ascending; all of one GPU.
            max_batch: Largest batch.
            max_chunk_tokens: Largest chunk.
        """
        self._physics = physics
        self._clocks_mhz = physics[0].gpu.clocks_mhz
        shape = (len(physics), len(self._clocks_mhz))
        self.decode = np.empty((*shape, max_batch + 1), DECODE_ROW)
        self.prefill = np.empty((*shape, max_chunk_tokens + 1), PREFILL_ROW)
        self.clocks = np.empty(shape, CLOCK_ROW)
        self._filled = np.zeros(shape, np.bool_)

    def fill(self, size_index: int, clock: int) -> None:
        """Make sure that a clock's row is there; takes about a millisecond where it is not."""
        if self._filled[size_index, clock]:
            return
        table, at = self._physics[size_index].at(self._clocks_mhz[clock]), (size_index, clock)
        self.decode["host_s"][at] = table.host_s
        self.decode["fixed_s"][at] = table.decode_fixed_s
        self.decode["per_kv_token_s"][at] = table.decode_per_kv_token_s
        self.decode["watts"][at] = table.decode_w
        self.prefill["linear_s"][at] = table.chunk_linear_s
        self.prefill["watts"][at] = table.chunk_w
        self.clocks[at] = (table.idle_w, table.prefill_floor_s, table.prefill_per_token2_s)
        self._filled[at] = True


def dense_tables(scenario: Scenario) -> DenseTables:
    """The tables of a scenario, shared by all that have the same physics."""
    engine = scenario.engine
    physics = tuple(scenario.served_physics(size) for size in scenario.sizes)
    return _shared(physics, engine.max_num_seqs, engine.max_num_batched_tokens)


@cache
def _shared(physics: tuple[Physics, ...], max_batch: int, max_chunk_tokens: int) -> DenseTables:
    """`Scenario.served_physics` gives the same objects for the same physics, so they serve as keys."""
    return DenseTables(physics, max_batch, max_chunk_tokens)
