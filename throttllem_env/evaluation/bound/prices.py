"""Prices of work that no iteration of any instance undercuts (docs/bound.md).

An iteration does four kinds of work: it makes decode tokens, reads KV tokens, computes prompt tokens, and
attends from those to what stands before them. Prices are valid if no iteration's work is worth more than the
energy that it costs beyond the least idle power. They are found by cutting planes: a small linear program
proposes prices, a search over all iterations finds the one that undercuts them most, and it becomes a
constraint. A proposal proves nothing: in the end prices are scaled down until a search of all iterations
finds none that undercuts them.
"""

from dataclasses import dataclass

import numpy as np

from throttllem_env.hardware import ClockTable
from throttllem_env.scenario import Scenario
from throttllem_env.types import FloatArray, IntArray

KINDS = 4
"""Kinds of work, in this order in all arrays: decode tokens, KV tokens, prompt tokens, attention."""

ROUNDS = 100
TOLERANCE = 1e-4
"""Cutting planes end when no iteration's work is worth more than its energy by this share."""

EVERY = 32
"""Proposals look at every so many lengths of prompt chunks; what is valid is decided by all."""

BOX_J = 1e12
"""No work is worth more; keeps the linear program bounded before it has enough constraints."""

SAFETY = 1e-9
"""Valid prices are lowered by so much, lest rounding make them invalid."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """What an iteration does and costs.

    Attributes:
        work: float64[4]; decode tokens beyond a limit are not counted.
        excess_j: Its energy less that of the least idle power for as long.
    """

    work: FloatArray
    excess_j: float


def least_idle_w(scenario: Scenario) -> float:
    """Power of the smallest instance at its lowest clock with nothing to do: one is always there."""
    return min(
        size * scenario.physics(size).at(mhz).idle_w
        for size in scenario.sizes
        for mhz in scenario.gpu_spec.clocks_mhz
    )


class Iterations:
    """All iterations that an instance of one size can run, at all clocks: arrays are clocks x work."""

    def __init__(self, scenario: Scenario, size: int, idle_w: float) -> None:
        """Tabulate.

        Args:
            scenario: Gives clocks, limits and physics.
            size: Instance size.
            idle_w: Power that is not counted, watts: some instance idles at all times anyway.
        """
        engine = scenario.engine
        tables = [scenario.physics(size).at(mhz) for mhz in scenario.gpu_spec.clocks_mhz]
        batch = np.arange(min(engine.max_num_seqs, len(tables[0].host_s) - 1) + 1)
        host_w = size * np.array([[table.idle_w] for table in tables]) - idle_w
        decode_w = size * np.array([table.decode_w[batch] for table in tables]) - idle_w
        host_s, fixed_s, per_kv_s = (
            np.array([getattr(table, name)[batch] for table in tables])
            for name in ("host_s", "decode_fixed_s", "decode_per_kv_token_s")
        )
        self._batch = batch.astype(np.float64)
        self._without_kv_j, self._per_kv_j = host_s * host_w + fixed_s * decode_w, per_kv_s * decode_w
        self._most_kv = float(scenario.kv_blocks(size) * engine.block_size)
        # In units of n (2 computed + n): at least n, at most twice a whole context for each token.
        self._most_attention = 2.0 * engine.max_model_len
        chunk = np.arange(1, engine.max_num_batched_tokens + 1)
        self._chunks = _Chunks(size, tables, idle_w, chunk)
        self._few_chunks = _Chunks(size, tables, idle_w, chunk[::-EVERY][::-1])

    def dearest(self, prices: FloatArray, limit: int, *, roughly: bool = False) -> tuple[float, Iteration]:
        """The iteration whose work is worth the most beyond what it costs.

        Args:
            prices: float64[4], joules per unit of work, none negative.
            limit: Decode tokens of an iteration that count at most.
            roughly: Look at some lengths of prompt chunks alone.

        Returns:
            By how many joules it is worth more than it costs, and the iteration.
        """
        chunks = self._few_chunks if roughly else self._chunks
        counted, kv, decode_gain = self._decode(prices, limit)
        attention, chunk_gain = chunks.gain(prices, self._most_attention)
        clocks = np.arange(len(decode_gain))
        batch = 1 + np.argmax(decode_gain[:, 1:], axis=1)
        mixed = np.argmax(chunk_gain + chunks.floor_j, axis=1)
        alone = np.argmax(chunk_gain, axis=1)
        # Decode alone; both, which read the weights only once; prompts alone.
        of_batch = decode_gain[clocks, batch]
        gains = np.stack(
            [
                of_batch,
                of_batch + chunk_gain[clocks, mixed] + chunks.floor_j[clocks, mixed],
                decode_gain[:, 0] + chunk_gain[clocks, alone],
            ]
        )
        kind, clock = np.unravel_index(int(np.argmax(gains)), gains.shape)
        work = np.zeros(KINDS)
        if kind < 2:
            work[:2] = counted[batch[clock]], kv[clock, batch[clock]]
        if kind > 0:
            index = (mixed if kind == 1 else alone)[clock]
            work[2:] = chunks.tokens[index], attention[clock, index]
        gain_j = float(gains[kind, clock])
        return gain_j, Iteration(work, float(prices @ work) - gain_j)

    def _decode(self, prices: FloatArray, limit: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Tokens that count by batch, and KV tokens and gain of decoding by clock and batch."""
        counted = np.minimum(self._batch, limit)
        per_kv = prices[1] - self._per_kv_j
        # A request reads one KV token at least, all of them what fits at most; the gain is linear between.
        kv = np.where(per_kv > 0, self._most_kv, self._batch)
        kv[:, 0] = 0.0
        return counted, kv, prices[0] * counted + kv * per_kv - self._without_kv_j


class _Chunks:
    """Prompt chunks of some lengths, at all clocks: float64[clocks, lengths]."""

    def __init__(self, size: int, tables: list[ClockTable], idle_w: float, tokens: IntArray) -> None:
        watts = size * np.array([table.chunk_w[tokens] for table in tables]) - idle_w
        self.tokens = tokens.astype(np.float64)
        self.floor_j = watts * np.array([[table.prefill_floor_s] for table in tables])
        self._linear_j = watts * np.array([table.chunk_linear_s[tokens] for table in tables])
        self._per_attention_j = watts * np.array([[table.prefill_per_token2_s] for table in tables])

    def gain(self, prices: FloatArray, most_attention: float) -> tuple[FloatArray, FloatArray]:
        """Attention and gain, by clock and length."""
        per_unit = prices[3] - self._per_attention_j
        attention = self.tokens * np.where(per_unit > 0, most_attention, 1.0)
        return attention, prices[2] * self.tokens + attention * per_unit - self._linear_j


class PriceList:
    """Prices that no iteration of any size undercuts."""

    def __init__(self, scenario: Scenario, mix: FloatArray) -> None:
        """Tabulate.

        Args:
            scenario: Gives sizes and physics.
            mix: float64[4], all the work there is: what prices are made to fit.
        """
        self.idle_w = least_idle_w(scenario)
        self._iterations = [Iterations(scenario, size, self.idle_w) for size in scenario.sizes]
        self._mix = mix
        self._found: dict[int, FloatArray] = {}

    def prices(self, limit: int) -> FloatArray:
        """Valid prices at which the mix is worth about the most.

        Args:
            limit: Decode tokens of an iteration that count at most.

        Returns:
            float64[4], joules per unit of work.
        """
        if limit not in self._found:
            self._found[limit] = self.valid(self._proposed(limit), limit)
        return self._found[limit]

    def dearest(self, prices: FloatArray, limit: int, *, roughly: bool = False) -> tuple[float, Iteration]:
        """The iteration of any size whose work is worth the most beyond what it costs; see `Iterations`."""
        found = (of_size.dearest(prices, limit, roughly=roughly) for of_size in self._iterations)
        return max(found, key=lambda pair: pair[0])

    def valid(self, prices: FloatArray, limit: int) -> FloatArray:
        """Prices scaled down until no iteration undercuts them.

        Args:
            prices: float64[4], joules per unit of work, none negative.
            limit: Decode tokens of an iteration that count at most.
        """
        while True:
            gain_j, worst = self.dearest(prices, limit)
            if gain_j <= 0:
                return prices * (1 - SAFETY)
            # At the new prices this iteration gains nothing; each turn finds another (Dinkelbach's method).
            prices = prices * (worst.excess_j / float(prices @ worst.work)) * (1 - SAFETY)

    def _proposed(self, limit: int) -> FloatArray:
        """Prices by cutting planes, float64[4]."""
        from scipy.optimize import linprog

        wanted = self._mix > 0
        unit = np.where(wanted, self._mix, 1.0)
        prices, cuts = wanted / unit, list[Iteration]()
        bounds = [(0.0, BOX_J if kind else 0.0) for kind in wanted]
        for _ in range(ROUNDS):
            gain_j, worst = self.dearest(prices, limit, roughly=True)
            if cuts and gain_j <= TOLERANCE * worst.excess_j:
                break
            cuts.append(worst)
            rows = np.array([cut.work / unit / cut.excess_j for cut in cuts])
            found = linprog(-wanted.astype(float), A_ub=rows, b_ub=np.ones(len(cuts)), bounds=bounds)
            prices = found.x / unit
        return prices
