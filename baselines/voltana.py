"""VoltanaLLM: the lowest clock that keeps the targets by linear tables per clock, corrected online.

Source: Yu et al., "VoltanaLLM: Feedback-Driven Frequency Control and State-Space Routing for Energy-
Efficient LLM Serving", arXiv 2509.04827. Energy against the clock is U-shaped, so it chooses between the
sweet spot and the top: for every iteration the lowest clock at which a linear model of that clock's latency
(batch, KV tokens; prompt tokens), fitted to a profile, stays within the targets for the first token, less
what has been waited, and for the time between tokens. Its published code (SGLang, 0.1) goes to the top while
anybody waits for a place, and does not correct its tables online; the correction here is ours, in the
spirit of its title, and whoever waits counts with his prompt.

Observes: the running batch, its KV tokens, prompts still to compute and how long they have waited, the rate
of prompt tokens, measured times between tokens (for the correction), finished answers' lengths (for the
target).
Parameters: `share` of the E2E SLO that a long answer's tokens may take, `ttft_s`, `size`. Tuned on train
and validation blocks (`scripts/tune.py rivals`, docs/rivals.md).
Simplified: one engine does both phases, so its clock is the higher of what both need, and arriving prompts
lengthen the predicted time between tokens by their share of the time; there is one instance, so its router
has nothing to route; it decides ten times a second and at events, not at every iteration. Its targets are
per token, ours per request: see `pace`.
"""

from typing import ClassVar

from throttllem_env.baselines.checks import check_range, chosen_size
from throttllem_env.baselines.latency_tables import LatencyTables, lowest
from throttllem_env.baselines.pace import Pace
from throttllem_env.baselines.signals import TokenMeter, backlog_tokens, kv_tokens, unfinished_prompts
from throttllem_env.controller import Assignment, BaseController, ControlPoints
from throttllem_env.types import Action, ObservationArray, Telemetry

SHARE, TTFT_S = 0.95, 2.0

LEARNING_RATE = 0.05
"""Share of a new measurement in the correction."""

MOST_CORRECTION = 2.0

WINDOW_S = 2.0
"""Over which times between tokens are measured: one prompt in it is not the rule."""


class Voltana(BaseController):
    """Picks from tables, and learns how wrong they are."""

    control_points: ClassVar[ControlPoints] = "events"
    period_s: ClassVar[float] = 0.1

    def __init__(self, share: float = SHARE, ttft_s: float = TTFT_S, size: int = 0) -> None:
        """Set it up.

        Args:
            share: Share of the E2E SLO that a long answer may take for its tokens.
            ttft_s: Target for the time to the first token, seconds.
            size: The size; 0 for the scenario's largest.

        Raises:
            ControllerError: A value out of range.
        """
        check_range("voltana", 0.01, 1.0, share=share)
        check_range("voltana", 0.01, 3600.0, ttft_s=ttft_s)
        self._share, self._ttft_s, self._size = share, ttft_s, size

    def reset(self, assignment: Assignment) -> None:
        """Fit the tables and forget the correction.

        Raises:
            ControllerError: The scenario has no such size.
        """
        super().reset(assignment)
        self._chosen = chosen_size("voltana", assignment.scenario, self._size)
        self.tables = LatencyTables(assignment.scenario, self._chosen)
        self._pace = Pace(assignment, self._share)
        self._meter = TokenMeter(WINDOW_S)
        self.correction = 1.0

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The lowest clock that keeps both targets, not below the sweet spot."""
        self._pace.observe(telemetry)
        self._meter.observe(telemetry)
        scenario = self.assignment.scenario
        if telemetry.idle:
            return Action(scenario.idle_mhz, self._chosen)
        batch = len(telemetry.active.running)
        floor = self.tables.sweet_spot(max(batch, 1))
        index = max(self._for_tokens(telemetry, floor), self._for_prompts(telemetry, floor))
        return Action(int(self.tables.clocks_mhz[index]), self._chosen)

    def _for_tokens(self, telemetry: Telemetry, floor: int) -> int:
        """The lowest clock that keeps the time between tokens."""
        batch = len(telemetry.active.running)
        if not batch:
            return floor
        held = kv_tokens(telemetry, self.assignment.scenario.engine.block_size)
        predicted_s = self.tables.tbt_s(batch, held, telemetry.recent.prompt_token_rate)
        clocks = self.assignment.scenario.gpu_spec.clocks_mhz
        self._learn(float(predicted_s[clocks.index(telemetry.active.frequency_mhz)]))
        return lowest(self.correction * predicted_s <= self._pace.target_s, floor)

    def _learn(self, predicted_s: float) -> None:
        """Move the correction towards what was measured at the clock that rules now."""
        measured_s = self._meter.mean_tbt_s
        if measured_s is None:
            return
        seen = min(max(measured_s / predicted_s, 1 / MOST_CORRECTION), MOST_CORRECTION)
        self.correction += LEARNING_RATE * (seen - self.correction)

    def _for_prompts(self, telemetry: Telemetry, floor: int) -> int:
        """The lowest clock at which the prompts that are due are done in time."""
        prompts = unfinished_prompts(telemetry)
        if not len(prompts):
            return floor
        left_s = self._ttft_s - (telemetry.time_s - float(prompts.arrival_s.min()))
        return lowest(self.tables.prefill_per_token_s * backlog_tokens(prompts) <= left_s, floor)
