"""Episodes of one environment on any backend: telemetry in, telemetry out.

Slow and plain: compiled episodes are held to this.
"""

from collections.abc import Callable

import numpy as np

from throttllem_env.controller import next_control_s
from throttllem_env.envs.actions import Choice, available_sizes, target_size
from throttllem_env.envs.episodes import Episode
from throttllem_env.envs.kernels.results import Result
from throttllem_env.envs.observation import Observation
from throttllem_env.envs.setup import Setup
from throttllem_env.prediction import ProjectedAdmission
from throttllem_env.serving import make_backend
from throttllem_env.types import Action, ObservationArray, Telemetry


class PlainRun:
    """One episode after another.

    Attributes:
        telemetry: What a live server knows now.
        result: What the last step left behind; after `begin`, its reward means nothing.
    """

    telemetry: Telemetry
    result: Result

    def __init__(self, setup: Setup) -> None:
        """Start the backend."""
        self._setup = setup
        gate = (lambda t: self._gate(t)) if setup.scenario.admission == "projected" else None
        self._backend = make_backend(setup.options.backend, setup.scenario, gate)

    def begin(self, episode: Episode, record: Callable[[Telemetry], None] | None = None) -> None:
        """Serve the run-in of an episode at the top clock and largest size.

        Args:
            episode: What to serve.
            record: Is shown every telemetry until the next `begin`.
        """
        self._record = record
        self._gate = ProjectedAdmission(episode.forecaster)
        self._observation = Observation(episode.forecaster, projections=self._setup.projections)
        self._masked_actions = 0
        self._note(self._backend.reset(episode.trace, episode.seed))
        run_in_s, before = self._setup.options.run_in_s, self.telemetry
        # Period by period, so that the first observation's "last step" is one period too.
        while self.telemetry.time_s < run_in_s:
            before = self.telemetry
            self._note(self._backend.advance(min(self._next_s(), run_in_s)))
        self.result = self._result(before)

    def step(self, choice: Choice) -> None:
        """Ask for a clock and a size, and serve until the next control point."""
        before = self.telemetry
        self._backend.apply(self._action(choice))
        until_s = min(self._next_s(), self._setup.horizon_s)
        events = self._setup.options.control == "events"
        self._note(self._backend.advance(until_s, stop_at_events=events))
        self.result = self._result(before)

    def observe(self) -> ObservationArray:
        """float32[features]."""
        return self._observation.flat(self.telemetry)

    def close(self) -> None:
        """Give the backend back."""
        self._backend.close()

    def _next_s(self) -> float:
        return next_control_s(self.telemetry.time_s, self._setup.options.control_period_s)

    def _note(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        if self._record:
            self._record(telemetry)

    def _action(self, choice: Choice) -> Action:
        """A size that cannot be had now leaves the target size as it is, and is counted."""
        if available_sizes(self.telemetry, self._setup.scenario)[choice.slot]:
            return Action(choice.mhz, self._setup.grid.sizes[choice.slot])
        self._masked_actions += 1
        return Action(choice.mhz, target_size(self.telemetry))

    def _result(self, before: Telemetry) -> Result:
        t, active, o = self.telemetry, self.telemetry.active, self._setup.options
        reward = self._setup.reward.step(before, t)
        elapsed_s = t.time_s - before.time_s
        periods = elapsed_s / o.control_period_s if o.control == "events" else 1.0
        sizes = available_sizes(t, self._setup.scenario)
        return Result(
            time_s=t.time_s,
            frequency_mhz=active.frequency_mhz,
            target_mhz=active.target_mhz,
            size=active.size,
            target_size=target_size(t),
            batch=len(active.running),
            queue=len(t.waiting),
            kv_share=active.kv_blocks_used / active.kv_blocks_total,
            power_w=t.power_w,
            request_rate_rps=t.recent.request_rate_rps,
            tbt_mean_s=t.tbt_mean_s,
            arrived=t.arrived,
            completed=len(t.finished),
            rejected=t.rejected,
            tokens=t.tokens_generated,
            total_energy_j=t.energy_j,
            frequency_switches=t.frequency_switches,
            size_changes=t.size_changes,
            masked_actions=self._masked_actions,
            energy=reward.terms["energy"],
            violations=reward.terms["violations"],
            reward=reward.total,
            cost=float(reward.cost),
            energy_j=reward.energy_j,
            elapsed_s=elapsed_s,
            discount=float(o.gamma**periods),
            sizes=int(sizes @ (1 << np.arange(len(sizes)))),
            truncated=int(t.time_s >= self._setup.horizon_s),
        )
