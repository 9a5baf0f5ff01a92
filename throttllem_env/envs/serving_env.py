"""The environment: an agent sets the clock and the size of a serving system, step by step."""

from typing import Any

import gymnasium as gym
import numpy as np

from throttllem_env.controller import next_control_s
from throttllem_env.envs.actions import ActionGrid, available_sizes, make_codec, target_size
from throttllem_env.envs.episodes import Episode, EpisodeSource
from throttllem_env.envs.observation import Observation
from throttllem_env.envs.options import EnvOptions, OptionError
from throttllem_env.envs.render import RENDER_MODES, EpisodeRenderer
from throttllem_env.envs.reward import REWARD_TERMS, RewardModel, StepReward
from throttllem_env.prediction import ProjectedAdmission
from throttllem_env.scenario import Scenario
from throttllem_env.serving import Backend, make_backend
from throttllem_env.slo import Slo
from throttllem_env.suggest import nearest
from throttllem_env.types import Action, BoolArray, Telemetry

Info = dict[str, Any]


class ServingEnv(gym.Env[Any, Any]):
    """Serve a stretch of a trace: never terminated, truncated at the horizon.

    Time passes in control periods (and events, where `control="events"`); a step ends at the first
    iteration boundary at or after its control point.

    Attributes:
        options: What the user chose.
        scenario: What is served on what.
        slo: The targets.
        grid: Clocks by level and sizes by slot.

    Example:
        >>> import gymnasium as gym
        >>> env = gym.make("throttllem_env:ThrottLLeM/Serving-v0", episode_s=5.0)  # doctest: +SKIP
        >>> observation, info = env.reset(seed=0)  # doctest: +SKIP
        >>> len(observation) == len(env.unwrapped.observation_names)  # doctest: +SKIP
        True
    """

    # Gymnasium declares it on the instance, so it cannot be a ClassVar here.
    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        """Load the scenario and the trace.

        Args:
            render_mode: `rgb_array`, `ansi` or None.
            **options: Fields of `EnvOptions`.

        Raises:
            OptionError: An option that does not exist or does not take this value.
            ScenarioError: A scenario that does not exist, is not valid or is not frozen yet.
        """
        if render_mode is not None and render_mode not in RENDER_MODES:
            hint = nearest(str(render_mode), RENDER_MODES)
            raise OptionError(f"render_mode = {render_mode!r}: unknown; {hint}")
        self.render_mode = render_mode
        self.options = o = EnvOptions.of(options)
        self.scenario: Scenario = o.resolved_scenario()
        self.slo: Slo = self.scenario.latency_slo(o.slo_scale)
        self.grid = ActionGrid.of(self.scenario, o.clock_levels)
        self._codec = make_codec(o.actions, self.grid)
        self._reward = RewardModel(self.scenario, self.slo, o.energy_weight, o.violation_weight)
        self._source = EpisodeSource(o, self.scenario, self.slo)
        self._observe_with(self._source)
        self.action_space = self._codec.space
        self.observation_space = (
            self._observation.dict_space if o.observation == "dict" else self._observation.space
        )
        self._horizon_s = o.run_in_s + o.episode_s
        self._backend: Backend | None = None
        self._telemetry: Telemetry | None = None
        self._renderer: EpisodeRenderer | None = None

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the flat observation (and of the Dict's groups)."""
        return self._observation.names

    @property
    def telemetry(self) -> Telemetry:
        """What a live server knows now: what rules decide on.

        Raises:
            gymnasium.error.ResetNeeded: No episode has begun.
        """
        if self._telemetry is None:
            raise gym.error.ResetNeeded("call reset() first: no episode has begun")
        return self._telemetry

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Draw a stretch of the trace and serve its run-in at the top clock and largest size.

        Args:
            seed: Seeds everything that is random.
            options: Not used.

        Returns:
            Observation and info at the end of the run-in.
        """
        super().reset(seed=seed)
        episode = self._source.draw(self.np_random)
        self._observe_with(episode)
        self._gate = ProjectedAdmission(episode.forecaster)
        backend = self._start_backend()
        self._renderer = self._make_renderer(episode) if self.render_mode else None
        self._note(backend.reset(episode.trace, episode.seed))
        self._run_in(backend)
        self._masked_actions = 0
        return self._observed(), self._state_info()

    def _observe_with(self, source: EpisodeSource | Episode) -> None:
        projections = self.options.observation != "compact"
        self._observation = Observation(source.forecaster, projections=projections)

    def _start_backend(self) -> Backend:
        """The one backend of this environment; its admission asks the gate of the current episode."""
        if self._backend is None:
            gate = (lambda t: self._gate(t)) if self.scenario.admission == "projected" else None
            self._backend = make_backend(self.options.backend, self.scenario, gate)
        return self._backend

    def _run_in(self, backend: Backend) -> None:
        """Serve period by period, so that the first observation's "last step" is one period too."""
        while self.telemetry.time_s < self.options.run_in_s:
            self._note(backend.advance(min(self._next_s(), self.options.run_in_s)))

    def _next_s(self) -> float:
        return next_control_s(self.telemetry.time_s, self.options.control_period_s)

    def _note(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        if self._renderer:
            self._renderer.record(telemetry)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        """Ask for a clock and a size, and serve until the next control point.

        Args:
            action: An element of `action_space`.

        Returns:
            Observation, reward, False, whether the horizon has come, info.

        Raises:
            ValueError: The action is not in the space.
            gymnasium.error.ResetNeeded: No episode has begun, or it is over.
        """
        before = self.telemetry
        if self._backend is None or before.time_s >= self._horizon_s:
            raise gym.error.ResetNeeded("call reset() first: the episode is over")
        self._backend.apply(self._action(action))
        until_s = min(self._next_s(), self._horizon_s)
        self._note(self._backend.advance(until_s, stop_at_events=self.options.control == "events"))
        reward = self._reward.step(before, self.telemetry)
        info = self._state_info() | self._step_info(before, reward)
        truncated = self.telemetry.time_s >= self._horizon_s
        return self._observed(), self._reward_value(reward), False, truncated, info

    def _action(self, action: Any) -> Action:
        """Decode; a size that cannot be had now leaves the target size as it is, and is counted."""
        mhz, slot = self._codec.decode(action)
        if available_sizes(self.telemetry, self.scenario)[slot]:
            return Action(mhz, self.grid.sizes[slot])
        self._masked_actions += 1
        return Action(mhz, target_size(self.telemetry))

    def _observed(self) -> Any:
        if self.options.observation == "dict":
            return self._observation.grouped(self.telemetry)
        return self._observation.flat(self.telemetry)

    def _reward_value(self, reward: StepReward) -> Any:
        return reward.total

    def action_masks(self) -> BoolArray:
        """Which actions are physically possible now, in sb3-contrib's layout.

        Returns:
            bool[levels + 4] for MultiDiscrete, bool[levels * 4] for Discrete.

        Raises:
            ValueError: Continuous actions have no mask.
        """
        mask = self._codec.mask(available_sizes(self.telemetry, self.scenario))
        if mask is None:
            raise ValueError("actions = 'continuous': a Box has no mask; take 'multi-discrete' or 'discrete'")
        return mask

    def _state_info(self) -> Info:
        """What is known at any control point: plain numbers for logs, and the mask."""
        t, active = self.telemetry, self.telemetry.active
        numbers = {
            "time_s": t.time_s,
            "frequency_mhz": active.frequency_mhz,
            "target_mhz": active.target_mhz,
            "size": active.size,
            "target_size": target_size(t),
            "batch": len(active.running),
            "queue": len(t.waiting),
            "kv_share": active.kv_blocks_used / active.kv_blocks_total,
            "power_w": t.power_w,
            "request_rate_rps": t.recent.request_rate_rps,
            "tbt_mean_s": t.tbt_mean_s,
            "arrived": t.arrived,
            "completed": len(t.finished),
            "rejected": t.rejected,
            "tokens": t.tokens_generated,
            "total_energy_j": t.energy_j,
            "frequency_switches": t.frequency_switches,
            "size_changes": t.size_changes,
            "masked_actions": self._masked_actions,
        }
        mask = self._codec.mask(available_sizes(t, self.scenario))
        # int8 is what the sample() of Gymnasium's spaces takes.
        return {"telemetry": numbers} | ({} if mask is None else {"action_mask": mask.astype(np.int8)})

    def _step_info(self, before: Telemetry, reward: StepReward) -> Info:
        """What the step cost, and how long it was."""
        elapsed_s = self.telemetry.time_s - before.time_s
        periods = elapsed_s / self.options.control_period_s if self.options.control == "events" else 1.0
        return {
            "reward_terms": reward.terms,
            "cost": float(reward.cost),
            "energy_j": reward.energy_j,
            "elapsed_s": elapsed_s,
            "discount": float(self.options.gamma**periods),
        }

    def _make_renderer(self, episode: Episode) -> EpisodeRenderer:
        return EpisodeRenderer(self.scenario, self.slo, episode, self.options)

    def render(self) -> Any:
        """Draw the episode so far.

        Returns:
            uint8[height, width, 3] for `rgb_array`, text for `ansi`, None without a render mode.
        """
        if self.render_mode is None:
            name = self.spec.id if self.spec else "ThrottLLeM/Serving-v0"
            gym.logger.warn(f'render() needs a mode: gym.make("{name}", render_mode="rgb_array")')
            return None
        if self._renderer is None:
            raise gym.error.ResetNeeded("call reset() first: there is nothing to draw")
        return self._renderer.image() if self.render_mode == "rgb_array" else self._renderer.text()

    def close(self) -> None:
        """Give the backend back; closing twice is fine, and `reset` opens it again."""
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()


class MOServingEnv(ServingEnv):
    """The same with a vector reward, by MO-Gymnasium's convention: [energy term, violation term].

    The terms are those of the scalar reward, weights included, so their sum is the scalar reward.

    Attributes:
        reward_space: Box, float32[2]; no term is ever above 0.
        reward_dim: 2.
    """

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        """See `ServingEnv`."""
        super().__init__(render_mode, **options)
        self.reward_dim = len(REWARD_TERMS)
        self.reward_space = gym.spaces.Box(-np.inf, 0.0, (self.reward_dim,), np.float32)

    def _reward_value(self, reward: StepReward) -> Any:
        return np.array([reward.terms[name] for name in REWARD_TERMS], np.float32)
