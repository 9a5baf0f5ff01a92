"""A DynamoLLM-like hierarchy: the size by minutes, the clock by seconds, the load by length classes.

Source: Stojkovic et al., "DynamoLLM: Designing LLM Inference Clusters for Performance and Energy
Efficiency", HPCA 2025, arXiv 2408.00741: controllers of cluster, pool and instance choose the number of
instances, the tensor parallelism and the clock, from energy and latency profiles by kind of request and
load, and mind what a change costs. Our reading of it: the upper level chooses the size for the load that it
expects, the lower one the clock for the load there is, each the cheapest that keeps the SLO; changes must
pay for their own cost; a queue that builds up overrides both. Classes of requests count by what they cost,
not by their number. Times between decisions and edges of classes are chosen by us.

Observes: each arrival's prompt, each finished request's lengths, waiting requests, the current size.
Parameters: `share` of the E2E SLO that a long answer's tokens may take, `size_s` between decisions about
the size, `headroom` over the expected load. Tuned on train and validation blocks (`scripts/tune.py rivals`,
docs/rivals.md).
Simplified: one instance instead of a cluster, so its pools by class become classes of arrivals that add up
to one load (edges at 256 and 1024 prompt tokens); the output class is not predicted by a
classifier but taken as the mean of the prompt class; the load expected is the busiest half minute of the
last interval instead of a weekly template; profiles are linear tables. Its level for the number of
instances has nothing to decide.
"""

from throttllem_env.baselines.arrivals import ArrivalMeter
from throttllem_env.baselines.checks import check_range
from throttllem_env.baselines.latency_tables import LatencyTables, Load
from throttllem_env.baselines.pace import Pace
from throttllem_env.baselines.plans import Plan, change_j, cheapest, coming_size
from throttllem_env.baselines.signals import longest_wait_s
from throttllem_env.controller import Assignment, BaseController
from throttllem_env.types import Action, ObservationArray, Telemetry

SHARE, SIZE_S, HEADROOM = 0.85, 120.0, 0.0

CLOCK_S = 5.0
"""Between decisions about the clock."""

PART_S = 30.0
"""The busiest part of so many seconds stands for the load to come."""

PROMPT_EDGES = (256, 1024)
LONG_WAIT_S = 2.0
"""Whoever waits so long for a place in the batch waits for speed."""


class DynamoLlm(BaseController):
    """Plans the size now and then and the clock every five seconds."""

    def __init__(self, share: float = SHARE, size_s: float = SIZE_S, headroom: float = HEADROOM) -> None:
        """Set it up.

        Args:
            share: Share of the E2E SLO that a long answer may take for its tokens.
            size_s: Time between decisions about the size, seconds.
            headroom: Share by which a plan must carry more than the load.

        Raises:
            ControllerError: A value out of range.
        """
        check_range("dynamollm", 0.01, 1.0, share=share)
        check_range("dynamollm", PART_S, 3600.0, size_s=size_s)
        check_range("dynamollm", 0.0, 10.0, headroom=headroom)
        self._share, self._size_s, self._headroom = share, size_s, headroom

    def reset(self, assignment: Assignment) -> None:
        """Make the profiles; begin with the largest size at the top clock."""
        super().reset(assignment)
        scenario = assignment.scenario
        self._tables = {size: LatencyTables(scenario, size) for size in scenario.sizes}
        self._pace = Pace(assignment, self._share)
        self.arrivals = ArrivalMeter(self._size_s, PROMPT_EDGES)
        self._size, self._mhz = scenario.largest_size, scenario.top_mhz
        self._next_size_s, self._next_clock_s = self._size_s, 0.0

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """What both levels last decided, unless a queue builds up."""
        scenario = self.assignment.scenario
        self._pace.observe(telemetry)
        self.arrivals.observe(telemetry)
        load = self.arrivals.load(min(PART_S, self._size_s))
        if load is not None and telemetry.time_s >= self._next_clock_s:
            self._next_clock_s = telemetry.time_s + CLOCK_S
            self._plan_clock(telemetry, load)
        if telemetry.time_s >= self._next_size_s:
            self._next_size_s = telemetry.time_s + self._size_s
            self._plan_size(telemetry)
        if telemetry.idle:
            return Action(scenario.idle_mhz, self._size)
        hurry = longest_wait_s(telemetry) > LONG_WAIT_S
        return Action(scenario.top_mhz if hurry else self._mhz, self._size)

    def _plan_clock(self, telemetry: Telemetry, load: Load) -> None:
        """The cheapest clock of the size that serves; where none suffices, a larger size at once."""
        scenario, serving = self.assignment.scenario, telemetry.active.size
        plan = self._plan(serving, load)
        self._mhz = scenario.gpu_spec.clocks_mhz[plan.clock] if plan else scenario.top_mhz
        if plan is None and not telemetry.resizing:
            self._size = self._cheapest_of(load, at_least=serving).size

    def _plan_size(self, telemetry: Telemetry) -> None:
        """The cheapest size for the load to come; a smaller one only if that pays."""
        load = self.arrivals.peak(PART_S)
        if load is None or telemetry.resizing:
            return
        current = coming_size(telemetry)
        best, staying = self._cheapest_of(load), self._plan(current, load)
        if staying is None or best.size > current:
            self._size = best.size
            return
        drain_s = self._pace.long_tokens * self._pace.target_s / 2
        cost_j = change_j(self.assignment.scenario, best.size, staying.power_w, drain_s)
        pays = (staying.power_w - best.power_w) * self._size_s > cost_j
        self._size = best.size if pays else current

    def _plan(self, size: int, load: Load) -> Plan | None:
        """The cheapest clock of a size that carries the load and its headroom."""
        room = 1 + self._headroom
        more = Load(load.tokens_per_s * room, load.prompt_tokens_per_s * room, load.context_tokens)
        return cheapest(self._tables[size], size, more, self._pace.target_s)

    def _cheapest_of(self, load: Load, at_least: int = 0) -> Plan:
        """The cheapest plan of all sizes from one on; the largest size at the top clock if none suffices."""
        sizes = self.assignment.scenario.sizes
        plans = [plan for size in sizes if size >= at_least and (plan := self._plan(size, load))]
        top = len(self.assignment.scenario.gpu_spec.clocks_mhz) - 1
        return min(plans, key=lambda plan: plan.power_w, default=Plan(sizes[-1], top, float("inf")))
