"""May the head of the queue enter the engine now? `prediction.admission` says by which rules."""

from throttllem_env.compiled import inlined
from throttllem_env.prediction.kernels.columns import EngineLimits, Question, Requests, TimeTables
from throttllem_env.prediction.kernels.future import Future, build
from throttllem_env.prediction.kernels.judge import time_pieces
from throttllem_env.types import BoolArray, FloatArray, IntArray

WAIT, ADMIT, ADMIT_LOST, NO_ROOM = 0, 1, 2, -1
"""Answers; NO_ROOM asks for a future with room for `sweep.pieces` pieces."""


@inlined
def admit(
    requests: Requests,
    running: int,
    n: int,
    predicted: IntArray,
    deadline_s: FloatArray,
    limits: EngineLimits,
    tables: TimeTables,
    question: Question,
    future: Future,
    late: BoolArray,
) -> int:
    """Judge at the top clock.

    Args:
        requests: Those running, those in the engine's queue, and the head of the queue before it as the last.
        running: How many run.
        n: How many there are, the head included.
        predicted: int64[n], predicted output lengths.
        deadline_s: float64[n].
        limits: Limits of the instance.
        tables: Iteration times of its size.
        question: What to hold the projection against.
        future: Scratch memory.
        late: bool[n], scratch memory.

    Returns:
        WAIT, ADMIT, ADMIT_LOST or NO_ROOM.
    """
    head, top = n - 1, len(tables.prefill) - 1
    if not build(requests, running, n, predicted, limits, tables, future):
        return NO_ROOM
    fits = future.sweep[0].highest_kv <= limits.kv_blocks
    tbt_s = time_pieces(future, tables, top, question, 0, 0)
    answer = ADMIT if future.ends_s[future.last_piece[head]] <= deadline_s[head] else ADMIT_LOST
    if head == 0:
        return answer
    if not fits or tbt_s > question.tbt_slo_s:
        return WAIT
    if _mark_late(future, head, deadline_s, late) == 0:
        return answer
    # Those who are late without the head already are no reason to keep it waiting.
    build(requests, running, head, predicted, limits, tables, future)
    time_pieces(future, tables, top, question, 0, 0)
    for row in range(head):
        if late[row] and future.ends_s[future.last_piece[row]] <= deadline_s[row]:
            return WAIT
    return answer


@inlined
def _mark_late(future: Future, n: int, deadline_s: FloatArray, late: BoolArray) -> int:
    """Mark those who miss their deadlines, after `time_pieces`; returns how many."""
    count = 0
    for row in range(n):
        late[row] = future.ends_s[future.last_piece[row]] > deadline_s[row]
        count += late[row]
    return count
