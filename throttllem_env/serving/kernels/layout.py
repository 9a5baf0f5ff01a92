"""A simulated node as plain arrays: what the kernels read and write.

A decoding request gets one token in every iteration of its instance. So nothing is written per request
and iteration: an instance counts its iterations (`tick`), and a request that decodes is known by the tick
at which it gets its last token. With `left` ticks to go it has `stop - left` tokens and the KV of
`prompt + stop - left - 1`, the latest token's not being stored yet.

Among the requests of a batch at most one is still in prefill, and it is the last: chunks are given in
admission order, and nobody is admitted once the token budget is used up. Everybody in the batch gets a
token of the budget, since each was admitted when the others had theirs.
"""

from typing import Any, NamedTuple

import numpy as np

from throttllem_env.types import FloatArray, IntArray

ABSENT, WARMING, ACTIVE, DRAINING = range(4)
"""States of an instance's place."""

RUNNING, LAST_TICK, PREEMPTED = range(3)
"""Rows of `Node.slots`: ids of the batch in admission order, their last ticks, ids of preempted requests."""

DECODE, PREFILL, HOST, IDLE, WARM = range(5)
"""Columns of `Node.energy_j`, in the order of `EnergyParts`."""

PAST = 2
"""Row of `Node.energy_j` for instances that are gone; rows 0 and 1 are the two places."""

UNFINISHED, COMPLETED, REJECTED = range(3)
"""Codes of `Outcome`."""

NEVER = 2**62
"""A tick that does not come."""

STATE = np.dtype(
    [
        # What does not change during a run.
        ("block_size", np.int64),
        ("token_budget", np.int64),
        ("max_num_seqs", np.int64),
        ("gpus_per_node", np.int64),
        ("top_clock", np.int64),  # index of the highest clock
        ("gated", np.int64),  # whether requests are held before the engine until they are admitted
        # Where the run stands.
        ("now_s", np.float64),
        ("active", np.int64),  # place of the active instance; the other one warms, drains or is absent
        ("next_arrival", np.int64),  # requests below this one have arrived
        ("admitted", np.int64),  # requests below this one are the engine's, those above wait before it
        ("queue_head", np.int64),  # requests from this one up to `admitted` wait in the engine
        ("eventful", np.int64),  # something happened since the last report
        ("asking", np.int64),  # the gate has to be asked about the first request before the engine
        ("switch_draws", np.int64),  # draws that have been used up
        ("warm_up_draws", np.int64),
        # Since the start of the run.
        ("finished", np.int64),
        ("gap_total_s", np.float64),
        ("frequency_switches", np.int64),
        ("size_changes", np.int64),
        ("ignored_actions", np.int64),
        ("past_gpu_seconds", np.float64),
        # Arrivals of late.
        ("recent_first", np.int64),
        ("recent_prompt_tokens", np.int64),
        # Since the last report.
        ("reported_s", np.float64),
        ("reported_j", np.float64),
        ("reported_finished", np.int64),
        ("arrived", np.int64),
        ("rejected", np.int64),
        ("tokens", np.int64),
        ("gap_sum_s", np.float64),
        ("gap_count", np.int64),
    ],
    align=True,
)
"""Scalars of a node."""

INSTANCE = np.dtype(
    [
        ("state", np.int64),
        ("size_index", np.int64),
        ("size", np.int64),
        ("since_s", np.float64),  # when it entered its state
        ("started_s", np.float64),  # when its GPUs were allocated
        ("ready_s", np.float64),  # when a warming one can serve
        ("accounted_s", np.float64),  # up to when its energy is booked, iterations under way aside
        # Its GPUs' clocks, as indices.
        ("target", np.int64),
        ("ruling", np.int64),
        ("mixed", np.int64),  # whether GPUs differ
        ("changed", np.int64),  # GPUs that have reached the target
        ("next_change_s", np.float64),
        ("idle_w", np.float64),  # of all its GPUs
        # Its requests.
        ("total_blocks", np.int64),
        ("used_blocks", np.int64),
        ("tick", np.int64),  # iterations completed
        ("running", np.int64),
        ("decoding", np.int64),  # the first so many of the batch decode; the others are in prefill
        ("first_last_tick", np.int64),  # the earliest last tick of those who decode
        ("kv_offset", np.int64),  # sum over those who decode of (KV tokens - tick)
        ("partial_tokens", np.int64),  # computed of the one in prefill, at the last boundary
        ("preempted", np.int64),
        # The iteration under way.
        ("busy", np.int64),
        ("start_s", np.float64),
        ("end_s", np.float64),
        ("next_partial_tokens", np.int64),  # `partial_tokens` at its end
        ("host_j", np.float64),
        ("decode_j", np.float64),
        ("prefill_j", np.float64),
    ],
    align=True,
)
"""An engine on its GPUs."""

REQUEST = np.dtype(
    [
        ("arrival_s", np.float64),
        ("scheduled_s", np.float64),
        ("first_token_s", np.float64),
        ("last_token_s", np.float64),  # written at preemptions and at the end
        ("prompt", np.int32),
        ("stop", np.int32),  # output tokens after which it stops; not positive: refused
        ("generated", np.int32),  # written at preemptions and at the end
        ("preemptions", np.int32),
        ("outcome", np.int8),
        ("lost", np.int8),
    ],
    align=True,
)
"""A request; one cache line holds all of it."""

GPU = np.dtype([("clock", np.int64), ("change_s", np.float64)], align=True)
"""A GPU's clock, and when it reaches the target."""

SIZE = np.dtype([("size", np.int64), ("total_blocks", np.int64)], align=True)
"""An instance size: its GPUs, and the KV blocks that requests can hold."""

DECODE_ROW = np.dtype(
    [(name, np.float64) for name in ("host_s", "fixed_s", "per_kv_token_s", "watts")], align=True
)
"""Physics of a decode batch at a clock; `watts` of one GPU."""

PREFILL_ROW = np.dtype([("linear_s", np.float64), ("watts", np.float64)], align=True)
"""Physics of a chunk of so many tokens at a clock; `watts` of one GPU."""

CLOCK_ROW = np.dtype([(name, np.float64) for name in ("idle_w", "floor_s", "per_token2_s")], align=True)
"""Physics of a clock: idle power of one GPU, and what prefill takes besides `PREFILL_ROW`."""


class Node(NamedTuple):
    """All of a node. S: `max_num_seqs`, G: GPUs of the largest size, n: requests of the trace.

    Attributes:
        state: One `STATE` record.
        instances: INSTANCE[2], the two places.
        slots: int64[2, 3, S] by place; see `RUNNING`.
        gpus: GPU[2, G] by place.
        phases: int64[2, block_size] by place: how many who decode have so many (KV tokens - tick), modulo
            the block size. Those with a multiple of it need a block for their next token.
        energy_j: float64[3, 5]: two places and the past, by `EnergyParts`.
        requests: REQUEST[n].
        finished: int32[n], request ids in the order in which they finished.
        gaps: int64[m], tokens by time since the token before (throttllem_env.serving.gaps).
        switch_s: Draws of how long a GPU takes to change its clock.
        warm_up_s: Draws of how long an instance takes to warm.
        sizes: SIZE[sizes].
        decode: DECODE_ROW[sizes, clocks, S + 1].
        prefill: PREFILL_ROW[sizes, clocks, token budget + 1].
        clocks: CLOCK_ROW[sizes, clocks].
    """

    state: Any
    instances: Any
    slots: IntArray
    gpus: Any
    phases: IntArray
    energy_j: FloatArray
    requests: Any
    finished: Any
    gaps: IntArray
    switch_s: FloatArray
    warm_up_s: FloatArray
    sizes: Any
    decode: Any
    prefill: Any
    clocks: Any
