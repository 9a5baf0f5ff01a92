"""Which clocks keep every SLO: projected times, deadlines, and the search for the lowest clock.

All functions are pure: the observation and the reference controller share them. What they compute is
compiled (`kernels`); `reference` has the plain form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from throttllem_env.prediction.kernels import look_ahead as look_ahead_kernel
from throttllem_env.prediction.kernels.columns import Question, TimeTables
from throttllem_env.prediction.kernels.future import Future
from throttllem_env.prediction.kernels.judge import MAX_PREFILL_SHARE, completions, time_pieces
from throttllem_env.prediction.kernels.search import lowest_in_time
from throttllem_env.slo import Slo
from throttllem_env.types import FloatArray

__all__ = [
    "MAX_PREFILL_SHARE",
    "Outlook",
    "PrefillModel",
    "Verdict",
    "deadlines_s",
    "first_feasible",
    "judge",
    "look_ahead",
    "lowest_feasible_mhz",
]

PrefillModel = Literal["ignore", "pending", "expected"]
"""Which prefill a projection counts: none (the paper), that of known requests, also that of future ones."""

PREFILL_CODES: Mapping[PrefillModel, int] = {name: code for code, name in enumerate(get_args(PrefillModel))}
"""As kernels know them, see `Question`."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """A projection with everything that is needed to judge a clock.

    Attributes:
        future: B and KV, as pieces.
        tables: Iteration times of the size, at every clock.
        clocks: Index of each clock in the tables, by MHz.
        size: Instance size.
        fits: Whether projected KV stays within capacity throughout.
        deadline_s: float64[n], by when each request must complete; infinity for lost ones.
        lost: Whether a lost request is on board: the clock then stays at the top.
        question: What else to hold it against: now, the TBT SLO and the prefill that counts.
    """

    future: Future
    tables: TimeTables
    clocks: Mapping[int, int]
    size: int
    fits: bool
    deadline_s: FloatArray
    lost: bool
    question: Question

    @property
    def now_s(self) -> float:
        """When it was made."""
        return self.question.now_s


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the SLOs fare at one clock.

    Attributes:
        finish_s: float64[n], when each request completes.
        slack_s: Least time between a completion and its deadline (infinity without deadlines).
        tbt_s: Longest projected time between tokens, prefill of others averaged in.
        feasible: KV fits, TBT within its SLO, no deadline missed.
    """

    finish_s: FloatArray
    slack_s: float
    tbt_s: float
    feasible: bool


def deadlines_s(arrival_s: FloatArray, slo: Slo, now_s: float, margin: float) -> FloatArray:
    """By when requests must complete, keeping a share of the time that is left as margin.

    Args:
        arrival_s: float64[n].
        slo: The targets.
        now_s: Now.
        margin: Share of the time left that is kept in reserve, in [0, 1).
    """
    deadline_s = arrival_s + slo.e2e_s
    left_s = np.maximum(deadline_s - now_s, 0.0)
    result: FloatArray = deadline_s - margin * left_s
    return result


def judge(outlook: Outlook, mhz: int, *, batch_floor: int = 0, kv_floor: int = 0) -> Verdict:
    """Project completions at a clock and hold them against the SLOs.

    finish_i = now + sum over j < end_i of t[j], divided by 1 - rho(f). The TBT SLO is a mean, so it is
    held against decode iterations with the prefill of others averaged in, not against single chunks.

    Args:
        outlook: The projection and its deadlines.
        mhz: The clock, one that the GPU supports.
        batch_floor: The projected batch is taken to be at least this.
        kv_floor: Projected KV blocks are taken to be at least this.
    """
    n, clock = len(outlook.deadline_s), outlook.clocks[mhz]
    if not n:
        return Verdict(np.empty(0), float("inf"), 0.0, True)
    finish_s = np.empty(n)
    tbt_s = completions(
        outlook.future, n, outlook.tables, clock, outlook.question, batch_floor, kv_floor, finish_s
    )
    slack_s = float((outlook.deadline_s - finish_s).min())
    return Verdict(
        finish_s, slack_s, tbt_s, outlook.fits and slack_s >= 0 and tbt_s <= outlook.question.tbt_slo_s
    )


def lowest_feasible_mhz(
    outlook: Outlook, clocks_mhz: tuple[int, ...], guess_mhz: int | None = None
) -> tuple[int, bool]:
    """Search for the lowest clock that keeps every SLO (paper, section IV-D).

    A higher clock never makes an iteration slower, so feasibility is monotone in the clock.

    Args:
        outlook: The projection and its deadlines.
        clocks_mhz: Clocks that the GPU supports, ascending.
        guess_mhz: Where to look first, such as the last answer; changes the cost, not the answer.

    Returns:
        The lowest feasible clock and True, or the top clock and False if none is.
    """
    top_mhz = clocks_mhz[-1]
    if outlook.lost or not outlook.fits:
        return top_mhz, False
    guess = outlook.clocks[guess_mhz or top_mhz]
    n, question = len(outlook.deadline_s), outlook.question
    found = lowest_in_time(outlook.future, n, outlook.deadline_s, outlook.tables, question, guess)
    return (top_mhz, False) if found < 0 else (clocks_mhz[found], True)


def look_ahead(outlook: Outlook, mhz: int, horizons_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Projected batch and KV blocks some time from now, at a clock.

    Args:
        outlook: The projection.
        mhz: The clock that is kept until then.
        horizons_s: float64[k], seconds from now, ascending.

    Returns:
        float64[k] batch and float64[k] KV blocks; 0 after the last request's end.
    """
    batch, kv_blocks = np.empty(len(horizons_s)), np.empty(len(horizons_s))
    future, tables, clock, question = outlook.future, outlook.tables, outlook.clocks[mhz], outlook.question
    time_pieces(future, tables, clock, question, 0, 0)
    look_ahead_kernel.look_ahead(future, tables, clock, question, horizons_s, batch, kv_blocks)
    return batch, kv_blocks


def first_feasible(feasible: Callable[[int], bool], low: int, high: int, guess: int) -> int | None:
    """The smallest feasible index from `low` to `high`, where every index above a feasible one is.

    Strides away from the guess, each twice as long as the last, until the answer is enclosed, then halves.
    Projections change little from one decision to the next, so a good guess needs two or three questions.

    Args:
        feasible: Asked about indices.
        low: Smallest index to consider.
        high: Largest index to consider.
        guess: Where to look first; held to the range.

    Returns:
        The index, or None if not even `high` is feasible.

    Example:
        >>> first_feasible(lambda index: index >= 7, 0, 80, 5)
        7
    """
    at, stride = min(max(guess, low), high), 1
    if feasible(at):
        above = at  # known to be feasible
        while above > low and feasible(at := max(above - stride, low)):
            above, stride = at, 2 * stride
        below = low - 1 if above == low else at
    else:
        below = at  # known not to be
        while below < high and not feasible(at := min(below + stride, high)):
            below, stride = at, 2 * stride
        if below == high:
            return None
        above = at
    while above - below > 1:
        middle = (above + below) // 2
        if feasible(middle):
            above = middle
        else:
            below = middle
    return above
