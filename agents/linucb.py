"""linucb: AGFT's bandit (arXiv 2508.01744) over clocks, and a form of it that knows the SLO.

A contextual bandit (LinUCB, Li et al., WWW 2010) learns online, from nothing, which clock gives the least
energy-delay product in which state. The state is what an engine reports of itself: the seven features that
AGFT's published code reads (github.com/SusCom-Lab/AGFT). Arms that turn out bad are pruned, and with a clock
that is too low all clocks below. `slo=none` has energy and delay alone, as its abstract does; that code can
also mind limits for the first and for later tokens, but no deadlines of requests. With `slo=projection`, the
default, no clock is played below the lowest one that keeps every deadline in the projection, and a deadline
that passes unmet is held against the clock that was played. Sizes stay as they are: AGFT has one. Simplified:
exploration does not decay, features are scaled by the engine's limits instead of their own spread, and clocks
are not refined once some are pruned. Length of a window, when an arm is pruned and how far are chosen by us.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np

from throttllem_env.controller import Assignment, BaseController, ControllerError
from throttllem_env.prediction import Forecaster, lowest_feasible_mhz
from throttllem_env.scenario import Scenario
from throttllem_env.slo import deadlines_passed
from throttllem_env.suggest import nearest
from throttllem_env.types import Action, BoolArray, FloatArray, ObservationArray, Telemetry

Awareness = Literal["projection", "none"]
"""Whether the bandit knows the SLO."""

FEATURES: Final = 8
"""Seven of AGFT's, and 1."""

RIDGE: Final = 1.0
LOWEST_ARM: Final = 0.4
"""The lowest clock that is tried, relative to the top clock: far below, energy and delay both grow."""

TRIALS, BAD = 10, 0.3
"""An arm that was played so often is pruned if its mean reward is worse than the best one's by this share."""

LATE_PRICE: Final = 1.0
"""A deadline per second that passes unmet, in energy-delay products of the top clock."""


class LinUcb(BaseController):
    """Learns which clock is best where; starts anew with every run, or with what it was told to know.

    Attributes:
        alpha: Weight of uncertainty.
        bandit: What it knows by now.
        scale: Energy-delay product that rewards are relative to; None before the first.
    """

    bandit: "Bandit"
    scale: float | None

    def __init__(
        self, slo: Awareness = "projection", alpha: float = 0.3, window_s: float = 2.0, arms: int = 16
    ) -> None:
        """Set up the bandit.

        Args:
            slo: `projection`, or `none` for energy and delay alone.
            alpha: Weight of uncertainty: how eagerly it explores.
            window_s: How long a clock is played, seconds.
            arms: How many clocks there are to choose from.

        Raises:
            ControllerError: A value out of range.
        """
        if slo not in get_args(Awareness):
            raise ControllerError(f"linucb: slo = {slo!r}: {nearest(slo, get_args(Awareness))}")
        if not 0 <= alpha < float("inf"):
            raise ControllerError(f"linucb: alpha = {alpha}: must be a number of at least 0")
        if not 0 < window_s < float("inf"):
            raise ControllerError(f"linucb: window_s = {window_s}: must be a number above 0")
        if arms < 2:
            raise ControllerError(f"linucb: arms = {arms}: must be a whole number of at least 2")
        self.alpha = alpha
        self._slo, self._window_s, self._arms = slo, window_s, arms
        self._known: tuple[Bandit, float | None] | None = None

    def begin_with(self, bandit: "Bandit", scale: float | None) -> None:
        """Let runs begin with what was learned before.

        Args:
            bandit: What was learned; it is left as it is.
            scale: See the attribute.
        """
        self._known = deepcopy(bandit), scale

    def reset(self, assignment: Assignment) -> None:
        """Forget what was learned since the run before began.

        Raises:
            ControllerError: What it was told to know has another number of clocks than the scenario.
        """
        super().reset(assignment)
        scenario = assignment.scenario
        ratios = np.linspace(LOWEST_ARM, 1.0, self._arms)
        self._clocks_mhz = sorted({scenario.snap_mhz(ratio * scenario.top_mhz) for ratio in ratios})
        self.bandit, self.scale = Bandit(len(self._clocks_mhz), self.alpha), None
        if self._known:
            self.bandit, self.scale = deepcopy(self._known[0]), self._known[1]
        if self.bandit.arms != len(self._clocks_mhz):
            raise ControllerError(
                f"linucb: it knows {self.bandit.arms} clocks; {scenario.name} has {len(self._clocks_mhz)} of "
                f"{self._arms}"
            )
        self._forecaster = Forecaster.of(scenario, assignment.slo, assignment.lengths)
        self._window = Window()
        self._arm, self._state = len(self._clocks_mhz) - 1, np.zeros(FEATURES)

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The arm that is played, and what the deadlines need."""
        scenario = self.assignment.scenario
        if telemetry.idle:
            self._window = Window()
            return Action(scenario.idle_mhz, scenario.largest_size)
        self._window.take(telemetry, self.assignment.slo.e2e_s)
        if self._window.seconds >= self._window_s:
            self._learn()
            self._state = state(telemetry, scenario, self._window)
            self._arm = self.bandit.choose(self._state)
            self._window = Window()
        mhz = self._clocks_mhz[self._arm]
        if self._slo == "projection":
            outlook = self._forecaster.outlook(telemetry)
            mhz = max(mhz, lowest_feasible_mhz(outlook, scenario.gpu_spec.clocks_mhz, mhz)[0])
        return Action(mhz, scenario.largest_size)

    def _learn(self) -> None:
        """Hold the window's energy-delay product against its arm; the first one sets the scale."""
        product = self._window.energy_delay
        if product is None:
            return
        if self.scale is None:
            self.scale = product
        reward = -product / self.scale
        if self._slo == "projection":
            reward -= LATE_PRICE * self._window.late / self._window.seconds
        self.bandit.learn(self._arm, self._state, reward)


@dataclass(slots=True)
class Window:
    """What was measured while an arm was played.

    Attributes:
        seconds: How long.
        energy_j: Energy of all GPUs.
        tokens: Output tokens.
        gaps_s: Time between tokens, summed over tokens.
        prompt_tokens: Prompt tokens of requests that finished.
        late: Deadlines that passed unmet.
    """

    seconds: float = 0.0
    energy_j: float = 0.0
    tokens: int = 0
    gaps_s: float = 0.0
    prompt_tokens: int = 0
    late: int = 0

    def take(self, telemetry: Telemetry, e2e_s: float) -> None:
        """Add what happened since the previous telemetry."""
        elapsed_s = telemetry.time_s - telemetry.previous_s
        self.seconds += elapsed_s
        self.energy_j += telemetry.power_w * elapsed_s
        self.tokens += telemetry.tokens_generated
        self.gaps_s += telemetry.tbt_mean_s * telemetry.tokens_generated
        self.prompt_tokens += sum(request.prompt_tokens for request in telemetry.finished)
        self.late += deadlines_passed(telemetry, telemetry.previous_s, e2e_s)

    @property
    def energy_delay(self) -> float | None:
        """Joules per token x seconds per token; None without tokens."""
        if not (self.tokens and self.gaps_s):
            return None
        return (self.energy_j / self.tokens) * (self.gaps_s / self.tokens)


def state(telemetry: Telemetry, scenario: Scenario, window: Window) -> FloatArray:
    """AGFT's seven features, and 1, each about 0 to 1.

    Args:
        telemetry: The state now.
        scenario: Gives the limits.
        window: What was measured last.

    Returns:
        float64[8]: whether requests wait, prompt and output tokens per second, tokens per iteration's budget,
        running requests, KV blocks, prefix cache hits (none: it is off, docs/design.md), 1.
    """
    engine, active, seconds = scenario.engine, telemetry.active, max(window.seconds, 1e-9)
    running = active.running
    pending = running.prompt_tokens + running.generated_tokens - running.computed_tokens
    return np.array(
        [
            float(len(telemetry.waiting) > 0),
            window.prompt_tokens / seconds / (10 * engine.max_num_batched_tokens),
            window.tokens / seconds / (10 * engine.max_num_seqs),
            min(int(pending.sum()) / engine.max_num_batched_tokens, 1.0),
            len(running) / engine.max_num_seqs,
            active.kv_blocks_used / max(active.kv_blocks_total, 1),
            0.0,
            1.0,
        ]
    )


@dataclass(slots=True)
class Bandit:
    """LinUCB with disjoint arms, ordered by clock, and pruning.

    Attributes:
        arms: How many.
        alpha: Weight of uncertainty.
        alive: bool[arms], which are left.
        trials: int64[arms], how often each was played.
        inverse: float64[arms, FEATURES, FEATURES], of each arm's A.
        response: float64[arms, FEATURES], its b.
        rewards: float64[arms], sums.
    """

    arms: int
    alpha: float
    alive: BoolArray = field(init=False)
    trials: FloatArray = field(init=False)
    inverse: FloatArray = field(init=False)
    response: FloatArray = field(init=False)
    rewards: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.alive, self.trials = np.ones(self.arms, np.bool_), np.zeros(self.arms)
        self.inverse = np.tile(np.eye(FEATURES) / RIDGE, (self.arms, 1, 1))
        self.response, self.rewards = np.zeros((self.arms, FEATURES)), np.zeros(self.arms)

    def choose(self, state: FloatArray) -> int:
        """The arm with the highest upper bound of its reward; of equal ones the highest clock.

        Args:
            state: float64[FEATURES].
        """
        theta = np.einsum("aij,aj->ai", self.inverse, self.response)
        width = np.sqrt(np.einsum("i,aij,j->a", state, self.inverse, state))
        bound = np.where(self.alive, theta @ state + self.alpha * width, -np.inf)
        return self.arms - 1 - int(bound[::-1].argmax())

    def learn(self, arm: int, state: FloatArray, reward: float) -> None:
        """Take in a reward, then prune.

        Args:
            arm: Which was played.
            state: float64[FEATURES], where.
            reward: What came of it.
        """
        inverse = self.inverse[arm]
        gain = inverse @ state
        # Sherman-Morrison: the inverse of A + x x^T.
        self.inverse[arm] = inverse - np.outer(gain, gain) / (1 + state @ gain)
        self.response[arm] += reward * state
        self.rewards[arm] += reward
        self.trials[arm] += 1
        self._prune()

    def _prune(self) -> None:
        """Take out arms that are clearly worse than the best, and all clocks beyond one that is."""
        known = self.alive & (self.trials >= TRIALS)
        if not known.any():
            return
        mean = np.where(known, self.rewards / np.maximum(self.trials, 1), -np.inf)
        best = int(mean.argmax())
        bad = known & (mean < mean[best] - BAD * abs(mean[best]))
        below, above = np.flatnonzero(bad[:best]), np.flatnonzero(bad[best + 1 :])
        if len(below):
            self.alive[: below[-1] + 1] = False
        if len(above):
            self.alive[best + 1 + above[0] :] = False
