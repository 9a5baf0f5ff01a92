"""What a load costs in the long run: mean batch and mean power of a size at a clock.

A projection ends with its last request, but a service goes on: a lower clock makes iterations slower, so
that more requests share each of them. The long-run batch is where tokens come out as fast as they are
asked for (Little's law), and the long-run power is that of iterations with this batch.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from throttllem_env.hardware import ClockTable, Physics
from throttllem_env.scenario import Scenario
from throttllem_env.types import FinishedRequest, IntArray

FIXED_POINT_STEPS = 30

FLUCTUATION = 3.0
"""Standard deviations; with Poisson arrivals and nobody waiting the batch is Poisson distributed."""


@dataclass(frozen=True, slots=True)
class SteadyLoad:
    """A load that goes on.

    Attributes:
        rate_rps: Requests per second.
        prompt_tokens: Mean prompt of a request.
        output_tokens: Mean output of a request.
        context_tokens: Mean KV tokens of a request while it decodes.
    """

    rate_rps: float
    prompt_tokens: float
    output_tokens: float
    context_tokens: float

    @classmethod
    def of(cls, rate_rps: float, requests: Iterable[FinishedRequest]) -> "SteadyLoad | None":
        """The load of requests like those that finished; None without any.

        Over its life a request holds its prompt and, on average, half its output; requests with long
        outputs are on board for longer, so the mean over those on board is weighted by output.
        """
        lengths = np.array([(r.prompt_tokens, r.generated_tokens) for r in requests], np.int64).reshape(-1, 2)
        return cls.of_lengths(rate_rps, lengths[:, 0], lengths[:, 1])

    @classmethod
    def of_lengths(
        cls, rate_rps: float, prompt_tokens: IntArray, output_tokens: IntArray
    ) -> "SteadyLoad | None":
        """The load of requests with these lengths; None without any.

        Args:
            rate_rps: Requests per second.
            prompt_tokens: int64[n].
            output_tokens: int64[n].
        """
        if not len(prompt_tokens):
            return None
        prompt, output = prompt_tokens.astype(np.float64), output_tokens.astype(np.float64)
        context = float(((prompt + output / 2) * output).sum() / output.sum())
        return cls(rate_rps, float(prompt.mean()), float(output.mean()), context)

    def at_rate(self, rate_rps: float) -> "SteadyLoad":
        """The same requests at another rate."""
        return replace(self, rate_rps=rate_rps)


@dataclass(frozen=True, slots=True)
class SteadyState:
    """Where a size at a clock settles under a load.

    Attributes:
        batch: Mean decoding batch.
        power_w: Mean power of the instance's GPUs.
        sustained: Whether the load can be carried: prefill leaves time to decode, and batch and KV stay
            within their limits, also when the batch is three standard deviations above its mean.
    """

    batch: float
    power_w: float
    sustained: bool


def steady_state(scenario: Scenario, physics: Physics, mhz: int, load: SteadyLoad) -> SteadyState:
    """Solve batch = rate x output x iteration time / (1 - prefill share), and weigh its power.

    Args:
        scenario: Gives the limits of batch and KV.
        physics: Time and power of the size.
        mhz: The clock.
        load: The load.

    Returns:
        The state; with `sustained` false its figures are those of the limit that was hit.
    """
    table, size = physics.at(mhz), physics.size
    seats = scenario.engine.max_num_seqs
    kv_tokens = scenario.kv_blocks(size) * scenario.engine.block_size
    most = min(float(seats), kv_tokens / max(load.context_tokens, 1.0))
    prompt = np.array([load.prompt_tokens])
    prefill_share = load.rate_rps * float(table.prefill_chunks_s(prompt, prompt**2)[0])
    sustained = prefill_share < 1.0
    free_share = max(1.0 - prefill_share, 1e-3)
    batch = 1.0
    for _ in range(FIXED_POINT_STEPS):
        # Even a single request occupies the engine for whole iterations.
        iteration_s = _iteration_s(table, max(batch, 1.0), load.context_tokens)
        wanted = load.rate_rps * load.output_tokens * iteration_s / free_share
        if abs(wanted - batch) < 1e-3:
            break
        batch = min(wanted, most)
        if wanted > most:
            sustained = False
            break
    sustained = sustained and batch + FLUCTUATION * math.sqrt(batch) <= most
    busy_share = min(batch, 1.0) * free_share
    index = min(round(max(batch, 1.0)), seats)
    host_share = float(table.host_s[index]) / _iteration_s(table, float(index), load.context_tokens)
    decode_w = host_share * table.idle_w + (1 - host_share) * table.decode_power_w(index)
    idle_share = max(1.0 - busy_share - min(prefill_share, 1.0), 0.0)
    gpu_w = busy_share * decode_w + min(prefill_share, 1.0) * table.prefill_w + idle_share * table.idle_w
    return SteadyState(batch, size * gpu_w, sustained)


def _iteration_s(table: ClockTable, batch: float, context_tokens: float) -> float:
    """Decode iteration with a mean batch, between the two whole batches around it."""
    low = int(batch)
    pair = np.minimum(np.array([low, low + 1]), len(table.host_s) - 1)
    times_s = table.decode_iterations_s(pair, batch * context_tokens * np.ones(2))
    return float(times_s[0] + (batch - low) * (times_s[1] - times_s[0]))
