"""GreenLLM's decode dual loop: token rate chooses a band of clocks, time between tokens a clock in it.

Source: Liu et al., "GreenLLM: SLO-Aware Dynamic Frequency Scaling for Energy-Efficient LLM Serving", arXiv
2508.16449: a dual loop for decode tracks tokens per second and adjusts the clock with hysteresis, in fine
steps, so that the tail of the times between tokens stays within its target; prefill has queues by prompt
length with a clock each. Our reading of it: the coarse loop looks the token rate up in a table made offline,
of the cheapest clock that keeps the target at that rate, and follows a change only when it lasts. The fine
loop moves by single steps within a band around it. A slow third one shifts the band when the fine loop has
long stood at its edge. How often each turns, how wide rows and band are, and how long a change must last are
chosen by us.

Observes: tokens generated, measured times between tokens, KV tokens, the rate of prompt tokens, finished
answers' lengths (for the target), waiting requests.
Parameters: `share` of the E2E SLO that a long answer's tokens may take, `band` in clock steps, `tail`,
`size`. Tuned on train and validation blocks (`scripts/tune.py rivals`, docs/rivals.md).
Simplified: one engine does both phases, so its prefill half (queues by prompt length, each on GPUs with a
clock of its own) has no place: prompts enter by lengthening the times between tokens, in the table and in
what is measured, and a request that has waited long for a place lifts the clock to the top. Both loops turn
five times a second, since times between tokens are known as means between control points; their tail is
that of these means. Its targets are per token, ours per request: see `pace`.
"""

from typing import ClassVar

from throttllem_env.baselines.checks import check_range, chosen_size
from throttllem_env.baselines.latency_tables import LatencyTables, Load
from throttllem_env.baselines.pace import Pace
from throttllem_env.baselines.plans import cheapest
from throttllem_env.baselines.signals import TokenMeter, kv_tokens, longest_wait_s
from throttllem_env.controller import Assignment, BaseController
from throttllem_env.types import Action, ObservationArray, Telemetry

SHARE, BAND, TAIL = 1.0, 6, 95.0

BUCKET_TOKENS_PER_S = 100.0
"""Width of a row of the table."""

PATIENCE = 3
"""Turns of the coarse loop that must agree before the band moves."""

LOW_WATER = 0.9
"""Below this share of the target the fine loop steps down."""

RATE_WINDOW_S, TAIL_WINDOW_S, ADAPT_S = 2.0, 2.0, 6.0
LONG_WAIT_S = 2.0
"""Whoever waits so long for a place in the batch waits for speed."""


class GreenLlm(BaseController):
    """A table for the rough, steps for the fine."""

    period_s: ClassVar[float] = 0.2

    def __init__(self, share: float = SHARE, band: int = BAND, tail: float = TAIL, size: int = 0) -> None:
        """Set it up.

        Args:
            share: Share of the E2E SLO that a long answer may take for its tokens.
            band: Clocks to either side of the table's that the fine loop may take.
            tail: Percentile of the times between tokens that the fine loop holds; GreenLLM's is 95.
            size: The size; 0 for the scenario's largest.

        Raises:
            ControllerError: A value out of range.
        """
        check_range("greenllm", 0.01, 1.0, share=share)
        check_range("greenllm", 0, 100, band=band, tail=tail)
        self._share, self._band, self._tail_percentile, self._size = share, band, tail, size

    def reset(self, assignment: Assignment) -> None:
        """Begin at the top clock.

        Raises:
            ControllerError: The scenario has no such size.
        """
        super().reset(assignment)
        self._chosen = chosen_size("greenllm", assignment.scenario, self._size)
        self.tables = LatencyTables(assignment.scenario, self._chosen)
        self._pace = Pace(assignment, self._share)
        self._rate, self._tail = TokenMeter(RATE_WINDOW_S), TokenMeter(TAIL_WINDOW_S)
        self._high = len(self.tables.clocks_mhz) - 1
        self._centre = self._index = self._high
        self._shift = self._disagreed = 0
        self._adapted_s = 0.0

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """Both loops, one after the other."""
        self._pace.observe(telemetry)
        self._rate.observe(telemetry)
        self._tail.observe(telemetry)
        if telemetry.idle:
            return Action(self.assignment.scenario.idle_mhz, self._chosen)
        self._coarse(telemetry)
        self._fine()
        self._adapt(telemetry.time_s)
        hurry = longest_wait_s(telemetry) > LONG_WAIT_S
        return Action(int(self.tables.clocks_mhz[self._high if hurry else self._index]), self._chosen)

    def _coarse(self, telemetry: Telemetry) -> None:
        """Move the band once the table has named another clock for some turns."""
        found = min(max(self.looked_up(telemetry) + self._shift, 0), self._high)
        self._disagreed = self._disagreed + 1 if found != self._centre else 0
        if self._disagreed >= PATIENCE:
            self._centre, self._disagreed = found, 0

    def looked_up(self, telemetry: Telemetry) -> int:
        """Index of the cheapest clock that keeps the target at the token rate, rounded up to a row."""
        running = max(len(telemetry.active.running), 1)
        block_size = self.assignment.scenario.engine.block_size
        rows = self._rate.tokens_per_s // BUCKET_TOKENS_PER_S + 1
        load = Load(
            rows * BUCKET_TOKENS_PER_S,
            telemetry.recent.prompt_token_rate,
            kv_tokens(telemetry, block_size) / running,
        )
        plan = cheapest(self.tables, self._chosen, load, self._pace.target_s)
        return plan.clock if plan else self._high

    def _fine(self) -> None:
        """One step towards the target, within the band."""
        tail_s = self._tail.tail_tbt_s(self._tail_percentile)
        if tail_s is not None and tail_s > self._pace.target_s:
            self._index += 1
        elif tail_s is not None and tail_s < LOW_WATER * self._pace.target_s:
            self._index -= 1
        low, high = max(self._centre - self._band, 0), min(self._centre + self._band, self._high)
        self._index = min(max(self._index, low), high)

    def _adapt(self, now_s: float) -> None:
        """Shift what the table says towards the edge at which the fine loop stands."""
        if now_s < self._adapted_s + ADAPT_S:
            return
        self._adapted_s = now_s
        if self._index == min(self._centre + self._band, self._high):
            self._shift = min(self._shift + 1, self._high)
        elif self._index == max(self._centre - self._band, 0):
            self._shift = max(self._shift - 1, -self._high)
