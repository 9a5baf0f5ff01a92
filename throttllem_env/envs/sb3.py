"""The native vector environment as Stable-Baselines3 wants it; importing this imports Stable-Baselines3."""

import time
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from throttllem_env.envs.actions import ActionGrid
from throttllem_env.envs.options import EnvOptions
from throttllem_env.envs.vector_env import MOServingVectorEnv, ServingVectorEnv
from throttllem_env.scenario import Scenario
from throttllem_env.slo import Slo
from throttllem_env.types import BoolArray, Telemetry

Indices = int | Iterable[int] | None


class ServingVecEnv(VecEnv):
    """All environments of a `ServingVectorEnv`, without a Python object per environment and step.

    Infos hold `cost` and `energy_j` of the step and, where an episode is over, `terminal_observation`,
    `TimeLimit.truncated`, and what `Monitor` would say of it (`episode`).

    Attributes:
        envs: What is adapted.

    Example:
        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO  # doctest: +SKIP
        >>> envs = gym.make_vec("throttllem_env:ThrottLLeM/Serving-v0", num_envs=16)  # doctest: +SKIP
        >>> PPO("MlpPolicy", ServingVecEnv(envs)).learn(100_000)  # doctest: +SKIP
    """

    def __init__(self, envs: ServingVectorEnv) -> None:
        """Adapt.

        Raises:
            ValueError: Its rewards are vectors.
        """
        if isinstance(envs, MOServingVectorEnv):
            raise ValueError("MOServing: rewards are vectors; take one of the other environments")
        self.envs = envs
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
        observations, rewards, _, over, infos = self.envs.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        cost, energy_j = self._step_numbers(infos, over)
        listed: list[dict[str, Any]] = [
            {"TimeLimit.truncated": False, "cost": c, "energy_j": j}
            for c, j in zip(cost.tolist(), energy_j.tolist(), strict=True)
        ]
        for index in np.flatnonzero(over).tolist():
            listed[index] |= self._ended(index, infos)
        return observations, rewards.astype(np.float32), over, listed

    @staticmethod
    def _step_numbers(infos: dict[str, Any], over: BoolArray) -> list[NDArray[np.float64]]:
        """Cost and energy of this step, whether or not an episode is over with it."""
        if not over.any():
            return [infos["cost"], infos["energy_j"]]
        last = infos["final_info"]
        return [np.where(over, last[name], infos.get(name, 0.0)) for name in ("cost", "energy_j")]

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
