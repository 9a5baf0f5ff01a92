"""The projection read at moments in time instead of iterations."""

from throttllem_env.compiled import compiled
from throttllem_env.prediction.kernels.columns import FloatArray, Question, TimeTables
from throttllem_env.prediction.kernels.future import Future
from throttllem_env.prediction.kernels.growth import blocks_grown, sum_grown
from throttllem_env.prediction.kernels.judge import chunk_s, free_share, piece_times_s


@compiled
def look_ahead(
    future: Future,
    tables: TimeTables,
    clock: int,
    question: Question,
    horizons_s: FloatArray,
    batch: FloatArray,
    kv_blocks: FloatArray,
) -> None:
    """Fill in batch and KV blocks some time from now, at a clock; 0 after the last request's end.

    Args:
        future: The projection.
        tables: Iteration times of the size.
        clock: Index of the clock.
        question: Says which prefill counts.
        horizons_s: float64[k], seconds from now, ascending.
        batch: float64[k], is filled in.
        kv_blocks: float64[k], is filled in.
    """
    free = free_share(question, tables.prefill[clock])
    reached, elapsed_s = 0, 0.0
    batch[:] = 0.0
    kv_blocks[:] = 0.0
    for p in range(future.sweep[0].pieces):
        piece = future.pieces[p]
        took_s = piece_times_s(future, p, tables, clock, 0, 0)[0] + chunk_s(
            future, p, tables, clock, question
        )
        while reached < len(horizons_s) and (elapsed_s + took_s) / free > horizons_s[reached]:
            left_s = horizons_s[reached] * free - elapsed_s
            done = _iterations_done(future, p, tables, clock, left_s)
            batch[reached] = piece.batch
            kv_blocks[reached] = piece.kv_first + (
                blocks_grown(future.growth[p], piece.batch, done) if done else 0
            )
            reached += 1
        if reached == len(horizons_s):
            return
        elapsed_s += took_s


@compiled
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


@compiled
def _first_iterations_s(future: Future, p: int, tables: TimeTables, clock: int, count: int) -> float:
    """Time of the first iterations of a piece without prefill."""
    piece = future.pieces[p]
    batch, interval = min(max(piece.batch, 1), tables.decode.shape[1] - 1), piece.interval
    value_s, rise_s = tables.decode[clock, batch, interval, 0], tables.decode[clock, batch, interval, 1]
    if piece.batch == 0:
        return count * value_s
    kv_sum = count * piece.kv_first + sum_grown(future.growth[p], piece.batch, count)
    share = (kv_sum - count * tables.knot_kv[interval]) * tables.per_block[interval]
    return count * value_s + rise_s * share
