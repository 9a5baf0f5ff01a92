"""The adapter shows SB3 what its own adapter shows, and every kind of learner takes it."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from throttllem_env.envs import ServingVectorEnv
from throttllem_env.envs.sb3 import ServingVecEnv

Keywords = dict[str, Any]


def adapted(env_id: str, num_envs: int, **keywords: Any) -> ServingVecEnv:
    envs = gym.make_vec(f"ThrottLLeM/{env_id}-v0", num_envs=num_envs, **keywords)
    assert isinstance(envs, ServingVectorEnv)
    return ServingVecEnv(envs)


@pytest.mark.parametrize("observation", ["flat", "dict"])
def test_it_shows_what_environments_one_after_another_show(keywords: Keywords, observation: str) -> None:
    options = keywords | {"episode_s": 3.0, "observation": observation}
    ours = adapted("Serving", 3, **options)
    theirs = DummyVecEnv([lambda: Monitor(gym.make("ThrottLLeM/Serving-v0", **options))] * 3)
    for env in (ours, theirs):
        env.seed(4)
    np.testing.assert_equal(ours.reset(), theirs.reset())
    rng = np.random.default_rng(0)
    for _ in range(8):
        actions = rng.integers([16, 4], size=(3, 2))
        (seen, rewards, over, infos), (shown, given, done, notes) = ours.step(actions), theirs.step(actions)
        np.testing.assert_equal(seen, shown)
        np.testing.assert_array_equal(rewards, given)
        np.testing.assert_array_equal(over, done)
        assert (rewards.dtype, over.dtype) == (given.dtype, done.dtype)
        for info, note in zip(infos, notes, strict=True):
            compare(info, note)


def compare(info: Keywords, note: Keywords) -> None:
    for name in ("TimeLimit.truncated", "cost", "energy_j"):
        assert info[name] == note[name]
    assert ("episode" in info) == ("episode" in note)
    if "episode" in info:
        np.testing.assert_equal(info["terminal_observation"], note["terminal_observation"])
        assert [info["episode"][k] for k in "rl"] == [note["episode"][k] for k in "rl"]
        assert info["episode"]["t"] > 0


def test_attributes_and_methods_of_single_environments(keywords: Keywords) -> None:
    env = adapted("ServingDiscrete", 3, **keywords | {"load": [0.5, 1.0, 2.0]})
    env.seed(0)
    env.reset()
    assert [o.load for o in env.get_attr("options")] == [0.5, 1.0, 2.0]
    assert env.get_attr("telemetry", indices=2)[0].time_s >= 4.0
    assert env.get_attr("scenario", [0, 1])[1].name == "llama2-13b-a100"
    np.testing.assert_array_equal(env.env_method("action_masks"), env.envs.action_masks())
    np.testing.assert_array_equal(env.env_method("action_masks", indices=1)[0], env.envs.action_masks()[1])
    env.set_attr("difficulty", 3, indices=[1])
    assert env.get_attr("difficulty", 1) == [3]
    assert env.has_attr("action_masks")
    assert not env.has_attr("difficulty"), "only one has it"
    with pytest.raises(AttributeError):
        env.set_attr("slo", None)
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(gym.wrappers.TimeLimit, indices=0) == [False]


def test_seeds_are_used_once(keywords: Keywords) -> None:
    env = adapted("Serving", 2, **keywords)
    env.seed(3)
    first, second = env.reset(), env.reset()
    env.seed(3)
    np.testing.assert_array_equal(env.reset(), first)
    assert not np.array_equal(first, second)


def test_vector_rewards_are_refused(keywords: Keywords) -> None:
    with pytest.raises(ValueError, match="rewards are vectors"):
        adapted("MOServing", 2, **keywords)


def tiny() -> Keywords:
    """A small net; SB3 writes into what it is given."""
    return {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0}


OFF_POLICY: Keywords = {"learning_starts": 32, "batch_size": 16, "buffer_size": 500}


@pytest.mark.parametrize(
    ("learner", "env_id", "settings"),
    [
        (PPO, "Serving", {"n_steps": 16, "batch_size": 32, "n_epochs": 1}),
        (PPO, "ServingEvents", {"n_steps": 16, "batch_size": 32, "n_epochs": 1}),
        (MaskablePPO, "ServingDiscrete", {"n_steps": 16, "batch_size": 32, "n_epochs": 1}),
        (MaskablePPO, "Serving", {"n_steps": 16, "batch_size": 32, "n_epochs": 1}),
        (DQN, "ServingDiscrete", OFF_POLICY),
        (SAC, "ServingContinuous", OFF_POLICY),
    ],
)
def test_learners_take_it(keywords: Keywords, learner: Any, env_id: str, settings: Keywords) -> None:
    env = adapted(env_id, 4, **keywords)
    model = learner(env=env, **tiny(), **settings)
    model.learn(256)
    assert model.num_timesteps >= 256
    # Learners have seen how episodes of 8 s went, events or not.
    assert len(model.ep_info_buffer) >= 4
    assert all(episode["l"] >= 8 and episode["r"] < 0 for episode in model.ep_info_buffer)
    if learner is MaskablePPO:
        assert all(t.ignored_actions == 0 for t in env.get_attr("telemetry"))
        assert env.envs._results["masked_actions"].sum() == 0


def test_a_policy_can_be_evaluated(keywords: Keywords) -> None:
    env = adapted("Serving", 2, **keywords)
    model = PPO(env=env, **tiny(), n_steps=8, batch_size=16)
    mean, spread = evaluate_policy(model, env, n_eval_episodes=4)
    assert mean < 0 <= spread
