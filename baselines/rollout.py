"""A few seconds ahead at many clocks at once: the model of BiScale's predictive control."""

from typing import NamedTuple

import numpy as np

from throttllem_env.baselines.latency_tables import LatencyTables, Load
from throttllem_env.types import FloatArray, IntArray

STEP_S, STEPS = 0.5, 8
EVERY = 3
"""Every third clock, 45 MHz apart, is close enough."""

LATE_W = 20_000.0
"""Price of lateness (a second for a prompt, 100 % for tokens), in watts: far above any saving."""

MORE = 0.05
"""One more token is priced from so much more load."""


class Start(NamedTuple):
    """Where a rollout begins.

    Attributes:
        backlog_tokens: Prompt tokens that are due.
        batch: Requests that decode.
        prompt_tokens: Mean prompt.
        output_tokens: Mean answer.
        ttft_left_s: Time that is left to the first in line, seconds.
    """

    backlog_tokens: float
    batch: float
    prompt_tokens: float
    output_tokens: float
    ttft_left_s: float


class Rollout:
    """Energy and lateness of a first clock and another for the rest of the horizon."""

    def __init__(self, tables: LatencyTables) -> None:
        """Keep every third clock, the top one among them.

        Args:
            tables: Those of the size.
        """
        chosen = np.arange(len(tables.clocks_mhz) - 1, -1, -EVERY)[::-1]
        self._tables, self._chosen = tables, chosen
        # Pairs go through all second clocks for each first one.
        self._first, self._rest = (
            AtClocks.of(tables, chosen),
            AtClocks.of(tables, np.tile(chosen, len(chosen))),
        )

    def best_mhz(self, start: Start, load: Load, target_s: float) -> int:
        """The first clock of the cheapest pair.

        Args:
            start: The state now.
            load: What arrives meanwhile.
            target_s: Longest mean time between tokens, seconds.
        """
        costs = self.costs_j(start, load, target_s)
        return int(self._tables.clocks_mhz[self._chosen[int(np.argmin(costs)) // len(self._chosen)]])

    def costs_j(self, start: Start, load: Load, target_s: float) -> FloatArray:
        """What pairs of clocks cost, float64[pairs]: energy and lateness, less the worth of the work done.

        Work that is put off is not saved, so each token is worth what one more would cost in the long run.
        """
        worth, chosen = self.worth(load, target_s), len(self._chosen)
        backlog = np.full(chosen, float(start.backlog_tokens))
        batch = np.full(chosen, float(start.batch))
        cost_j = np.zeros(chosen)
        at, free = self._first, self._free(self._first, load)
        for step in range(STEPS):
            if step == 1:  # until here it was all the same whatever comes after
                backlog, batch, cost_j = (np.repeat(values, chosen) for values in (backlog, batch, cost_j))
                at, free = self._rest, self._free(self._rest, load)
            done = self._step(at, free, backlog, batch, load, target_s)
            waits_s = backlog * at.prefill_s + step * STEP_S - start.ttft_left_s
            late = done.late + np.where(backlog > 0, np.maximum(waits_s, 0.0), 0.0)
            cost_j += (done.power_w + LATE_W * late) * STEP_S
            cost_j -= worth.token_j * done.tokens + worth.prompt_token_j * done.prompt_tokens
            backlog += load.prompt_tokens_per_s * STEP_S - done.prompt_tokens
            begun, ended = done.prompt_tokens / start.prompt_tokens, done.tokens / start.output_tokens
            batch = np.maximum(batch + begun - ended, 0.0)
        return cost_j

    def _free(self, at: "AtClocks", load: Load) -> FloatArray:
        """Share of time that arriving prompts leave."""
        free: FloatArray = 1 - self._tables.prefill_share(load.prompt_tokens_per_s)[at.clock]
        return free

    def _step(
        self,
        at: "AtClocks",
        free: FloatArray,
        backlog: FloatArray,
        batch: FloatArray,
        load: Load,
        target_s: float,
    ) -> "Step":
        """One step: prompts first, then tokens with the time that they leave."""
        share = np.minimum(backlog * at.prefill_s / STEP_S, 1.0)
        at_least_one = np.maximum(batch, 1.0)
        iteration_s = at.fixed_s + (at.per_request_s + at.per_kv_s * load.context_tokens) * at_least_one
        decoding = (1 - share) * np.minimum(batch, 1.0)
        tokens = decoding * STEP_S / iteration_s * at_least_one
        decode_w = self._tables.decode_w
        row = np.minimum(np.rint(at_least_one), decode_w.shape[1] - 1).astype(np.int64)
        power_w = share * at.prefill_w + decoding * decode_w[at.clock, row]
        power_w += (1 - share - decoding) * at.idle_w
        late = np.where(batch > 0, np.maximum(iteration_s / free / target_s - 1, 0.0), 0.0)
        return Step(power_w, tokens, share * STEP_S / at.prefill_s, late)

    def worth(self, load: Load, target_s: float) -> "Worth":
        """What one more token of either kind costs in the long run, joules."""
        base_w = self._least_power_w(load, target_s)
        more_tokens = load._replace(tokens_per_s=load.tokens_per_s * (1 + MORE) + 1.0)
        more_prompts = load._replace(prompt_tokens_per_s=load.prompt_tokens_per_s * (1 + MORE) + 1.0)
        return Worth(
            max(self._least_power_w(more_tokens, target_s) - base_w, 0.0)
            / (more_tokens.tokens_per_s - load.tokens_per_s),
            max(self._least_power_w(more_prompts, target_s) - base_w, 0.0)
            / (more_prompts.prompt_tokens_per_s - load.prompt_tokens_per_s),
        )

    def _least_power_w(self, load: Load, target_s: float) -> float:
        """At the cheapest clock that keeps the target; at the top clock if none does."""
        steady = self._tables.steady(load)
        good = steady.sustained & (steady.tbt_s <= target_s)
        return float(steady.power_w[good].min() if good.any() else steady.power_w[-1])


class AtClocks(NamedTuple):
    """What tables say at some clocks: arrays of equal length; see `LatencyTables`."""

    clock: IntArray
    prefill_s: FloatArray
    fixed_s: FloatArray
    per_request_s: FloatArray
    per_kv_s: FloatArray
    prefill_w: FloatArray
    idle_w: FloatArray

    @classmethod
    def of(cls, tables: LatencyTables, clock: IntArray) -> "AtClocks":
        """Look up the clocks of these indices."""
        fixed_s, per_request_s, per_kv_s = np.ascontiguousarray(tables.decode[clock].T)
        prefill_s, prefill_w, idle_w = (
            table[clock] for table in (tables.prefill_per_token_s, tables.prefill_w, tables.idle_w)
        )
        return cls(clock, prefill_s, fixed_s, per_request_s, per_kv_s, prefill_w, idle_w)


class Step(NamedTuple):
    """What happens in a step, by pair of clocks: arrays of equal length.

    Attributes:
        power_w: Power of all GPUs.
        tokens: Output tokens made.
        prompt_tokens: Prompt tokens computed.
        late: By how much the time between tokens is above its target, as a share of it.
    """

    power_w: FloatArray
    tokens: FloatArray
    prompt_tokens: FloatArray
    late: FloatArray


class Worth(NamedTuple):
    """Long-run energy of one more token.

    Attributes:
        token_j: Of an output token.
        prompt_token_j: Of a prompt token.
    """

    token_j: float
    prompt_token_j: float
