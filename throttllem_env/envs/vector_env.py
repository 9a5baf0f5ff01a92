"""Many environments in one: a step of all is two calls of compiled code."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from throttllem_env.envs.episodes import Episode
from throttllem_env.envs.kernels.results import RESULT
from throttllem_env.envs.lanes import Lanes
from throttllem_env.envs.options import OptionError
from throttllem_env.envs.reward import REWARD_TERMS
from throttllem_env.envs.setup import Setup
from throttllem_env.envs.vector_infos import state_infos, step_infos
from throttllem_env.envs.vector_options import make_setups
from throttllem_env.types import BoolArray, IntArray, ObservationArray, Telemetry


class ServingVectorEnv(VectorEnv[Any, Any, Any]):
    """Independent `ServingEnv`s, advanced together; `gym.make_vec` makes them.

    Environment i does what a `ServingEnv` that is reset with seed + i does, to the last bit. One whose
    episode is over begins the next in the same step (`AutoresetMode.SAME_STEP`): `infos["final_obs"]` and
    `infos["final_info"]` hold how it ended. Every step returns new arrays.

    Attributes:
        setups: Options, scenario and more, by environment.

    Example:
        >>> import gymnasium as gym
        >>> envs = gym.make_vec("throttllem_env:ThrottLLeM/Serving-v0", num_envs=16)  # doctest: +SKIP
        >>> observations, infos = envs.reset(seed=0)  # doctest: +SKIP
        >>> observations.shape[0]  # doctest: +SKIP
        16
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - Gymnasium declares it so
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, num_envs: int = 1, render_mode: str | None = None, **options: Any) -> None:
        """Load scenarios and traces.

        Args:
            num_envs: How many.
            render_mode: None; single environments can be drawn.
            **options: Fields of `EnvOptions`; a list has one value for each environment.

        Raises:
            OptionError: An option that does not exist or does not take this value, or environments whose
                spaces differ.
            ScenarioError: A scenario that does not exist, is not valid or is not frozen yet.
        """
        if num_envs < 1:
            raise OptionError(f"num_envs = {num_envs}: must be at least 1")
        if render_mode is not None:
            raise OptionError(
                f'render_mode = {render_mode!r}: only with vectorization_mode="sync" or "async"'
            )
        self.num_envs, self.render_mode = num_envs, render_mode
        self.setups = setups = make_setups(num_envs, options)
        self._lanes = Lanes(setups)
        self._decoder = _Decoder(setups)
        self.single_action_space = setups[0].action_space
        self.single_observation_space = setups[0].observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._everyone = np.arange(num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._results: NDArray[np.void] | None = None
        self._over = np.ones(num_envs, np.bool_)
        self._episodes: dict[int, Episode] = {}

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the flat observation (and of the Dict's groups)."""
        return self.setups[0].observation.names

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment.

        Args:
            seed: Environment i is seeded with seed + i, or with the i-th of a list.
            options: `reset_mask`, bool[num_envs], leaves the other environments where they are.

        Returns:
            Observations and infos at the end of the run-in.

        Raises:
            ValueError: Not one seed per environment, or a mask that is none.
        """
        who = self._who(options)
        for row, one in enumerate(self._seeds(seed)):
            if who[row] and (one is not None or self._generators[row] is None):
                self._generators[row] = np_random(one)[0]
        results = np.zeros(self.num_envs, RESULT) if self._results is None else self._results
        self._results = self._begin(np.flatnonzero(who), results)
        self._over[who] = False
        observations = self.observe()
        return self._shown(observations), state_infos(self._results, self.setups[0].masks, who)

    def _who(self, options: dict[str, Any] | None) -> BoolArray:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        who = np.asarray(mask)
        if who.shape != (self.num_envs,) or who.dtype != np.bool_ or not who.any():
            raise ValueError(f"reset_mask = {mask!r}: must be bool[{self.num_envs}] with a true one in it")
        if self._results is None and not who.all():
            raise gym.error.ResetNeeded("call reset() without reset_mask first: no episode has begun")
        return who.copy()

    def _seeds(self, seed: int | list[int | None] | None) -> list[int | None]:
        if seed is None or isinstance(seed, int | np.integer):
            return [None if seed is None else int(seed) + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed has {len(seed)} values: must be one, or num_envs = {self.num_envs}")
        return list(seed)

    def _begin(self, rows: IntArray, results: NDArray[np.void]) -> NDArray[np.void]:
        """Begin episodes; returns RESULT[n] with those rows renewed."""
        episodes = [self.setups[row].source.draw(self._generator(row)) for row in rows.tolist()]
        self._episodes.update(zip(rows.tolist(), episodes, strict=True))
        begun = self._lanes.begin(rows, episodes)
        merged = results.copy()
        merged[rows] = begun[rows]
        return merged

    def _generator(self, row: int) -> np.random.Generator:
        generator = self._generators[row]
        if generator is None:
            raise gym.error.ResetNeeded("call reset() first: no episode has begun")
        return generator

    def step(self, actions: Any) -> tuple[Any, Any, BoolArray, BoolArray, dict[str, Any]]:
        """Ask for clocks and sizes, and serve until the next control points.

        Args:
            actions: An element of `action_space`.

        Returns:
            Observations, rewards (float64[num_envs]), all false, whether the horizon came, infos.

        Raises:
            ValueError: An action is not in the space.
            gymnasium.error.ResetNeeded: No episode has begun.
        """
        if self._over.any():
            raise gym.error.ResetNeeded("call reset() first: no episode has begun")
        clocks, slots = self._decoder.decode(actions)
        self._results = results = self._lanes.step(self._everyone, clocks, slots)
        observations, over = self.observe(), results["truncated"] != 0
        infos = self._infos(observations, over) if over.any() else self._step_infos(results, ~over)
        rewards, terminated = self._rewards(results), np.zeros(self.num_envs, np.bool_)
        return self._shown(observations), rewards, terminated, over, infos

    def _step_infos(self, results: NDArray[np.void], who: BoolArray) -> dict[str, Any]:
        return state_infos(results, self.setups[0].masks, who) | step_infos(results, who)

    def _infos(self, observations: ObservationArray, over: BoolArray) -> dict[str, Any]:
        """Begin new episodes where one is over; the others' infos are those of a step."""
        ended = self._results
        assert ended is not None
        rows, final = np.flatnonzero(over), np.full(self.num_envs, None, object)
        for row in rows.tolist():
            final[row] = self._shown(observations[row].copy())
        infos: dict[str, Any] = {"final_obs": final, "_final_obs": over}
        infos |= {"final_info": self._step_infos(ended, over), "_final_info": over}
        self._results = self._begin(rows, ended)
        self._lanes.observe(rows, observations)
        everyone = np.ones(self.num_envs, np.bool_)
        state = state_infos(self._results, self.setups[0].masks, everyone)
        return infos | state | step_infos(ended, ~over)

    def observe(self) -> ObservationArray:
        """float32[num_envs, features], what is seen now, in the order of `observation_names`."""
        observations = np.empty((self.num_envs, len(self.observation_names)), np.float32)
        self._lanes.observe(self._everyone, observations)
        return observations

    def _shown(self, observations: ObservationArray) -> Any:
        """float32[..., features], in groups where that was asked for."""
        first = self.setups[0]
        return first.observation.groups(observations) if first.options.observation == "dict" else observations

    def _rewards(self, results: NDArray[np.void]) -> Any:
        return results["reward"].copy()

    def action_masks(self) -> BoolArray:
        """Which actions are physically possible now: bool[num_envs, ...], see `ServingEnv.action_masks`.

        Raises:
            ValueError: Continuous actions have no mask.
            gymnasium.error.ResetNeeded: No episode has begun.
        """
        if self._results is None:
            raise gym.error.ResetNeeded("call reset() first: no episode has begun")
        masks: BoolArray = self.setups[0].require_masks()[self._results["sizes"]].astype(np.bool_)
        return masks

    def telemetry(self, index: int) -> Telemetry:
        """What a live server knows now in one environment: what rules decide on."""
        if self._results is None:
            raise gym.error.ResetNeeded("call reset() first: no episode has begun")
        return self._lanes.telemetry(index)

    def episode(self, index: int) -> Episode:
        """What was drawn at the last reset of one environment."""
        if index not in self._episodes:
            raise gym.error.ResetNeeded("call reset() first: no episode has begun")
        return self._episodes[index]


class _Decoder:
    """Reads actions of many environments, setup by setup."""

    def __init__(self, setups: list[Setup]) -> None:
        self._clocks, self._slots = np.zeros((2, len(setups)), np.int64)
        self._groups = []
        for setup in {id(setup): setup for setup in setups}.values():
            rows = np.flatnonzero([other is setup for other in setups])
            clocks_mhz = setup.scenario.gpu_spec.clocks_mhz
            by_level = np.array([clocks_mhz.index(mhz) for mhz in setup.grid.clocks_mhz])
            self._groups.append((rows, setup.codec, by_level))

    def decode(self, actions: Any) -> tuple[IntArray, IntArray]:
        """Indices of clocks and size slots, by environment; the arrays are used again.

        Raises:
            ValueError: An action is not in the space, or there is not one for every environment.
        """
        given = np.asarray(actions)
        if given.shape[:1] != self._slots.shape:
            raise ValueError(f"actions of shape {given.shape}: must be {len(self._slots)} of them")
        for rows, codec, by_level in self._groups:
            levels, slots = codec.decode_many(given if len(self._groups) == 1 else given[rows])
            self._clocks[rows], self._slots[rows] = by_level[levels], slots
        return self._clocks, self._slots


class MOServingVectorEnv(ServingVectorEnv):
    """The same with vector rewards, float32[num_envs, 2]; see `MOServingEnv`."""

    def __init__(self, num_envs: int = 1, render_mode: str | None = None, **options: Any) -> None:
        """See `ServingVectorEnv`."""
        super().__init__(num_envs, render_mode, **options)
        self.reward_dim = len(REWARD_TERMS)
        self.reward_space = gym.spaces.Box(-np.inf, 0.0, (self.reward_dim,), np.float32)

    def _rewards(self, results: NDArray[np.void]) -> Any:
        return np.stack([results[name] for name in REWARD_TERMS], axis=1).astype(np.float32)
