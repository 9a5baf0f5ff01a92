"""The reference controller's choice of a clock in one go, from columns of requests."""

from throttllem_env.compiled import inlined
from throttllem_env.prediction.kernels.columns import (
    EngineLimits,
    LengthTable,
    Question,
    Requests,
    TimeTables,
)
from throttllem_env.prediction.kernels.future import Future, build
from throttllem_env.prediction.kernels.lengths import predict, remaining_deadlines
from throttllem_env.prediction.kernels.search import lowest_in_time
from throttllem_env.types import FloatArray, IntArray

NONE_FEASIBLE, NO_ROOM = -1, -2
"""Answers besides clocks; NO_ROOM asks for a future with room for `sweep.pieces` pieces."""


@inlined
def decide(
    requests: Requests,
    running: int,
    n: int,
    lengths: LengthTable,
    e2e_s: float,
    margin: float,
    limits: EngineLimits,
    tables: TimeTables,
    question: Question,
    guess: int,
    future: Future,
    predicted: IntArray,
    deadline_s: FloatArray,
) -> int:
    """Predict lengths, project, and search for the lowest clock that keeps every SLO.

    Args:
        requests: Those running, then those waiting.
        running: How many run.
        n: How many there are.
        lengths: The length predictor.
        e2e_s: The E2E SLO, seconds.
        margin: Share of the time left before a deadline that is kept in reserve.
        limits: Limits of the instance.
        tables: Iteration times of its size.
        question: What to hold the projection against.
        guess: Index of the clock to look at first.
        future: Scratch memory.
        predicted: int64[n], scratch memory.
        deadline_s: float64[n], scratch memory.

    Returns:
        The index of the clock, NONE_FEASIBLE or NO_ROOM.
    """
    predict(lengths, requests, n, predicted)
    remaining_deadlines(requests, n, e2e_s, question.now_s, margin, deadline_s)
    if not build(requests, running, n, predicted, limits, tables, future):
        return NO_ROOM
    if future.sweep[0].highest_kv > limits.kv_blocks:
        return NONE_FEASIBLE
    for row in range(n):
        if requests.lost[row]:
            return NONE_FEASIBLE
    return lowest_in_time(future, n, deadline_s, tables, question, guess)
