"""Iteration times of a size at every clock, in the form that the kernels read.

About 100 kB per clock with M's 24 intervals and 256 seats: 8 MB per size of an A100, made in some tens of
milliseconds when a size is first projected, and shared by all who ask.
"""

from functools import cache

import numpy as np

from throttllem_env.hardware import Physics
from throttllem_env.prediction.kernels.columns import TimeTables
from throttllem_env.types import FloatArray


@cache
def physics_tables(physics: Physics, clocks_mhz: tuple[int, ...], block_size: int, seats: int) -> TimeTables:
    """The latency model, which is affine in KV as soon as there is any.

    Without KV nothing is read; from one block on, a request's last block is half full on average
    (`AnalyticIterationTime`). Below one block per request, where no engine is, the line goes on.

    Args:
        physics: Time of the size.
        clocks_mhz: The clocks.
        block_size: Tokens per KV block.
        seats: Largest batch.
    """
    batch = np.maximum(np.arange(seats + 1), 1)
    decode = np.empty((len(clocks_mhz), seats + 1, 2, 2))
    for clock, mhz in enumerate(clocks_mhz):
        table = physics.at(mhz)
        without_s = table.host_s[batch] + table.decode_fixed_s[batch]
        per_token_s = table.decode_per_kv_token_s[batch]
        decode[clock, :, 0, 0], decode[clock, :, 0, 1] = without_s, 0.0
        decode[clock, :, 1, 0] = without_s + per_token_s * (block_size - (block_size - 1) / 2 * batch)
        decode[clock, :, 1, 1] = per_token_s * block_size
    first = np.array([0, 1])
    knot, per_block = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    return TimeTables(decode, prefill_coefficients(physics, clocks_mhz), first, first, knot, per_block)


@cache
def prefill_coefficients(physics: Physics, clocks_mhz: tuple[int, ...]) -> FloatArray:
    """float64[clocks, 5], see `ClockTable.prefill_coefficients`."""
    return np.array([physics.at(mhz).prefill_coefficients for mhz in clocks_mhz])


def interval_tables(layers: FloatArray, knots_kv: FloatArray, prefill: FloatArray) -> TimeTables:
    """Durations at knots of KV, straight lines between them, and level beyond the last.

    Args:
        layers: float64[clocks, max batch + 1, k], seconds.
        knots_kv: float64[k], ascending from 0.
        prefill: float64[clocks, 5].
    """
    rise = np.zeros_like(layers)
    rise[:, :, :-1] = np.diff(layers, axis=2)
    first_kv = np.ceil(knots_kv).astype(np.int64)
    whole = np.arange(first_kv[-1] + 1)
    interval_of = np.searchsorted(knots_kv, whole, side="right") - 1
    per_block = np.append(1 / np.diff(knots_kv), 0.0)
    return TimeTables(
        np.stack([layers, rise], axis=-1), prefill, interval_of, first_kv, knots_kv.copy(), per_block
    )
