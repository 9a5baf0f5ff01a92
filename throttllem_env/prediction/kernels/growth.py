"""KV blocks of a batch that stays the same: which iterations need another block repeats every block.

`growth[m]` is how many blocks more than in the first iteration are held m iterations later, for m up to a
block's tokens; after a whole period every request holds one block more.
"""

import numpy as np

from throttllem_env.compiled import inlined
from throttllem_env.prediction.kernels.columns import Int32Array
from throttllem_env.types import IntArray


@inlined
def quotient(a: int, b: int) -> int:
    """Of whole numbers below 2^32, none negative: twice as fast as of signed ones of 64 bits."""
    found: int = np.int64(np.uint32(a) // np.uint32(b))  # type: ignore[assignment]
    return found


@inlined
def remainder(a: int, b: int) -> int:
    """Of whole numbers below 2^32, none negative."""
    found: int = np.int64(np.uint32(a) % np.uint32(b))  # type: ignore[assignment]
    return found


@inlined
def fill_growth(growth: Int32Array, growing: IntArray, at: int, iterations: int) -> None:
    """Fill in the growth from an iteration on, as far as it is needed.

    Args:
        growth: int32[block size], is filled in.
        growing: int64[2 block sizes], requests that take a block on entering iteration j, by j modulo N,
            twice over: so nothing has to be looked up around a corner.
        at: The first iteration.
        iterations: How many follow.
    """
    period = len(growth)
    phase, blocks = remainder(at, period), 0
    growth[0] = 0
    for m in range(1, min(iterations, period - 1) + 1):
        blocks += growing[phase + m]
        growth[m] = blocks


@inlined
def blocks_grown(growth: Int32Array, batch: int, iterations: int) -> int:
    """Blocks more than at first, so many iterations later."""
    period = len(growth)
    if iterations < period:
        return int(growth[iterations])
    return int(batch * (iterations // period) + growth[iterations % period])


@inlined
def sum_grown(growth: Int32Array, batch: int, iterations: int) -> int:
    """Sum of `blocks_grown` over the first iterations."""
    period, whole, total = len(growth), 0, 0
    if iterations >= period:  # a division takes longer than the rest
        whole = iterations // period
        for m in range(period):
            total += whole * growth[m]
    rest = iterations - whole * period
    total += batch * (period * (whole * (whole - 1) // 2) + whole * rest)
    for m in range(rest):
        total += growth[m]
    return total


@inlined
def iterations_until(growth: Int32Array, batch: int, blocks: int) -> int:
    """The first iteration in which at least so many blocks (> 0) have been added."""
    period = len(growth)
    whole = (blocks - 1) // batch
    rest, m = blocks - whole * batch, 0
    while m < period and growth[m] < rest:
        m += 1
    return whole * period + m
