"""The projection read at moments in time instead of iterations."""

from throttllem_env.compiled import inlined
from throttllem_env.prediction.kernels.columns import Question, TimeTables
from throttllem_env.prediction.kernels.future import Future
from throttllem_env.prediction.kernels.growth import blocks_grown, sum_grown
from throttllem_env.prediction.kernels.judge import free_share
from throttllem_env.types import FloatArray


@inlined
def look_ahead(
    future: Future,
    tables: TimeTables,
    clock: int,
    question: Question,
    horizons_s: FloatArray,
    batch: FloatArray,
    kv_blocks: FloatArray,
) -> None:
    """Fill in batch and KV blocks some time from now; 0 after the last request's end.

    Args:
        future: A projection after `time_pieces` at the clock, without floors.
        tables: Iteration times of the size.
        clock: Index of the clock.
        question: As it was put to `time_pieces`.
        horizons_s: float64[k], seconds from now, ascending.
        batch: float64[k], is filled in.
        kv_blocks: float64[k], is filled in.
    """
    free, p, pieces = free_share(question, tables.prefill[clock]), 0, future.sweep[0].pieces
    batch[:] = 0.0
    kv_blocks[:] = 0.0
    for h in range(len(horizons_s)):
        then_s = question.now_s + horizons_s[h]
        while p < pieces and future.ends_s[p] <= then_s:
            p += 1
        if p == pieces:
            return
        begin_s = future.ends_s[p - 1] if p else question.now_s
        done = _iterations_done(future, p, tables, clock, (then_s - begin_s) * free)
        piece = future.pieces[p]
        batch[h] = piece.batch
        kv_blocks[h] = piece.kv_first
        if done:
            kv_blocks[h] += blocks_grown(future.growth[p], piece.batch, done)


@inlined
def _iterations_done(future: Future, p: int, tables: TimeTables, clock: int, left_s: float) -> int:
    """How many iterations of a piece are over after some time, by halving; all but the last at most."""
    low, high = 0, future.pieces[p].count - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _first_iterations_s(future, p, tables, clock, middle) <= left_s:
            low = middle
        else:
            high = middle - 1
    return low


@inlined
def _first_iterations_s(future: Future, p: int, tables: TimeTables, clock: int, count: int) -> float:
    """Time of the first iterations of a piece without prefill."""
    piece = future.pieces[p]
    batch, interval = min(max(piece.batch, 1), tables.decode.shape[1] - 1), piece.interval
    value_s, rise_s = tables.decode[clock, batch, interval, 0], tables.decode[clock, batch, interval, 1]
    if piece.batch == 0:
        return float(count * value_s)
    kv_sum = count * piece.kv_first + sum_grown(future.growth[p], piece.batch, count)
    share = (kv_sum - count * tables.knot_kv[interval]) * tables.per_block[interval]
    return float(count * value_s + rise_s * share)
