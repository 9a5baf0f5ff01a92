"""What the compiled observation is given besides requests: the state of a node, and constants."""

from typing import NamedTuple

import numpy as np

from throttllem_env.prediction.kernels.future import Future, new_future
from throttllem_env.types import FloatArray, IntArray

NODE = np.dtype(
    [
        (name, np.float64)
        for name in (
            "time_s",  # now
            "elapsed_s",  # since the previous control point, never 0
            "frequency_mhz",  # the clock that rules
            "target_mhz",  # the clock last asked for
            "size_slot",  # index of the active size
            "kv_used",  # KV blocks held
            "kv_total",  # KV blocks that requests can hold at most
            "warming_size",  # size of the warming instance, 0 without one
            "warming_since_s",  # when it began
            "draining",  # 1 while an instance drains
            "window_s",  # length of the window of recent arrivals
            "window_requests",  # who arrived in it
            "window_prompt_tokens",  # their prompts
            "power_w",  # mean since the previous control point
            "tokens",  # output tokens since then
            "tbt_s",  # mean time between tokens since then
            "missed",  # deadlines that passed unmet since then
            "guess",  # index of the clock where the search for the lowest begins; then of the one it found
        )
    ]
)
"""State of a node, and a guess that saves time and changes nothing.

What it must not know stands in docs/design.md, Contracts.
"""


class Constants(NamedTuple):
    """What does not change in an environment; see `view.Scales` for those that values are divided by."""

    top_mhz: float
    largest_size: float
    seats: int
    token_budget: int
    block_size: int
    rated_rps: float
    backlog_tokens: float
    token_rate: float
    prompt_token_rate: float
    max_power_w: float
    warm_up_s: float
    e2e_s: float
    tbt_s: float
    margin: float
    prefill: int
    clocks_mhz: IntArray
    horizons_s: FloatArray


class Scratch(NamedTuple):
    """Memory to make observations in, again and again.

    Attributes:
        future: The projection.
        predicted: int64[requests], predicted output lengths; the caller fills them in.
        deadline_s: float64[requests].
        ahead: float64[2, horizons], batch and KV blocks.
    """

    future: Future
    predicted: IntArray
    deadline_s: FloatArray
    ahead: FloatArray


def new_scratch(requests: int, pieces: int, block_size: int, longest_tokens: int, horizons: int) -> Scratch:
    """Allocate; see `new_future`.

    Args:
        requests: How many it can hold.
        pieces: How many it can hold.
        block_size: Tokens per KV block.
        longest_tokens: Most tokens that a request may still have to come.
        horizons: At how many moments the projection is read.
    """
    return Scratch(
        new_future(requests, pieces, block_size, longest_tokens),
        np.empty(requests, np.int64),
        np.empty(requests),
        np.empty((2, horizons)),
    )
