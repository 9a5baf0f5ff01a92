"""Gymnasium's and SB3's checkers, MO-Gymnasium's convention, and an agent that learns for a moment."""

import warnings
from typing import Any

import gymnasium as gym
import mo_gymnasium.wrappers
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_with_gymnasium
from sb3_contrib import MaskablePPO
from stable_baselines3.common.env_checker import check_env as check_with_sb3

from throttllem_env.envs import ENV_IDS, MOServingEnv, ServingEnv

SCALAR_IDS = [env_id for env_id in ENV_IDS if "MOServing" not in env_id]


@pytest.mark.parametrize("env_id", SCALAR_IDS)
def test_both_checkers_pass(env_id: str, keywords: dict[str, Any]) -> None:
    keywords = keywords | {"episode_s": 3.0}
    check_with_gymnasium(gym.make(env_id, **keywords).unwrapped)
    check_with_sb3(gym.make(env_id, **keywords))


@pytest.mark.parametrize("kind", ["dict", "compact"])
def test_both_checkers_pass_on_other_observations(kind: str, keywords: dict[str, Any]) -> None:
    env = gym.make("ThrottLLeM/Serving-v0", observation=kind, **keywords)
    check_with_gymnasium(env.unwrapped, skip_render_check=True)
    check_with_sb3(env)


class Summed(gym.RewardWrapper[Any, Any], gym.utils.RecordConstructorArgs):
    """A scalar reward. (LinearReward shares its weights between infos, which the checker refuses.)"""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def reward(self, reward: Any) -> float:
        return float(np.sum(reward))


def test_both_checkers_pass_on_the_scalarised_vector_reward(keywords: dict[str, Any]) -> None:
    env = Summed(gym.make("ThrottLLeM/MOServing-v0", **keywords))
    check_with_sb3(env)
    with warnings.catch_warnings():
        # Gymnasium's checker wants bare environments; a vector reward needs the wrapper.
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_with_gymnasium(env, skip_render_check=True)


def test_linear_reward_is_the_scalar_reward(keywords: dict[str, Any]) -> None:
    scalar = gym.make("ThrottLLeM/Serving-v0", **keywords)
    vector = mo_gymnasium.wrappers.LinearReward(gym.make("ThrottLLeM/MOServing-v0", **keywords))
    scalar.reset(seed=0)
    vector.reset(seed=0)
    for _ in range(4):
        assert vector.step([3, 2])[1] == pytest.approx(scalar.step([3, 2])[1], rel=1e-6)


def test_the_vector_reward_follows_the_convention(keywords: dict[str, Any]) -> None:
    env = mo_gymnasium.make("ThrottLLeM/MOServing-v0", **keywords)
    unwrapped = env.unwrapped
    assert isinstance(unwrapped, MOServingEnv)
    assert unwrapped.reward_space.shape == (unwrapped.reward_dim,) == (2,)
    env.reset(seed=0)
    for _ in range(4):
        _, reward, _, _, info = env.step([3, 2])
        assert unwrapped.reward_space.contains(reward)
        assert reward == pytest.approx(list(info["reward_terms"].values()), rel=1e-6)


def test_maskable_ppo_trains_and_never_takes_a_masked_action(keywords: dict[str, Any]) -> None:
    # Longer than the training, so that the count below covers all of it.
    env = gym.make("ThrottLLeM/ServingDiscrete-v0", **keywords | {"episode_s": 40.0})
    model = MaskablePPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")
    model.learn(16)
    unwrapped = env.unwrapped
    assert isinstance(unwrapped, ServingEnv)
    assert unwrapped.telemetry.time_s > 15
    assert unwrapped._current().result.masked_actions == 0


def test_vectorised_equals_single(keywords: dict[str, Any]) -> None:
    vector = gym.make_vec("ThrottLLeM/Serving-v0", 2, "sync", **keywords)
    single = gym.make("ThrottLLeM/Serving-v0", **keywords)
    seen, _ = vector.reset(seed=5)
    alone, _ = single.reset(seed=6)
    np.testing.assert_array_equal(seen[1], alone)
    for action in ([2, 2], [15, 1], [7, 3]):
        seen, rewards, *_ = vector.step(np.array([action, action]))
        alone, reward, *_ = single.step(np.array(action))
        np.testing.assert_array_equal(seen[1], alone)
        assert rewards[1] == reward
    vector.close()
