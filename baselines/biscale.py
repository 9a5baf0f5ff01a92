"""BiScale-like model-predictive control: a plan for minutes, and a look a few seconds ahead for every clock.

Source: Basit et al., "BiScale: Energy-Efficient Disaggregated LLM Serving via Phase-Aware Placement and
DVFS", arXiv 2602.18755. A coarse tier chooses the placement and a base clock of least energy for the load
of the last five minutes; a fine tier looks ahead at every iteration with latency and power models: for
prefill a model-predictive controller that sees how the queue will grow and what that does to the times to
first token, for decode the lowest energy within the slack of the time per token. How far it looks ahead is
chosen by us.

Observes: the running batch, its KV tokens, prompts still to compute and how long they have waited, arrivals
and finished requests' lengths, the current size.
Parameters: `share` of the E2E SLO that a long answer's tokens may take, `ttft_s`, `plan_s` between
decisions about the size, `headroom`. Tuned on train and validation blocks (`scripts/tune.py rivals`,
docs/rivals.md).
Simplified: one engine does both phases, so there is one size to place and one clock, and one rollout that
holds both targets; rollouts are in steps of half a second with mean lengths instead of iterations with
those of the queue; a first clock and one for the rest of the horizon are searched, every third clock. Its
targets are per token, ours per request: see `pace`.
"""

from typing import ClassVar

from throttllem_env.baselines.arrivals import ArrivalMeter
from throttllem_env.baselines.checks import check_range
from throttllem_env.baselines.latency_tables import LatencyTables, Load
from throttllem_env.baselines.pace import Pace
from throttllem_env.baselines.plans import Plan, change_j, cheapest, coming_size
from throttllem_env.baselines.rollout import Rollout, Start
from throttllem_env.baselines.signals import backlog_tokens, unfinished_prompts
from throttllem_env.controller import Assignment, BaseController
from throttllem_env.types import Action, ObservationArray, Telemetry

SHARE, TTFT_S, PLAN_S, HEADROOM = 0.95, 2.0, 300.0, 0.1

PART_S = 30.0
"""The busiest part of so many seconds of the last interval is what a plan must carry."""


class BiScale(BaseController):
    """Plans sizes, rolls clocks out."""

    period_s: ClassVar[float] = 0.5

    def __init__(
        self,
        share: float = SHARE,
        ttft_s: float = TTFT_S,
        plan_s: float = PLAN_S,
        headroom: float = HEADROOM,
    ) -> None:
        """Set it up.

        Args:
            share: Share of the E2E SLO that a long answer may take for its tokens.
            ttft_s: Target for the time to the first token, seconds.
            plan_s: Time between decisions about the size, seconds.
            headroom: Share by which a plan must carry more than the busiest part of the last interval.

        Raises:
            ControllerError: A value out of range.
        """
        check_range("biscale", 0.01, 1.0, share=share)
        check_range("biscale", 0.01, 3600.0, ttft_s=ttft_s)
        check_range("biscale", PART_S, 3600.0, plan_s=plan_s)
        check_range("biscale", 0.0, 10.0, headroom=headroom)
        self._share, self._ttft_s, self._plan_s, self._headroom = share, ttft_s, plan_s, headroom

    def reset(self, assignment: Assignment) -> None:
        """Make the models; begin with the largest size at the top clock."""
        super().reset(assignment)
        scenario = assignment.scenario
        self._tables = {size: LatencyTables(scenario, size) for size in scenario.sizes}
        self._rollouts = {size: Rollout(tables) for size, tables in self._tables.items()}
        self._pace = Pace(assignment, self._share)
        self._arrivals = ArrivalMeter(self._plan_s)
        self._size = scenario.largest_size
        self._next_plan_s = PART_S

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The planned size, and the first clock of the best rollout."""
        scenario = self.assignment.scenario
        self._pace.observe(telemetry)
        self._arrivals.observe(telemetry)
        if telemetry.time_s >= self._next_plan_s and self._arrivals.load() is not None:
            self._next_plan_s = telemetry.time_s + self._plan_s
            self._size = self._planned_size(telemetry)
        if telemetry.idle:
            return Action(scenario.idle_mhz, self._size)
        load = self._arrivals.load(PART_S)
        if load is None:
            return Action(scenario.top_mhz, self._size)
        self._grow_if_too_small(telemetry, load)
        rollout = self._rollouts[telemetry.active.size]
        return Action(rollout.best_mhz(self._start(telemetry), load, self._pace.target_s), self._size)

    def _start(self, telemetry: Telemetry) -> Start:
        """Where a rollout begins."""
        prompts = unfinished_prompts(telemetry)
        waited_s = telemetry.time_s - float(prompts.arrival_s.min()) if len(prompts) else 0.0
        mean_prompt, mean_output = self._arrivals.mean_lengths()
        # Those whose prompts are due do not decode yet, unless they are still waiting.
        batch = len(telemetry.active.running) - (len(prompts) - len(telemetry.waiting))
        return Start(
            backlog_tokens(prompts),
            batch,
            max(mean_prompt, 1.0),
            max(mean_output, 1.0),
            self._ttft_s - waited_s,
        )

    def _planned_size(self, telemetry: Telemetry) -> int:
        """The cheapest size for the busiest part of the last interval, if changing to it pays."""
        current, load = coming_size(telemetry), self._arrivals.peak(PART_S)
        if load is None or telemetry.resizing:
            return current
        plans = {size: plan for size in self._tables if (plan := self._plan(size, load))}
        if current not in plans:
            largest = self.assignment.scenario.largest_size
            return min(plans, key=lambda size: plans[size].power_w, default=largest)
        best, staying = min(plans.values(), key=lambda plan: plan.power_w), plans[current]
        drain_s = self._pace.long_tokens * self._pace.target_s / 2
        cost_j = change_j(self.assignment.scenario, best.size, staying.power_w, drain_s)
        pays = (staying.power_w - best.power_w) * self._plan_s > cost_j
        return best.size if pays else current

    def _grow_if_too_small(self, telemetry: Telemetry, load: Load) -> None:
        """Do not wait for the next plan where the size that serves cannot carry what is there."""
        serving = telemetry.active.size
        if telemetry.resizing or self._plan(serving, load) is not None:
            return
        larger = [size for size in self._tables if size > serving]
        enough = [size for size in larger if self._plan(size, load) is not None]
        self._size = min(enough, default=max(larger, default=serving))

    def _plan(self, size: int, load: Load) -> Plan | None:
        """The cheapest clock of a size that carries the load and its headroom."""
        room = 1 + self._headroom
        more = Load(load.tokens_per_s * room, load.prompt_tokens_per_s * room, load.context_tokens)
        return cheapest(self._tables[size], size, more, self._pace.target_s)
