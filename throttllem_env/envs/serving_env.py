"""The environment: an agent sets the clock and the size of a serving system, step by step."""

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from throttllem_env.envs.episodes import Episode
from throttllem_env.envs.infos import Info, state_info, step_info
from throttllem_env.envs.kernels.results import Result
from throttllem_env.envs.options import EnvOptions, OptionError
from throttllem_env.envs.plain_run import PlainRun
from throttllem_env.envs.render import RENDER_MODES, EpisodeRenderer
from throttllem_env.envs.reward import REWARD_TERMS
from throttllem_env.envs.setup import Setup
from throttllem_env.suggest import nearest
from throttllem_env.types import BoolArray, Telemetry

if TYPE_CHECKING:
    from throttllem_env.envs.compiled_run import CompiledRun


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
        self._setup = setup = Setup(EnvOptions.of(options))
        self.options, self.scenario = setup.options, setup.scenario
        self.slo, self.grid = setup.slo, setup.grid
        self.action_space, self.observation_space = setup.action_space, setup.observation_space
        self._run: PlainRun | CompiledRun | None = None
        self._begun = False
        self._renderer: EpisodeRenderer | None = None

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the flat observation (and of the Dict's groups)."""
        return self._setup.observation.names

    @property
    def telemetry(self) -> Telemetry:
        """What a live server knows now: what rules decide on.

        Raises:
            gymnasium.error.ResetNeeded: No episode has begun.
        """
        return self._current().telemetry

    @property
    def episode(self) -> Episode:
        """What was drawn at the last reset.

        Raises:
            gymnasium.error.ResetNeeded: No episode has begun.
        """
        self._current()
        return self._episode

    def _current(self) -> "PlainRun | CompiledRun":
        if self._run is None or not self._begun:
            raise gym.error.ResetNeeded("call reset() first: no episode has begun")
        return self._run

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Draw a stretch of the trace and serve its run-in at the top clock and largest size.

        Args:
            seed: Seeds everything that is random.
            options: Not used.

        Returns:
            Observation and info at the end of the run-in.
        """
        super().reset(seed=seed)
        self._episode = episode = self._setup.source.draw(self.np_random)
        if self._run is None:
            self._run = self._make_run()
        self._renderer = self._make_renderer(episode) if self.render_mode else None
        self._run.begin(episode, self._renderer.record if self._renderer else None)
        self._begun = True
        return self._observed(), state_info(self._run.result, self._setup)

    def _make_run(self) -> "PlainRun | CompiledRun":
        """Whoever draws has to see all telemetry, which compiled episodes do not make."""
        if self.options.backend != "simulator" or self.render_mode:
            return PlainRun(self._setup)
        from throttllem_env.envs.compiled_run import CompiledRun

        return CompiledRun(self._setup)

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
        run = self._current()
        if run.result.truncated:
            raise gym.error.ResetNeeded("call reset() first: the episode is over")
        run.step(self._setup.codec.decode(action))
        result = run.result
        info = state_info(result, self._setup) | step_info(result)
        return self._observed(), self._reward_value(result), False, bool(result.truncated), info

    def _observed(self) -> Any:
        row = self._current().observe()
        return self._setup.observation.groups(row) if self.options.observation == "dict" else row

    def _reward_value(self, result: Result) -> Any:
        return result.reward

    def action_masks(self) -> BoolArray:
        """Which actions are physically possible now, in sb3-contrib's layout.

        Returns:
            bool[levels + 4] for MultiDiscrete, bool[levels * 4] for Discrete.

        Raises:
            ValueError: Continuous actions have no mask.
        """
        sizes = self._current().result.sizes
        mask: BoolArray = self._setup.require_masks()[sizes].astype(np.bool_)
        return mask

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
        run, self._run = self._run, None
        if run is not None:
            run.close()


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

    def _reward_value(self, result: Result) -> Any:
        return np.array([result.energy, result.violations], np.float32)
