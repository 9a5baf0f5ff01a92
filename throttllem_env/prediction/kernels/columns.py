"""What the kernels are given: columns of requests, settings, and tables of iteration times."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from throttllem_env.types import BoolArray, FloatArray, IntArray


class Requests(NamedTuple):
    """Columns of `RequestTable`, which may be longer than the requests that are in them.

    Those running stand first, then those waiting, in the engine's order.
    """

    request_id: IntArray
    arrival_s: FloatArray
    prompt_tokens: IntArray
    computed_tokens: IntArray
    generated_tokens: IntArray
    lost: BoolArray


class EngineLimits(NamedTuple):
    """Limits of an instance.

    Attributes:
        block_size: Tokens per KV block.
        token_budget: Tokens of an iteration.
        seats: Requests that run at once.
        kv_blocks: KV blocks that requests can hold at most.
    """

    block_size: int
    token_budget: int
    seats: int
    kv_blocks: int


class Question(NamedTuple):
    """What a projection is held against, besides deadlines.

    Attributes:
        now_s: When it was made.
        prefill: Which prefill counts: 0 none, 1 that of known requests, 2 that of future ones too.
        prompt_token_rate: Recent prompt tokens per second.
        mean_prompt_tokens: Mean prompt of recent arrivals, tokens.
        tbt_slo_s: Bound on the mean time between tokens.
    """

    now_s: float
    prefill: int
    prompt_token_rate: float
    mean_prompt_tokens: float
    tbt_slo_s: float


class TimeTables(NamedTuple):
    """Iteration times of one size at every clock: linear in KV blocks within intervals, the last one open.

    A decode iteration takes value + share * rise, with share = (KV - knot) * per_block, and (value, rise)
    by clock, batch and interval. It never takes less with more KV.

    Attributes:
        decode: float64[clocks, max batch + 1, intervals, 2], seconds; row 0 is not used.
        prefill: float64[clocks, 5], see `ClockTable.prefill_coefficients`.
        interval_of: int64[m], interval by KV blocks; beyond m - 1 as there.
        first_kv: int64[intervals], least KV blocks of each interval.
        knot_kv: float64[intervals], where share is 0.
        per_block: float64[intervals], share per KV block.
    """

    decode: FloatArray
    prefill: FloatArray
    interval_of: IntArray
    first_kv: IntArray
    knot_kv: FloatArray
    per_block: FloatArray


class LengthTable(NamedTuple):
    """A length predictor: known by request, or by prompt and tokens generated where nothing is known.

    Attributes:
        by_request: int64[trace], empty where lengths are not known by request.
        edges: int64[bins - 1], edges of prompt bins, ascending.
        by_progress: int64[bins, longest + 1], by prompt bin and tokens generated.
        cap_tokens: Longest output that clients ask for.
        max_model_len: Longest prompt plus output.
    """

    by_request: IntArray
    edges: IntArray
    by_progress: IntArray
    cap_tokens: int
    max_model_len: int


Records = NDArray[np.void]
Int32Array = NDArray[np.int32]
Record = Any
"""One of them; its fields are attributes, which NumPy's types do not know."""
