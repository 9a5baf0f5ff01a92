"""Traces made to reach every corner of (batch, KV blocks) that a size can hold."""

from collections.abc import Iterator

import numpy as np

from throttllem_env.scenario import EngineConfig
from throttllem_env.traces import Trace, limit_lengths, poisson_arrivals, sample_lengths

DRAIN_ITERATIONS = 120
"""A burst's requests end one after another over so many iterations."""

SWEEP_S = 120.0
SWEEP_LEVELS = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0, 0.7, 0.3)
TYPICAL_STAY_S = 10.0
"""About how long a chat request stays; sets how much load fills a KV cache."""


def burst_traces(blocks: int, engine: EngineConfig, rng: np.random.Generator) -> Iterator[Trace]:
    """Bursts of requests with ever longer contexts, each as large as fits.

    In each, the batch ramps up as prompts are computed and down as requests end, on its own line through
    (batch, KV): from 256 short contexts to a few that fill the model's limit.

    Args:
        blocks: KV blocks that the instance's requests can hold.
        engine: Block size and limits.
        rng: Draws the lengths.

    Yields:
        Traces whose requests all arrive at one time, soon after the start.
    """
    longest = engine.max_model_len // engine.block_size
    mean_blocks = 1
    while mean_blocks <= longest:
        requests = max(min(engine.max_num_seqs, blocks // mean_blocks), 1)
        yield _burst(requests, mean_blocks * engine.block_size, engine.max_model_len, rng)
        mean_blocks *= 2


def _burst(requests: int, mean_tokens: int, limit: int, rng: np.random.Generator) -> Trace:
    # A clock that was asked for at 0 has been set by 1 s.
    arrival_s = np.full(requests, 1.0)
    output = rng.permutation(np.linspace(2, DRAIN_ITERATIONS, requests).astype(np.int64))
    prompt = (mean_tokens * rng.uniform(0.5, 1.5, requests)).astype(np.int64)
    longest = np.minimum(limit, mean_tokens * 2 + DRAIN_ITERATIONS) - output
    return Trace(arrival_s, np.clip(prompt, 1, np.maximum(longest, 1)), output, "burst")


def sweep_trace(
    blocks: int,
    engine: EngineConfig,
    clock_share: float,
    rng: np.random.Generator,
    seconds: float = SWEEP_S,
) -> Trace:
    """Chat requests at loads that rise and fall, up to what about fills the KV cache.

    Args:
        blocks: KV blocks that the instance's requests can hold.
        engine: Block size and limits.
        clock_share: Clock over top clock; the load goes with it, since prefill does.
        rng: Draws arrivals and lengths.
        seconds: How long it lasts.
    """
    prompt, output = sample_lengths("conv", 1000, rng)
    mean_tokens = float(np.minimum(prompt + output, engine.max_model_len).mean())
    # Little's law: requests that fit at once, over how long one stays.
    highest_rps = blocks * engine.block_size / mean_tokens / TYPICAL_STAY_S * clock_share
    level_s = seconds / len(SWEEP_LEVELS)
    parts = [
        1.0 + i * level_s + poisson_arrivals(level * highest_rps, level_s, rng)
        for i, level in enumerate(SWEEP_LEVELS)
    ]
    arrival_s = np.concatenate(parts)
    chosen = np.arange(len(arrival_s)) % len(prompt)
    trace = Trace(arrival_s, prompt[chosen], output[chosen], "sweep", 1.0 + seconds)
    return limit_lengths(trace, engine.max_model_len)[0]
