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
        first, rest = np.meshgrid(chosen, chosen, indexing="ij")
        self._first, self._rest = first.ravel(), rest.ravel()

    def best_mhz(self, start: Start, load: Load, target_s: float) -> int:
        """The first clock of the cheapest pair.

        Args:
            start: The state now.
            load: What arrives meanwhile.
            target_s: Longest mean time between tokens, seconds.
        """
        costs = self.costs_j(start, load, target_s)
        return int(self._tables.clocks_mhz[self._first[int(np.argmin(costs))]])

    def costs_j(self, start: Start, load: Load, target_s: float) -> FloatArray:
        """What pairs of clocks cost, float64[pairs]: energy and lateness, less the worth of the work done.

        Work that is put off is not saved, so each token is worth what one more would cost in the long run.
        """
        worth = self.worth(load, target_s)
        backlog = np.full(len(self._first), float(start.backlog_tokens))
        batch = np.full(len(self._first), float(start.batch))
        cost_j = np.zeros(len(self._first))
        for step in range(STEPS):
            at = self._first if step == 0 else self._rest
            done = self._step(at, backlog, batch, load, target_s)
            waits_s = backlog * self._tables.prefill_per_token_s[at] + step * STEP_S - start.ttft_left_s
            late = done.late + np.where(backlog > 0, np.maximum(waits_s, 0.0), 0.0)
            cost_j += (done.power_w + LATE_W * late) * STEP_S
            cost_j -= worth.token_j * done.tokens + worth.prompt_token_j * done.prompt_tokens
            backlog += load.prompt_tokens_per_s * STEP_S - done.prompt_tokens
            begun, ended = done.prompt_tokens / start.prompt_tokens, done.tokens / start.output_tokens
            batch = np.maximum(batch + begun - ended, 0.0)
        return cost_j

    def _step(
        self, at: IntArray, backlog: FloatArray, batch: FloatArray, load: Load, target_s: float
    ) -> "Step":
        """One step: prompts first, then tokens with the time that they leave."""
        tables = self._tables
        prefill_s = tables.prefill_per_token_s[at]
        share = np.minimum(backlog * prefill_s / STEP_S, 1.0)
        fixed, per_request, per_kv = tables.decode[at].T
        iteration_s = fixed + (per_request + per_kv * load.context_tokens) * np.maximum(batch, 1.0)
        decoding = (1 - share) * np.minimum(batch, 1.0)
        tokens = decoding * STEP_S / iteration_s * np.maximum(batch, 1.0)
        row = np.clip(np.rint(batch), 1, tables.decode_w.shape[1] - 1).astype(np.int64)
        power_w = share * tables.prefill_w[at] + decoding * tables.decode_w[at, row]
        power_w += (1 - share - decoding) * tables.idle_w[at]
        tbt_s = iteration_s / (1 - tables.prefill_share(load.prompt_tokens_per_s)[at])
        late = np.where(batch > 0, np.maximum(tbt_s / target_s - 1, 0.0), 0.0)
        return Step(power_w, tokens, share * STEP_S / prefill_s, late)

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
