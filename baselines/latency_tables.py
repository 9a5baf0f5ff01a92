"""Linear latency per clock, as VoltanaLLM, GreenLLM and BiScale fit it to a profile of their engine.

At every clock a decode iteration takes `fixed + batch x per request + KV tokens x per token`, and prompts
take `per token` each. The real engine is a roofline and not linear; what these tables are wrong by is part
of these rivals, as of their papers.
"""

from typing import NamedTuple

import numpy as np

from throttllem_env.hardware import ClockTable
from throttllem_env.scenario import Scenario
from throttllem_env.types import BoolArray, FloatArray

MOST_PREFILL_SHARE = 0.9
"""Beyond, decoding would stand still; nothing is known of such a load but that it is too much."""

BATCHES = np.array([1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256], np.int64)
CONTEXTS = np.array([128.0, 512.0, 1024.0, 2048.0])
CHUNK_TOKENS = np.array([128.0, 256.0, 512.0, 1024.0, 2048.0])


FLUCTUATION = 3.0
"""Standard deviations by which a Poisson batch is above its mean now and then."""


class Load(NamedTuple):
    """A load that goes on.

    Attributes:
        tokens_per_s: Output tokens that are asked for.
        prompt_tokens_per_s: Prompt tokens that arrive.
        context_tokens: Mean KV tokens of a request while it decodes.
    """

    tokens_per_s: float
    prompt_tokens_per_s: float
    context_tokens: float


class Steady(NamedTuple):
    """Where a size settles under a load, at every clock: arrays of equal length.

    Attributes:
        batch: Mean decoding batch.
        tbt_s: Mean time between tokens, prompts in between included, seconds.
        power_w: Mean power of all GPUs.
        sustained: Whether the load is carried, also when the batch is above its mean.
    """

    batch: FloatArray
    tbt_s: FloatArray
    power_w: FloatArray
    sustained: BoolArray


class LatencyTables:
    """Coefficients of one size at all clocks.

    Attributes:
        clocks_mhz: int64[n], ascending.
        decode: float64[n, 3], seconds: fixed, per request, per KV token.
        prefill_per_token_s: float64[n].
        decode_w: float64[n, seats + 1], mean power of all GPUs over iterations that decode a batch.
        prefill_w: float64[n], the same while they compute prompts.
        idle_w: float64[n], the same while they wait.
        most_tokens: KV tokens that fit.
    """

    def __init__(self, scenario: Scenario, size: int) -> None:
        """Fit to a profile: a grid of batches, contexts and chunks at every clock.

        Args:
            scenario: Gives clocks and the latencies that a profile would measure.
            size: Instance size.
        """
        physics = scenario.physics(size)
        tables = [physics.at(mhz) for mhz in scenario.gpu_spec.clocks_mhz]
        batches = BATCHES[scenario.engine.max_num_seqs >= BATCHES]
        batch, context = (a.ravel() for a in np.meshgrid(batches, CONTEXTS, indexing="ij"))
        kv_tokens = batch * context
        grid = np.stack([np.ones(len(batch)), batch, kv_tokens], axis=1)
        self.clocks_mhz = np.array(scenario.gpu_spec.clocks_mhz, np.int64)
        self.decode = np.array([_fit(grid, t.decode_iterations_s(batch, kv_tokens)) for t in tables])
        self.prefill_per_token_s = np.array(
            [np.mean(t.prefill_chunks_s(CHUNK_TOKENS, CHUNK_TOKENS**2) / CHUNK_TOKENS) for t in tables]
        )
        self.decode_w = size * np.array([_iteration_w(t) for t in tables])
        self.prefill_w = size * np.array([t.prefill_w for t in tables])
        self.idle_w = size * np.array([t.idle_w for t in tables])
        self.most_tokens = scenario.kv_blocks(size) * scenario.engine.block_size

    def iteration_s(self, batch: float, kv_tokens: float) -> FloatArray:
        """A decode iteration at every clock, float64[n], seconds."""
        seconds: FloatArray = self.decode @ np.array([1.0, batch, kv_tokens])
        return seconds

    def prefill_share(self, prompt_tokens_per_s: float) -> FloatArray:
        """Share of time at every clock that arriving prompts take, float64[n]."""
        return np.minimum(prompt_tokens_per_s * self.prefill_per_token_s, MOST_PREFILL_SHARE)

    def tbt_s(self, batch: float, kv_tokens: float, prompt_tokens_per_s: float) -> FloatArray:
        """Mean time between tokens at every clock, with the prompts that come in between.

        Args:
            batch: Requests that decode.
            kv_tokens: KV tokens they hold.
            prompt_tokens_per_s: Rate at which prompt tokens arrive.

        Returns:
            float64[n], seconds.
        """
        return self.iteration_s(batch, kv_tokens) / (1 - self.prefill_share(prompt_tokens_per_s))

    def steady(self, load: Load) -> Steady:
        """Solve batch = tokens per second x time between tokens (Little's law), which is linear here.

        Args:
            load: What is asked for.
        """
        share = self.prefill_share(load.prompt_tokens_per_s)
        tokens_per_s = load.tokens_per_s / (1 - share)
        fixed_s = self.decode[:, 0]
        per_request_s = self.decode[:, 1] + self.decode[:, 2] * load.context_tokens
        seats = self.decode_w.shape[1] - 1
        most = min(float(seats), self.most_tokens / max(load.context_tokens, 1.0))
        free = np.maximum(1 - tokens_per_s * per_request_s, 1e-9)
        many = np.minimum(tokens_per_s * fixed_s / free, most)
        # A single request occupies the engine for whole iterations.
        batch = np.where(many < 1, np.minimum(tokens_per_s * (fixed_s + per_request_s), 1.0), many)
        tbt_s = (fixed_s + per_request_s * np.maximum(batch, 1.0)) / (1 - share)
        sustained = (batch + FLUCTUATION * np.sqrt(batch) <= most) & (share < MOST_PREFILL_SHARE)
        busy = np.minimum(batch, 1.0) * (1 - share)
        rows = np.arange(len(batch))
        decode_w = self.decode_w[rows, np.maximum(np.rint(batch), 1.0).astype(np.int64)]
        power_w = busy * decode_w + share * self.prefill_w + (1 - busy - share) * self.idle_w
        return Steady(batch, tbt_s, power_w, sustained)

    def sweet_spot(self, batch: int) -> int:
        """Index of the clock at which a token of such a batch costs the least energy."""
        energy_j = self.decode_w[:, batch] * self.iteration_s(batch, batch * float(CONTEXTS[2]))
        return int(np.argmin(energy_j))


def _fit(grid: FloatArray, seconds: FloatArray) -> FloatArray:
    """Least squares of relative errors."""
    found = np.linalg.lstsq(grid / seconds[:, None], np.ones(len(seconds)), rcond=None)[0]
    return found.astype(np.float64)


def _iteration_w(table: ClockTable) -> FloatArray:
    """Mean power of a GPU over a decode iteration, host time included, by batch."""
    kernel_s = table.decode_fixed_s + table.decode_per_kv_token_s * CONTEXTS[2] * np.arange(len(table.host_s))
    watts: FloatArray = (table.host_s * table.idle_w + kernel_s * table.decode_w) / (table.host_s + kernel_s)
    return watts


def lowest(allowed: BoolArray, floor: int = 0) -> int:
    """Index of the lowest clock, from a floor on, that is allowed; of the top clock if none is."""
    found = np.flatnonzero(allowed[floor:])
    return floor + int(found[0]) if len(found) else len(allowed) - 1
