"""Projection, judging and search in their plain form: iteration by iteration, in NumPy.

It is what the compiled path is held to (tests/prediction/test_compiled.py), and what shows single iterations.
"""

from dataclasses import dataclass

import numpy as np

from throttllem_env.prediction.admission import with_head
from throttllem_env.prediction.feasibility import (
    MAX_PREFILL_SHARE,
    PrefillModel,
    Verdict,
    deadlines_s,
    first_feasible,
)
from throttllem_env.prediction.iteration_time import IterationTimePredictor
from throttllem_env.prediction.lengths import LengthPredictor, TabulatedLengths
from throttllem_env.prediction.outlook import Forecaster
from throttllem_env.prediction.scoreboard import Projection, build_scoreboard, project
from throttllem_env.types import FloatArray, IntArray, RequestTable, Telemetry


@dataclass(frozen=True, slots=True)
class PlainOutlook:
    """A projection with everything that is needed to judge a clock; see `feasibility.Outlook`.

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


def plain_outlook(
    forecaster: Forecaster, telemetry: Telemetry, waiting: RequestTable | None = None
) -> PlainOutlook:
    """Project the active instance; see `Forecaster.outlook`."""
    instance = telemetry.active
    waiting = telemetry.waiting if waiting is None else waiting
    requests = RequestTable.concatenate([instance.running, waiting])
    board = build_scoreboard(instance, waiting, plain_lengths(forecaster.lengths, requests))
    deadline_s = deadlines_s(requests.arrival_s, forecaster.slo, telemetry.time_s, forecaster.margin)
    recent = telemetry.recent
    return PlainOutlook(
        projection=project(board, forecaster.scenario.engine),
        size=instance.size,
        now_s=telemetry.time_s,
        deadline_s=np.where(requests.lost, np.inf, deadline_s),
        lost=bool(requests.lost.any()),
        tbt_slo_s=forecaster.slo.tbt_s,
        prompt_token_rate=recent.prompt_token_rate,
        mean_prompt_tokens=recent.prompt_tokens / max(recent.requests, 1),
        prefill=forecaster.prefill,
    )


def outlive(predicted: IntArray, requests: RequestTable, cap_tokens: int, max_model_len: int) -> IntArray:
    """Set requests that outlived their prediction to the cap, else to their remaining context.

    Args:
        predicted: int64[n].
        requests: n requests.
        cap_tokens: Longest output that clients ask for.
        max_model_len: Longest prompt plus output.

    Returns:
        int64[n], within the context and larger than what has been generated.
    """
    generated = requests.generated_tokens
    context = max_model_len - requests.prompt_tokens
    cap = np.where(generated < cap_tokens, np.minimum(cap_tokens, context), context)
    alive = np.where(predicted > generated, np.minimum(predicted, context), cap)
    return np.maximum(alive, generated + 1)


def plain_lengths(predictor: LengthPredictor, requests: RequestTable) -> IntArray:
    """Predicted output lengths; those of predictors that kernels cannot read are their own."""
    if not isinstance(predictor, TabulatedLengths):
        return predictor.predict(requests)
    table = predictor.table
    if len(table.by_request):
        predicted = table.by_request[requests.request_id]
    else:
        bins = np.searchsorted(table.edges, requests.prompt_tokens, side="right")
        generated = np.minimum(requests.generated_tokens, table.by_progress.shape[1] - 1)
        predicted = table.by_progress[bins, generated]
    return outlive(predicted, requests, table.cap_tokens, table.max_model_len)


def prefill_share(outlook: PlainOutlook, predictor: IterationTimePredictor, mhz: int) -> float:
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
    outlook: PlainOutlook, predictor: IterationTimePredictor, mhz: int
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


def judge(outlook: PlainOutlook, predictor: IterationTimePredictor, mhz: int) -> Verdict:
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
    outlook: PlainOutlook,
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


def look_ahead(
    outlook: PlainOutlook, predictor: IterationTimePredictor, mhz: int, horizons_s: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Projected batch and KV blocks some time from now, at a clock.

    Args:
        outlook: The projection.
        predictor: M.
        mhz: The clock that is kept until then.
        horizons_s: float64[k], seconds from now.

    Returns:
        float64[k] batch and float64[k] KV blocks; 0 after the last request's end.
    """
    projection = outlook.projection
    if not len(projection):
        return np.zeros(len(horizons_s)), np.zeros(len(horizons_s))
    _, total_s = iteration_times_s(outlook, predictor, mhz)
    ends_s = np.cumsum(total_s) / (1.0 - prefill_share(outlook, predictor, mhz))
    index = np.searchsorted(ends_s, horizons_s, side="right")
    inside = index < len(projection)
    index = np.minimum(index, len(projection) - 1)
    return (
        np.where(inside, projection.batch[index], 0).astype(np.float64),
        np.where(inside, projection.kv_blocks[index], 0).astype(np.float64),
    )


def admission(forecaster: Forecaster, telemetry: Telemetry) -> tuple[bool, bool]:
    """Judge the head of the queue; see `ProjectedAdmission`."""
    top_mhz, waiting = forecaster.scenario.top_mhz, with_head(telemetry)
    outlook = plain_outlook(forecaster, telemetry, waiting)
    at_top = judge(outlook, forecaster.predictor, top_mhz)
    late = at_top.finish_s > outlook.deadline_s
    if len(telemetry.active.running) or len(telemetry.active.waiting):
        before = plain_outlook(forecaster, telemetry, telemetry.active.waiting)
        late_before = judge(before, forecaster.predictor, top_mhz).finish_s > before.deadline_s
        others_safe = not np.any(late[:-1] & ~late_before)
        if not (outlook.projection.fits and at_top.tbt_s <= outlook.tbt_slo_s and others_safe):
            return False, False
    return True, bool(late[-1])
