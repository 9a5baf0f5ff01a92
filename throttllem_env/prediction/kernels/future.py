"""The projection of B[j] and KV[j] as pieces, instead of iteration by iteration.

B changes only where a request ends or a prefill does something; between, KV grows by a pattern that
repeats. A piece is a run of such iterations within which KV also stays in one interval of the time tables,
so that the time of a piece has a closed form at every clock. `scoreboard.project` is the plain form.
"""

from typing import NamedTuple

import numpy as np

from throttllem_env.compiled import inlined
from throttllem_env.prediction.kernels.columns import EngineLimits, Int32Array, Records, Requests, TimeTables
from throttllem_env.prediction.kernels.growth import (
    blocks_grown,
    fill_growth,
    iterations_until,
    quotient,
    remainder,
    sum_grown,
)
from throttllem_env.types import FloatArray, IntArray

PIECE = np.dtype(
    [
        ("count", np.int32),  # iterations
        ("batch", np.int32),  # requests that get a token in each
        ("prefills", np.int32),  # how many of them by prefill
        ("interval", np.int32),  # of the time tables
        ("kv_first", np.int32),  # KV blocks in the first iteration
        ("kv_last", np.int32),  # KV blocks in the last
        ("tokens", np.int64),  # prompt tokens computed
        ("attention", np.int64),  # their sum of n (2 computed + n)
        ("share_sum", np.float64),  # of the time tables' shares, over all iterations
        ("share_last", np.float64),  # share in the last
    ],
    align=True,
)

SWEEP = np.dtype(
    [
        ("at", np.int64),  # the iteration that has been come to
        ("kv", np.int64),  # KV blocks there of requests that get tokens
        ("batch", np.int64),  # those requests
        ("prefills", np.int64),  # those of them that get it by prefill
        ("tokens", np.int64),  # prompt tokens computed there
        ("attention", np.int64),
        ("last_end", np.int64),  # one past the last iteration of all who have started
        ("pieces", np.int64),  # so far
        ("highest_kv", np.int64),  # so far
    ],
    align=True,
)


class Future(NamedTuple):
    """A projection, and the scratch memory to make and judge it; see `new_future`.

    Attributes:
        pieces: PIECE[capacity], in order of time.
        growth: int32[capacity, block size], see `growth`.
        sweep: SWEEP[1].
        last_piece: int64[requests], in which each ends.
        tightest_s: float64[capacity], the earliest deadline of those who end with a piece.
        ends_s: float64[capacity], when pieces end at the clock judged last.
        growing: int64[2 block sizes], see `fill_growth`.
        anchor: int64[requests], tokens held at j, less j.
        phase: int64[requests], j modulo the block size on entering which each takes a block.
        ending: int64[a power of two], a request that ends at j, plus 1, by j modulo its length.
        next_ending: int64[requests], another that ends at the same j, plus 1.
    """

    pieces: Records
    growth: Int32Array
    sweep: Records
    last_piece: IntArray
    tightest_s: FloatArray
    ends_s: FloatArray
    growing: IntArray
    anchor: IntArray
    phase: IntArray
    ending: IntArray
    next_ending: IntArray


def new_future(requests: int, pieces: int, block_size: int, longest_tokens: int) -> Future:
    """Allocate a future that can be built again and again.

    Args:
        requests: How many it can hold.
        pieces: How many it can hold.
        block_size: N.
        longest_tokens: Most tokens that a request may still have to come.
    """
    ring = 1 << int(longest_tokens + 1).bit_length()
    return Future(
        np.empty(pieces, PIECE),
        np.empty((pieces, block_size), np.int32),
        np.zeros(1, SWEEP),
        np.empty(requests, np.int64),
        np.empty(pieces),
        np.empty(pieces),
        np.zeros(2 * block_size, np.int64),
        np.empty(requests, np.int64),
        np.empty(requests, np.int64),
        np.zeros(ring, np.int64),
        np.empty(requests, np.int64),
    )


@inlined
def build(
    requests: Requests,
    running: int,
    n: int,
    predicted: IntArray,
    limits: EngineLimits,
    tables: TimeTables,
    future: Future,
) -> bool:
    """Project B[j] and KV[j] until the last request ends.

    Args:
        requests: Those running, then those waiting.
        running: How many run.
        n: How many there are.
        predicted: int64[n], predicted output lengths, each larger than what has been generated.
        limits: Limits of the instance.
        tables: Give the intervals of KV.
        future: Is filled in.

    Returns:
        Whether the pieces had room; if not, `sweep.pieces` says how many are needed.
    """
    _clear(future)
    sweep = future.sweep[0]
    for row in range(running):
        if _decodes(requests, row):
            _start(requests, row, predicted, future)
    for row in range(running):
        if not _decodes(requests, row):
            _prefill(requests, row, predicted, limits, tables, future)
    for row in range(running, n):
        _await_place(requests, row, limits, tables, future)
        _prefill(requests, row, predicted, limits, tables, future)
    while sweep.batch:
        _advance(sweep.last_end, tables, future)
    return bool(sweep.pieces <= len(future.pieces))


@inlined
def _clear(future: Future) -> None:
    """Start over; `ending` is empty already, because all requests of the last projection ended."""
    sweep = future.sweep[0]
    sweep.at = sweep.kv = sweep.batch = sweep.prefills = sweep.tokens = sweep.attention = 0
    sweep.last_end = sweep.pieces = sweep.highest_kv = 0
    future.growing[:] = 0


@inlined
def _decodes(requests: Requests, row: int) -> bool:
    """Whether its next token appears at j = 0: a prompt whose last token alone is left is in prefill."""
    computed, prompt = requests.computed_tokens[row], requests.prompt_tokens[row]
    return bool(prompt + requests.generated_tokens[row] - computed <= 1 and computed >= prompt)


@inlined
def _start(requests: Requests, row: int, predicted: IntArray, future: Future) -> None:
    """Tokens of a request appear from here on."""
    sweep, block_size, ring = future.sweep[0], future.growth.shape[1], len(future.ending)
    known = requests.prompt_tokens[row] + requests.generated_tokens[row]
    end = sweep.at + max(predicted[row] - requests.generated_tokens[row], 1)
    anchor = known - sweep.at
    sweep.batch += 1
    held = quotient(known + block_size - 1, block_size)
    # It takes a block on entering j where (known + j - at - 1) is a multiple of the block size.
    phase = remainder(sweep.at + 1 + held * block_size - known, block_size)
    sweep.kv += held
    sweep.last_end = max(sweep.last_end, end)
    future.anchor[row] = anchor
    future.phase[row] = phase
    future.growing[phase] += 1
    future.growing[phase + block_size] += 1
    future.next_ending[row] = future.ending[end & (ring - 1)]
    future.ending[end & (ring - 1)] = row + 1


@inlined
def _prefill(
    requests: Requests,
    row: int,
    predicted: IntArray,
    limits: EngineLimits,
    tables: TimeTables,
    future: Future,
) -> None:
    """Give a request the tokens that the budget leaves, iteration by iteration, then let it decode."""
    sweep = future.sweep[0]
    known = requests.prompt_tokens[row] + requests.generated_tokens[row]
    computed = requests.computed_tokens[row]
    while True:
        chunk = min(known - computed, max(_budget(limits, future), 0))
        sweep.tokens += chunk
        sweep.attention += chunk * (2 * computed + chunk)
        computed += chunk
        if computed >= known:
            break
        _step((computed + limits.block_size - 1) // limits.block_size, tables, future)
    _start(requests, row, predicted, future)
    sweep.prefills += 1


@inlined
def _budget(limits: EngineLimits, future: Future) -> int:
    """Tokens left here after everyone that decodes and what was already prefilled."""
    sweep = future.sweep[0]
    return int(limits.token_budget - (sweep.batch - sweep.prefills) - sweep.tokens)


@inlined
def _await_place(
    requests: Requests, row: int, limits: EngineLimits, tables: TimeTables, future: Future
) -> None:
    """Go on until there are free blocks, a free seat and budget; at the latest until all have ended."""
    sweep = future.sweep[0]
    known = requests.prompt_tokens[row] + requests.generated_tokens[row]
    blocks = (known + limits.block_size - 1) // limits.block_size
    latest = max(sweep.last_end, sweep.at + 1)
    while sweep.at < latest:
        free = limits.kv_blocks - sweep.kv
        if free >= blocks and sweep.batch < limits.seats and _budget(limits, future) > 0:
            break
        _advance(latest, tables, future)


@inlined
def _advance(latest: int, tables: TimeTables, future: Future) -> None:
    """Go on to where something changes, or to the latest iteration given."""
    sweep = future.sweep[0]
    if sweep.tokens:
        _step(0, tables, future)
        return
    mask, end = len(future.ending) - 1, sweep.at + 1
    while end < latest and not future.ending[end & mask]:
        end += 1
    _run(end, tables, future)
    _retire(future)


@inlined
def _step(prefill_blocks: int, tables: TimeTables, future: Future) -> None:
    """One iteration, in which prefill may happen and hold blocks besides."""
    sweep = future.sweep[0]
    held = sweep.kv + prefill_blocks
    _append(1, _interval(held, tables), held, held, held, tables, future)
    sweep.at += 1
    sweep.kv += future.growing[remainder(sweep.at, future.growth.shape[1])]
    sweep.prefills = sweep.tokens = sweep.attention = 0
    _retire(future)


@inlined
def _run(end: int, tables: TimeTables, future: Future) -> None:
    """Iterations of an unchanging batch, cut where KV leaves an interval."""
    sweep = future.sweep[0]
    while sweep.at < end:
        count, kv = end - sweep.at, sweep.kv
        growth = future.growth[min(sweep.pieces, len(future.pieces) - 1)]
        fill_growth(growth, future.growing, sweep.at, count)
        interval = _interval(kv, tables)
        if interval + 1 < len(tables.first_kv):
            room = tables.first_kv[interval + 1] - kv
            if blocks_grown(growth, sweep.batch, count - 1) >= room:
                count = iterations_until(growth, sweep.batch, room)
        kv_last = kv + blocks_grown(growth, sweep.batch, count - 1)
        kv_sum = count * kv + sum_grown(growth, sweep.batch, count)
        _append(count, interval, kv, kv_last, kv_sum, tables, future)
        sweep.kv = kv + blocks_grown(growth, sweep.batch, count)
        sweep.at += count


@inlined
def _interval(kv: int, tables: TimeTables) -> int:
    return int(tables.interval_of[min(kv, len(tables.interval_of) - 1)])


@inlined
def _append(
    count: int, interval: int, kv_first: int, kv_last: int, kv_sum: int, tables: TimeTables, future: Future
) -> None:
    """Add a piece; without room the last one is overwritten, and only counted."""
    sweep = future.sweep[0]
    piece = future.pieces[min(sweep.pieces, len(future.pieces) - 1)]
    knot, per_block = tables.knot_kv[interval], tables.per_block[interval]
    piece.count, piece.batch, piece.prefills = count, sweep.batch, sweep.prefills
    piece.interval, piece.kv_first, piece.kv_last = interval, kv_first, kv_last
    piece.tokens, piece.attention = sweep.tokens, sweep.attention
    piece.share_sum = (kv_sum - count * knot) * per_block
    piece.share_last = (kv_last - knot) * per_block
    sweep.pieces += 1
    sweep.highest_kv = max(sweep.highest_kv, kv_last)


@inlined
def _retire(future: Future) -> None:
    """Those whose last token has appeared give their blocks back."""
    sweep, block_size = future.sweep[0], future.growth.shape[1]
    slot = sweep.at & (len(future.ending) - 1)
    row = future.ending[slot] - 1
    future.ending[slot] = 0
    while row >= 0:
        anchor = future.anchor[row]
        sweep.batch -= 1
        sweep.kv -= quotient(anchor + sweep.at + block_size - 1, block_size)
        future.growing[future.phase[row]] -= 1
        future.growing[future.phase[row] + block_size] -= 1
        future.last_piece[row] = sweep.pieces - 1
        row = future.next_ending[row] - 1
