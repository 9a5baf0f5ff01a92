"""Which clocks keep every SLO: projected times, deadlines, and the search for the lowest clock.

All functions are pure: the observation and the reference controller share them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from throttllem_env.prediction.iteration_time import IterationTimePredictor
from throttllem_env.prediction.scoreboard import Projection
from throttllem_env.slo import Slo
from throttllem_env.types import FloatArray

PrefillModel = Literal["ignore", "pending", "expected"]
"""Which prefill a projection counts: none (the paper), that of known requests, also that of future ones."""

MAX_PREFILL_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Outlook:
    """A projection with everything that is needed to judge a clock.

    Attributes:
        projection: B and KV.
        size: Instance size.
        now_s: When it was made.
        deadline_s: float64[n], by when each request must complete; infinity for lost ones.
        lost: Whether a lost request is on board: the clock then stays at the top.
        tbt_slo_s: Bound on the mean time between tokens.
        prompt_token_rate: Recent prompt tokens per second.
        mean_prompt_tokens: Mean prompt of recent arrivals, tokens.
        prefill: Which prefill counts.
    """

    projection: Projection
    size: int
    now_s: float
    deadline_s: FloatArray
    lost: bool
    tbt_slo_s: float
    prompt_token_rate: float
    mean_prompt_tokens: float
    prefill: PrefillModel


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


def prefill_share(outlook: Outlook, predictor: IterationTimePredictor, mhz: int) -> float:
    """rho(f): share of time that the prompts of future arrivals will take, at most 0.9.

    Recent prompt-token rate x prefill time per token at f. The time per token is that of a mean prompt
    computed on the side of decode.
    """
    if outlook.prefill != "expected" or outlook.prompt_token_rate <= 0:
        return 0.0
    tokens = np.array([outlook.mean_prompt_tokens])
    per_prompt_s = predictor.prefill_s(outlook.size, tokens, tokens**2, mhz)[0]
    return min(
        float(outlook.prompt_token_rate * per_prompt_s / outlook.mean_prompt_tokens), MAX_PREFILL_SHARE
    )


def iteration_times_s(
    outlook: Outlook, predictor: IterationTimePredictor, mhz: int
) -> tuple[FloatArray, FloatArray]:
    """t[j] at a clock.

    Returns:
        float64[h] with decode only, float64[h] with the prefill of known requests (unless ignored).
    """
    p = outlook.projection
    # An iteration that only prefills reads the weights as well, as a batch of one would.
    decoding = p.decode_batch > 0
    batch, kv_blocks = np.maximum(p.decode_batch, 1), np.where(decoding, p.kv_blocks, 0)
    decode_s = predictor.decode_s(outlook.size, batch, kv_blocks, mhz)
    if outlook.prefill == "ignore":
        return decode_s, decode_s
    total_s = decode_s
    busy = np.flatnonzero(p.prefill_tokens)
    if len(busy):
        total_s = decode_s.copy()
        tokens, attention = p.prefill_tokens[busy], p.prefill_attention[busy]
        total_s[busy] += predictor.prefill_s(outlook.size, tokens, attention, mhz)
    return decode_s, total_s


def judge(outlook: Outlook, predictor: IterationTimePredictor, mhz: int) -> Verdict:
    """Project completions at a clock and hold them against the SLOs.

    finish_i = now + sum over j < end_i of t[j], divided by 1 - rho(f). The TBT SLO is a mean, so it is
    held against decode iterations with the prefill of others averaged in, not against single chunks.

    Args:
        outlook: The projection and its deadlines.
        predictor: M.
        mhz: The clock.
    """
    if not len(outlook.projection):
        return Verdict(np.empty(0), float("inf"), 0.0, True)
    decode_s, total_s = iteration_times_s(outlook, predictor, mhz)
    free_share = 1.0 - prefill_share(outlook, predictor, mhz)
    finish_s = outlook.now_s + np.cumsum(total_s)[outlook.projection.end_iteration - 1] / free_share
    slack_s = float((outlook.deadline_s - finish_s).min())
    tbt_s = float(decode_s.max()) / free_share
    feasible = outlook.projection.fits and slack_s >= 0 and tbt_s <= outlook.tbt_slo_s
    return Verdict(finish_s, slack_s, tbt_s, feasible)


def lowest_feasible_mhz(
    outlook: Outlook,
    predictor: IterationTimePredictor,
    clocks_mhz: tuple[int, ...],
    guess_mhz: int | None = None,
) -> tuple[int, bool]:
    """Search for the lowest clock that keeps every SLO (paper, section IV-D).

    A higher clock never makes an iteration slower, so feasibility is monotone in the clock.

    Args:
        outlook: The projection and its deadlines.
        predictor: M.
        clocks_mhz: Clocks to choose from, ascending.
        guess_mhz: Where to look first, such as the last answer; changes the cost, not the answer.

    Returns:
        The lowest feasible clock and True, or the top clock and False if none is.
    """
    top = len(clocks_mhz) - 1
    if outlook.lost:
        return clocks_mhz[top], False
    guess = top if guess_mhz is None else clocks_mhz.index(guess_mhz)
    found = first_feasible(lambda index: judge(outlook, predictor, clocks_mhz[index]).feasible, 0, top, guess)
    return (clocks_mhz[top], False) if found is None else (clocks_mhz[found], True)


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
