"""A lower bound on the energy of any run that attains the SLO. docs/bound.md argues that it is one."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from throttllem_env.evaluation.bound.demand import Demand, demand
from throttllem_env.evaluation.bound.prices import KINDS, PriceList
from throttllem_env.scenario import Scenario
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import FloatArray


@dataclass(frozen=True, slots=True)
class LowerBound:
    """No run that finishes enough requests in time uses less.

    Attributes:
        energy_j: The bound, joules.
        in_time: How many requests must be in time.
        requests: Of how many.
    """

    energy_j: float
    in_time: int
    requests: int


class Bound:
    """The lower bound for a trace, for any number of requests in time."""

    def __init__(self, scenario: Scenario, trace: Trace, slo: Slo, horizon_s: float) -> None:
        """Price all work.

        Args:
            scenario: What is served on what.
            trace: The requests.
            slo: The targets.
            horizon_s: Energy counts until then, seconds; at least until the last deadline.

        Raises:
            ValueError: The horizon ends before the last deadline.
        """
        last_s = float(trace.arrival_s[-1]) + slo.e2e_s if len(trace) else 0.0
        if horizon_s < last_s:
            raise ValueError(f"horizon_s = {horizon_s}: must be at least the last deadline, {last_s:.3f}")
        asked = demand(trace, scenario, slo, horizon_s)
        prices = PriceList(scenario, asked.work.sum(axis=0))
        self._attainment = slo.attainment
        self._idle_j = horizon_s * prices.idle_w
        worth_j = (request_prices(asked, prices) * asked.work).sum(axis=1)
        self._cheapest_first_j = np.concatenate([[0.0], np.cumsum(np.sort(worth_j))])

    def of(self, in_time: int) -> LowerBound:
        """The bound for runs with at least so many requests in time: at best the cheapest ones."""
        n = len(self._cheapest_first_j) - 1
        return LowerBound(self._idle_j + float(self._cheapest_first_j[min(in_time, n)]), in_time, n)

    def attained(self) -> LowerBound:
        """The bound for runs that attain the SLO."""
        return self.of(required(len(self._cheapest_first_j) - 1, self._attainment))


def required(requests: int, attainment: float) -> int:
    """How many of all requests must be in time for a share of them to be."""
    return ceil(attainment * requests - 1e-9)


def request_prices(asked: Demand, prices: PriceList) -> FloatArray:
    """Each request's prices, float64[n, 4]: kind by kind the lowest of the slots that it lives in.

    So whoever shares an iteration, in whichever slot: all together they are worth no more than the slot's own
    prices say, which no iteration undercuts.

    Args:
        asked: Requests and slots.
        prices: Valid prices by number of requests present.
    """
    by_slot = np.array([prices.prices(int(present)) for present in asked.present])
    lowest = np.full((len(asked.first), KINDS), np.inf)
    for offset in range(int((asked.last - asked.first).max(initial=0)) + 1):
        lowest = np.minimum(lowest, by_slot[np.minimum(asked.first + offset, asked.last)])
    return covered_by_prompts(lowest, asked.work[:, 2])


def covered_by_prompts(prices: FloatArray, prompt_tokens: FloatArray) -> FloatArray:
    """Lower prices of decoding until computing a prompt again, after a preemption, is worth no less.

    Where the engine throws a KV cache away, the next token comes from computing all tokens so far as a
    prompt, not from decoding: that must be worth what it stands for, a token and the KV it would have read.

    Args:
        prices: float64[n, 4].
        prompt_tokens: float64[n].
    """
    lowered = prices.copy()
    lowered[:, 1] = np.minimum(prices[:, 1], prices[:, 2])
    lowered[:, 0] = np.minimum(prices[:, 0], (prompt_tokens + 1) * (prices[:, 2] - lowered[:, 1]))
    return lowered
