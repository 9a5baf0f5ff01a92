"""What a trace asks for: each request's work, and the slots of time in which it must be done."""

from dataclasses import dataclass

import numpy as np

from throttllem_env.scenario import Scenario
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import FloatArray, IntArray

SLOT_S = 10.0
"""Shorter slots would count fewer requests as present; it makes little difference."""

LEVELS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024])
"""Numbers of requests present are rounded up to one of these: fewer price lists to work out."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests as work with a first and a last slot.

    Attributes:
        work: float64[n, 4], by kind (see `prices`); zero for a request that the engine refuses.
        first: int64[n], slot of the arrival.
        last: int64[n], slot of the deadline.
        present: int64[slots], how many requests that may be in time an iteration of a slot can hold.
    """

    work: FloatArray
    first: IntArray
    last: IntArray
    present: IntArray


def demand(trace: Trace, scenario: Scenario, slo: Slo, horizon_s: float) -> Demand:
    """Work and slots of every request.

    Args:
        trace: What is served.
        scenario: Gives the longest context and the seats.
        slo: Gives the deadline.
        horizon_s: Energy counts until then, seconds.
    """
    slots = max(int(np.ceil(horizon_s / SLOT_S)), 1)
    prompt = trace.prompt_tokens.astype(np.float64)
    output = np.minimum(trace.output_tokens, scenario.engine.max_model_len - trace.prompt_tokens)
    accepted = output > 0
    # The first token comes with the prompt; the g-th after it reads prompt + g KV tokens.
    decoded = np.where(accepted, output - 1, 0).astype(np.float64)
    kv_tokens = decoded * prompt + decoded * (decoded + 1) / 2
    work = np.stack([decoded, kv_tokens, prompt * accepted, prompt**2 * accepted], axis=1)
    first = np.minimum((trace.arrival_s // SLOT_S).astype(np.int64), slots - 1)
    last = np.minimum(((trace.arrival_s + slo.e2e_s) // SLOT_S).astype(np.int64), slots - 1)
    return Demand(work, first, last, _present(first, last, slots, scenario))


def _present(first: IntArray, last: IntArray, slots: int, scenario: Scenario) -> IntArray:
    """Requests whose life touches a slot: more than can ever be in one of its iterations and in time."""
    change = np.bincount(first, minlength=slots + 1) - np.bincount(last + 1, minlength=slots + 2)[: slots + 1]
    count = np.cumsum(change)[:slots]
    seats = np.minimum(count, min(scenario.engine.max_num_seqs, int(LEVELS[-1])))
    return LEVELS[np.searchsorted(LEVELS, seats)].astype(np.int64)
