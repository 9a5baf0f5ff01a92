"""How long the pieces of a future take at a clock, and whether every SLO is kept."""

import math

from throttllem_env.compiled import inlined
from throttllem_env.prediction.kernels.columns import Question, TimeTables
from throttllem_env.prediction.kernels.future import Future
from throttllem_env.prediction.kernels.growth import iterations_until, sum_grown
from throttllem_env.types import FloatArray

MAX_PREFILL_SHARE = 0.9


@inlined
def prefill_s(coefficients: FloatArray, tokens: float, attention: float) -> float:
    """Time that a prefill chunk adds to an iteration that decodes as well; see `ClockTable._chunk_s`.

    Args:
        coefficients: float64[5], see `ClockTable.prefill_coefficients`.
        tokens: Prompt tokens, above 0.
        attention: Their sum of n (2 computed + n).
    """
    floor_s, thousands = coefficients[0], tokens / 1000
    compute_s = coefficients[1] + coefficients[2] * tokens + coefficients[3] * thousands / (1 + thousands)
    floor2, compute2 = floor_s * floor_s, compute_s * compute_s
    linear_s = math.sqrt(math.sqrt(floor2 * floor2 + compute2 * compute2))
    return float(linear_s + coefficients[4] * attention - floor_s)


@inlined
def free_share(question: Question, coefficients: FloatArray) -> float:
    """Share of time that prompts of future arrivals leave; see `reference.prefill_share`."""
    if question.prefill < 2 or question.prompt_token_rate <= 0:
        return 1.0
    tokens = question.mean_prompt_tokens
    per_token_s = prefill_s(coefficients, tokens, tokens**2) / tokens
    return 1.0 - min(question.prompt_token_rate * per_token_s, MAX_PREFILL_SHARE)


@inlined
def piece_times_s(
    future: Future, p: int, tables: TimeTables, clock: int, batch_floor: int, kv_floor: int
) -> tuple[float, float]:
    """Decode time of a piece, and that of its longest iteration: its last.

    Args:
        future: The projection.
        p: The piece.
        tables: Iteration times of the size.
        clock: Index of the clock.
        batch_floor: The batch is taken to be at least this.
        kv_floor: KV blocks are taken to be at least this.
    """
    piece = future.pieces[p]
    batch = max(piece.batch, batch_floor) - piece.prefills
    if batch <= 0:
        # An iteration that only prefills reads the weights as well, as a batch of one would.
        value_s = tables.decode[clock, 1, 0, 0]
        return piece.count * value_s, value_s
    batch = min(batch, tables.decode.shape[1] - 1)
    value_s = tables.decode[clock, batch, piece.interval, 0]
    rise_s = tables.decode[clock, batch, piece.interval, 1]
    longest_s = value_s + rise_s * piece.share_last
    if piece.kv_first >= kv_floor:
        return piece.count * value_s + rise_s * piece.share_sum, longest_s
    interval = tables.interval_of[min(kv_floor, len(tables.interval_of) - 1)]
    floor_s = tables.decode[clock, batch, interval, 0] + tables.decode[clock, batch, interval, 1] * (
        (kv_floor - tables.knot_kv[interval]) * tables.per_block[interval]
    )
    if piece.kv_last <= kv_floor:
        return piece.count * floor_s, floor_s
    below = iterations_until(future.growth[p], piece.batch, kv_floor - piece.kv_first)
    kv_below = below * piece.kv_first + sum_grown(future.growth[p], piece.batch, below)
    share_below = (kv_below - below * tables.knot_kv[interval]) * tables.per_block[interval]
    above_s = (piece.count - below) * value_s + rise_s * (piece.share_sum - share_below)
    return below * floor_s + above_s, longest_s


@inlined
def chunk_s(future: Future, p: int, tables: TimeTables, clock: int, question: Question) -> float:
    """Time that prefill adds to a piece."""
    piece = future.pieces[p]
    if question.prefill == 0 or piece.tokens == 0:
        return 0.0
    return prefill_s(tables.prefill[clock], float(piece.tokens), float(piece.attention))


@inlined
def set_deadlines(future: Future, n: int, deadline_s: FloatArray) -> None:
    """Give each piece the earliest deadline of those who end with it, infinity where nobody does."""
    for p in range(future.sweep[0].pieces):
        future.tightest_s[p] = math.inf
    for row in range(n):
        p = future.last_piece[row]
        future.tightest_s[p] = min(future.tightest_s[p], deadline_s[row])


@inlined
def keeps_slos(
    future: Future, tables: TimeTables, clock: int, question: Question, batch_floor: int, kv_floor: int
) -> bool:
    """Whether no deadline of `set_deadlines` is missed at a clock, and TBT is within its SLO."""
    free = free_share(question, tables.prefill[clock])
    longest_s, elapsed_s = question.tbt_slo_s * free, 0.0
    for p in range(future.sweep[0].pieces):
        decode_s, last_s = piece_times_s(future, p, tables, clock, batch_floor, kv_floor)
        elapsed_s += decode_s + chunk_s(future, p, tables, clock, question)
        if last_s > longest_s or elapsed_s > (future.tightest_s[p] - question.now_s) * free:
            return False
    return True


@inlined
def time_pieces(
    future: Future, tables: TimeTables, clock: int, question: Question, batch_floor: int, kv_floor: int
) -> float:
    """Fill in when each piece ends at a clock.

    Returns:
        Longest time between tokens, prefill of others averaged in; 0 without pieces.
    """
    free = free_share(question, tables.prefill[clock])
    longest_s, elapsed_s = 0.0, 0.0
    for p in range(future.sweep[0].pieces):
        decode_s, last_s = piece_times_s(future, p, tables, clock, batch_floor, kv_floor)
        elapsed_s += decode_s + chunk_s(future, p, tables, clock, question)
        future.ends_s[p] = question.now_s + elapsed_s / free
        longest_s = max(longest_s, last_s)
    return longest_s / free


@inlined
def least_slack_s(future: Future) -> float:
    """Least time between a completion and its deadline, after `set_deadlines` and `time_pieces`."""
    slack_s = math.inf
    for p in range(future.sweep[0].pieces):
        slack_s = min(slack_s, future.tightest_s[p] - future.ends_s[p])
    return slack_s


@inlined
def late(future: Future, n: int, deadline_s: FloatArray) -> int:
    """How many requests miss their deadlines, after `time_pieces`."""
    count = 0
    for row in range(n):
        count += future.ends_s[future.last_piece[row]] > deadline_s[row]
    return count


@inlined
def completions(
    future: Future,
    n: int,
    tables: TimeTables,
    clock: int,
    question: Question,
    batch_floor: int,
    kv_floor: int,
    finish_s: FloatArray,
) -> float:
    """Fill in when each request completes at a clock; see `time_pieces`.

    Returns:
        Longest time between tokens.
    """
    tbt_s = time_pieces(future, tables, clock, question, batch_floor, kv_floor)
    for row in range(n):
        finish_s[row] = future.ends_s[future.last_piece[row]]
    return tbt_s
