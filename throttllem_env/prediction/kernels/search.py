"""Search for the lowest clock that keeps every SLO (paper, section IV-D)."""

from throttllem_env.compiled import inlined
from throttllem_env.prediction.kernels.columns import Question, TimeTables
from throttllem_env.prediction.kernels.future import Future
from throttllem_env.prediction.kernels.judge import keeps_slos, set_deadlines
from throttllem_env.types import FloatArray


@inlined
def lowest_feasible(future: Future, tables: TimeTables, question: Question, guess: int) -> int:
    """The lowest clock at which no deadline is missed and TBT is within its SLO.

    Strides away from the guess, each twice as long as the last, until the answer is enclosed, then halves;
    see `feasibility.first_feasible`.

    Args:
        future: A projection whose KV fits, after `set_deadlines`.
        tables: Iteration times of the size.
        question: What to hold it against.
        guess: Index of the clock to look at first.

    Returns:
        The index of the clock; -1 if even the top clock does not do.
    """
    top = len(tables.prefill) - 1
    below, above = _enclose(future, tables, question, min(max(guess, 0), top))
    if below == top:
        return -1
    while above - below > 1:
        middle = (above + below) // 2
        if keeps_slos(future, tables, middle, question, 0, 0):
            above = middle
        else:
            below = middle
    return above


@inlined
def _enclose(future: Future, tables: TimeTables, question: Question, guess: int) -> tuple[int, int]:
    """An infeasible clock (or -1), and a feasible one above it (or beyond the top)."""
    top = len(tables.prefill) - 1
    at, stride = guess, 1
    if keeps_slos(future, tables, at, question, 0, 0):
        above = at
        while above > 0:
            at = max(above - stride, 0)
            if not keeps_slos(future, tables, at, question, 0, 0):
                return at, above
            above, stride = at, 2 * stride
        return -1, above
    below = at
    while below < top:
        at = min(below + stride, top)
        if keeps_slos(future, tables, at, question, 0, 0):
            return below, at
        below, stride = at, 2 * stride
    return top, top + 1


@inlined
def lowest_in_time(
    future: Future, n: int, deadline_s: FloatArray, tables: TimeTables, question: Question, guess: int
) -> int:
    """`set_deadlines` of n requests and `lowest_feasible` in one."""
    set_deadlines(future, n, deadline_s)
    return lowest_feasible(future, tables, question, guess)
