"""The native vector environment as Stable-Baselines3 wants it; importing this imports Stable-Baselines3."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from throttllem_env.envs.actions import ActionGrid
from throttllem_env.envs.options import EnvOptions
from throttllem_env.envs.reward import REWARD_TERMS
from throttllem_env.envs.vector_env import MOServingVectorEnv, ServingVectorEnv
from throttllem_env.scenario import Scenario
from throttllem_env.slo import Slo
from throttllem_env.types import BoolArray, Telemetry

Indices = int | Iterable[int] | None

STEP_INFOS = ("cost", "energy_j", "elapsed_s", "arrived")
"""What the info of a step holds."""


class ServingVecEnv(VecEnv):
    """All environments of a `ServingVectorEnv`, without a Python object per environment and step.

    Infos hold `cost`, `energy_j`, `elapsed_s` and `arrived` of the step and, where an episode is over,
    `terminal_observation`, `TimeLimit.truncated`, and what `Monitor` would say of it (`episode`). Vector
    rewards are weighted and summed, and stand in `vector_reward`.

    Attributes:
        envs: What is adapted.

    Example:
        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO  # doctest: +SKIP
        >>> envs = gym.make_vec("throttllem_env:ThrottLLeM/Serving-v0", num_envs=16)  # doctest: +SKIP
        >>> PPO("MlpPolicy", ServingVecEnv(envs)).learn(100_000)  # doctest: +SKIP
    """

    def __init__(self, envs: ServingVectorEnv, weights: Sequence[float] | None = None) -> None:
        """Adapt.

        Args:
            envs: What is adapted.
            weights: What the terms of a vector reward (`REWARD_TERMS`) weigh; None where rewards are numbers.

        Raises:
            ValueError: Its rewards are vectors and there are no weights, or the other way round.
        """
        vectors = isinstance(envs, MOServingVectorEnv)
        if vectors and weights is None:
            raise ValueError("MOServing: rewards are vectors; give weights, or take another environment")
        if weights is not None and (not vectors or len(weights) != len(REWARD_TERMS)):
            raise ValueError(f"weights = {weights}: must be {len(REWARD_TERMS)} of them, for MOServing alone")
        self.envs, self._weights = envs, None if weights is None else np.array(weights, np.float64)
        self._single = [SingleView(envs, index) for index in range(envs.num_envs)]
        self._returns, self._lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, np.int64)
        self._started_s = time.perf_counter()
        self._actions: Any = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Any:
        """Begin an episode in every environment, with the seeds given to `seed`; returns observations."""
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        observations, _ = self.envs.reset(seed=seeds)
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0.0
        self._lengths[:] = 0
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take note of actions."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], BoolArray, list[dict[str, Any]]]:
        """Serve until the next control points: observations, rewards, whether episodes are over, infos."""
        observations, given, _, over, infos = self.envs.step(self._actions)
        rewards = given if self._weights is None else given @ self._weights
        self._returns += rewards
        self._lengths += 1
        columns = [column.tolist() for column in self._step_numbers(infos, over)]
        listed: list[dict[str, Any]] = [
            {"TimeLimit.truncated": False, **dict(zip(STEP_INFOS, row, strict=True))}
            for row in zip(*columns, strict=True)
        ]
        if self._weights is not None:
            for info, vector in zip(listed, given, strict=True):
                info["vector_reward"] = vector
        for index in np.flatnonzero(over).tolist():
            listed[index] |= self._ended(index, infos)
        return observations, rewards.astype(np.float32), over, listed

    @staticmethod
    def _step_numbers(infos: dict[str, Any], over: BoolArray) -> list[NDArray[Any]]:
        """What `STEP_INFOS` names, of this step, whether or not an episode is over with it."""

        def column(source: dict[str, Any], name: str) -> Any:
            return source["telemetry"][name] if name == "arrived" else source.get(name, 0.0)

        if not over.any():
            return [column(infos, name) for name in STEP_INFOS]
        last = infos["final_info"]
        return [np.where(over, column(last, name), column(infos, name)) for name in STEP_INFOS]

    def _ended(self, index: int, infos: dict[str, Any]) -> dict[str, Any]:
        """What is said of an episode that is over; its sums start anew."""
        episode = {
            "r": round(float(self._returns[index]), 6),
            "l": int(self._lengths[index]),
            "t": round(time.perf_counter() - self._started_s, 6),
        }
        self._returns[index], self._lengths[index] = 0.0, 0
        final = infos["final_obs"][index]
        return {"TimeLimit.truncated": True, "terminal_observation": final, "episode": episode}

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute of `SingleView`, for every environment named."""
        return [getattr(single, attr_name) for single in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Note something of one's own; what the environments show cannot be set."""
        for single in self._chosen(indices):
            setattr(single, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Indices = None, **keywords: Any) -> list[Any]:
        """Call a method of `SingleView`, for every environment named."""
        if method_name == "action_masks":
            masks = self.envs.action_masks()  # of all at once
            return [masks[single.index] for single in self._chosen(indices)]
        return [getattr(single, method_name)(*args, **keywords) for single in self._chosen(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Indices = None
    ) -> list[bool]:
        """Whether what a wrapper adds is there: that of `Monitor` is."""
        return [issubclass(Monitor, wrapper_class) for _ in self._chosen(indices)]

    def _chosen(self, indices: Indices) -> list["SingleView"]:
        return [self._single[index] for index in self._get_indices(indices)]


class SingleView:
    """What a `ServingEnv` would show of itself, for one environment among many.

    Attributes:
        index: Which one.
        render_mode: None: many environments are not drawn.
    """

    render_mode: str | None = None

    def __init__(self, envs: ServingVectorEnv, index: int) -> None:
        """Look at an environment."""
        self._envs, self.index = envs, index

    @property
    def options(self) -> EnvOptions:
        """What the user chose."""
        return self._envs.setups[self.index].options

    @property
    def scenario(self) -> Scenario:
        """What is served on what."""
        return self._envs.setups[self.index].scenario

    @property
    def slo(self) -> Slo:
        """The targets."""
        return self._envs.setups[self.index].slo

    @property
    def grid(self) -> ActionGrid:
        """Clocks by level and sizes by slot."""
        return self._envs.setups[self.index].grid

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Names of the features."""
        return self._envs.observation_names

    @property
    def telemetry(self) -> Telemetry:
        """What a live server knows now."""
        return self._envs.telemetry(self.index)

    def action_masks(self) -> BoolArray:
        """Which actions are physically possible now."""
        masks: BoolArray = self._envs.action_masks()[self.index]
        return masks
