"""Time tables, length predictors and futures found by address; see `throttllem_env.kernels.addresses`."""

import numpy as np

from throttllem_env.compiled import opening
from throttllem_env.kernels.addresses import Addresses, address_dtype, addresses_of, carray, pointer
from throttllem_env.prediction.kernels.columns import LengthTable, TimeTables
from throttllem_env.prediction.kernels.future import PIECE, SWEEP, Future

TABLES_AT = address_dtype(decode=4, prefill=2, interval_of=1, first_kv=1, knot_kv=1, per_block=1)
"""Addresses of `TimeTables`, in the order of its fields."""

LENGTHS_AT = np.dtype(
    [
        *address_dtype(by_request=1, edges=1, by_progress=2).descr,
        ("cap_tokens", np.int64),
        ("max_model_len", np.int64),
    ]
)
"""Addresses of a `LengthTable`, and its limits."""

FUTURE_AT = address_dtype(
    pieces=1,
    growth=2,
    sweep=1,
    last_piece=1,
    tightest_s=1,
    ends_s=1,
    growing=1,
    anchor=1,
    phase=1,
    ending=1,
    next_ending=1,
)
"""Addresses of a `Future`, in the order of its fields."""


@opening
def tables_at(at: Addresses) -> TimeTables:
    """The tables at the addresses of a TABLES_AT."""
    return TimeTables(
        carray(pointer(at.decode), (at.decode_0, at.decode_1, at.decode_2, at.decode_3), np.float64),
        carray(pointer(at.prefill), (at.prefill_0, at.prefill_1), np.float64),
        carray(pointer(at.interval_of), (at.interval_of_0,), np.int64),
        carray(pointer(at.first_kv), (at.first_kv_0,), np.int64),
        carray(pointer(at.knot_kv), (at.knot_kv_0,), np.float64),
        carray(pointer(at.per_block), (at.per_block_0,), np.float64),
    )


@opening
def lengths_at(at: Addresses) -> LengthTable:
    """The length predictor at the addresses of a LENGTHS_AT."""
    return LengthTable(
        carray(pointer(at.by_request), (at.by_request_0,), np.int64),
        carray(pointer(at.edges), (at.edges_0,), np.int64),
        carray(pointer(at.by_progress), (at.by_progress_0, at.by_progress_1), np.int64),
        at.cap_tokens,
        at.max_model_len,
    )


@opening
def future_at(at: Addresses) -> Future:
    """The future at the addresses of a FUTURE_AT."""
    return Future(
        carray(pointer(at.pieces), (at.pieces_0,), PIECE),
        carray(pointer(at.growth), (at.growth_0, at.growth_1), np.int32),
        carray(pointer(at.sweep), (at.sweep_0,), SWEEP),
        carray(pointer(at.last_piece), (at.last_piece_0,), np.int64),
        carray(pointer(at.tightest_s), (at.tightest_s_0,), np.float64),
        carray(pointer(at.ends_s), (at.ends_s_0,), np.float64),
        carray(pointer(at.growing), (at.growing_0,), np.int64),
        carray(pointer(at.anchor), (at.anchor_0,), np.int64),
        carray(pointer(at.phase), (at.phase_0,), np.int64),
        carray(pointer(at.ending), (at.ending_0,), np.int64),
        carray(pointer(at.next_ending), (at.next_ending_0,), np.int64),
    )


def lengths_addresses(table: LengthTable) -> tuple[int, ...]:
    """The fields of a LENGTHS_AT."""
    arrays = (table.by_request, table.edges, table.by_progress)
    return (*addresses_of(arrays), table.cap_tokens, table.max_model_len)
