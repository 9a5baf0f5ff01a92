"""Many environments in one are single ones side by side, to the last bit and in Gymnasium's layout."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throttllem_env.envs import ENV_IDS, MOServingVectorEnv, OptionError, ServingVectorEnv
from throttllem_env.scenario import Scenario, WarmUp, load_scenario

from .conftest import make_trace

Keywords = dict[str, Any]
SCALAR_IDS = [env_id for env_id in ENV_IDS if "MOServing" not in env_id]
TRACES = {"synthetic": "poisson:duration_s=60", "made": make_trace(3), "short": make_trace(5, duration_s=5.0)}


@pytest.fixture
def short(keywords: Keywords, scenario: Scenario) -> Keywords:
    """Episodes of a few steps, in which sizes change."""
    quick = scenario.model_copy(update={"warm_up": WarmUp(min_s=0.5, max_s=2.0)})
    return keywords | {"scenario": quick, "episode_s": 4.0}


def native(env_id: str, num_envs: int, **keywords: Any) -> ServingVectorEnv:
    envs = gym.make_vec(env_id, num_envs=num_envs, **keywords)
    assert isinstance(envs, ServingVectorEnv)
    return envs


def side_by_side(env_id: str, num_envs: int, **keywords: Any) -> VectorEnv[Any, Any, Any]:
    """Gymnasium's own: single environments, one after another."""
    return gym.make_vec(
        env_id, num_envs, "sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}, **keywords
    )


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    env_id=st.sampled_from(SCALAR_IDS),
    seed=st.integers(0, 2**31),
    load=st.sampled_from([0.3, 1.0, 3.0]),
    trace=st.sampled_from(list(TRACES)),
    changes=st.fixed_dictionaries(
        {
            "length_predictor": st.sampled_from(["learned", "noisy-30"]),
            "observation": st.sampled_from(["flat", "compact", "dict"]),
            "run_in_s": st.sampled_from([0.0, 2.0]),
        }
    ),
)
def test_all_that_is_seen_is_what_single_environments_show(
    short: Keywords, env_id: str, seed: int, load: float, trace: str, changes: Keywords
) -> None:
    options = short | changes | {"load": load, "trace": TRACES[trace]}
    one, other = native(env_id, 3, **options), side_by_side(env_id, 3, **options)
    np.testing.assert_equal(one.reset(seed=seed), other.reset(seed=seed))
    one.action_space.seed(seed)
    for step in range(12):
        if step % 3 == 0:
            actions = one.action_space.sample()
        seen, shown = one.step(actions), other.step(actions)
        assert set(seen[4]) == set(shown[4])
        # NumPy compares no arrays of arrays, but lists of them.
        for infos in (seen[4], shown[4]):
            infos["final_obs"] = list(infos.get("final_obs", []))
        np.testing.assert_equal(seen, shown)
        assert [part.dtype for part in seen[1:4]] == [part.dtype for part in shown[1:4]]


def test_episodes_end_at_different_times(short: Keywords) -> None:
    options = short | {"control": "events", "load": [0.3, 1.0, 3.0, 1.0]}
    envs = native("ThrottLLeM/Serving-v0", 4, **options)
    alone = [gym.make("ThrottLLeM/Serving-v0", **options | {"load": load}) for load in (0.3, 1.0, 3.0, 1.0)]
    envs.reset(seed=7)
    for i, env in enumerate(alone):
        env.reset(seed=7 + i)
    ends = set()
    for _ in range(200):
        observations, rewards, _, over, infos = envs.step(np.full((4, 2), [9, 2]))
        assert set(infos) >= {"telemetry", "cost", "_cost"}
        for i, env in enumerate(alone):
            observation, reward, _, truncated, info = env.step(np.array([9, 2]))
            assert (rewards[i], over[i]) == (reward, truncated)
            assert infos["_cost"][i] == (not truncated)
            if truncated:
                np.testing.assert_array_equal(infos["final_obs"][i], observation)
                assert infos["final_info"]["cost"][i] == info["cost"]
                observation, _ = env.reset()
            np.testing.assert_array_equal(observations[i], observation)
        ends.add(tuple(over.tolist()))
    assert len(ends) > 2, "some end while others go on"


def test_vector_rewards_and_their_convention(short: Keywords) -> None:
    envs = native("ThrottLLeM/MOServing-v0", 2, **short)
    single = gym.make("ThrottLLeM/MOServing-v0", **short)
    assert isinstance(envs, MOServingVectorEnv)
    assert envs.reward_space.shape == (envs.reward_dim,) == (2,)
    envs.reset(seed=1)
    single.reset(seed=2)
    for _ in range(3):
        rewards = envs.step(np.array([[3, 2], [5, 1]]))[1]
        assert rewards.dtype == np.float32
        np.testing.assert_array_equal(rewards[1], single.step(np.array([5, 1]))[1])


def test_every_step_returns_new_arrays(short: Keywords) -> None:
    envs = native("ThrottLLeM/Serving-v0", 2, **short)
    envs.reset(seed=0)
    seen = [envs.step(np.array([[3, 2], [5, 1]])) for _ in range(2)]
    kept = seen[0][0].copy(), seen[0][1].copy(), seen[0][4]["telemetry"]["time_s"].copy()
    envs.step(np.array([[0, 0], [0, 0]]))
    for before, after in zip(kept, (seen[0][0], seen[0][1], seen[0][4]["telemetry"]["time_s"]), strict=True):
        np.testing.assert_array_equal(before, after)


def test_masks_are_those_of_single_environments(short: Keywords) -> None:
    envs = native("ThrottLLeM/ServingDiscrete-v0", 3, **short)
    others = side_by_side("ThrottLLeM/ServingDiscrete-v0", 3, **short)
    assert isinstance(others, SyncVectorEnv)
    envs.reset(seed=0)
    others.reset(seed=0)
    seen = set()
    for action in (0, 0, 41, 22, 0, 0):
        envs.step(np.full(3, action))
        others.step(np.full(3, action))
        masks = envs.action_masks()
        assert masks.dtype == np.bool_
        np.testing.assert_array_equal(masks, np.array(others.call("action_masks")))
        seen.add(masks.tobytes())
    assert len(seen) > 1


def test_options_may_differ_by_environment(short: Keywords, scenario: Scenario) -> None:
    small = load_scenario("llama3-8b-a100").model_copy(update={"rated": scenario.rated, "slo": scenario.slo})
    scenarios = [short["scenario"], small, short["scenario"]]
    options = short | {"scenario": scenarios, "slo_scale": [1.0, 2.0, 1.0], "trace": [*TRACES.values()]}
    options["actions"] = "continuous"
    envs = native("ThrottLLeM/Serving-v0", 3, **options)
    envs.reset(seed=[5, None, 6])
    actions = np.array([[0.1, 0.9], [-0.3, 0.4], [1.0, -1.0]], np.float32)
    observations = [envs.step(actions)[0] for _ in range(3)]
    alone = gym.make(
        "ThrottLLeM/Serving-v0", **options | {k: options[k][2] for k in ("scenario", "slo_scale", "trace")}
    )
    alone.reset(seed=6)
    for seen in observations:
        np.testing.assert_array_equal(seen[2], alone.step(actions[2])[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"load": [1.0, 0.5]}, "load has 2 values: must be one, or num_envs = 3"),
        ({"clock_levels": [16, 8, 16]}, r"environment 1: action_space = .*8.*as in environment 0"),
        ({"observation": ["flat", "flat", "compact"]}, "environment 2: observation_space"),
        ({"laod": 1.0}, "option 'laod': unknown"),
        ({"backend": "reference"}, "environment 0: backend = reference: must be simulator"),
        ({"render_mode": "ansi"}, "vectorization_mode"),
    ],
)
def test_what_does_not_go_together_is_named(short: Keywords, changes: Keywords, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        native("ThrottLLeM/Serving-v0", 3, **short | changes)


@pytest.mark.parametrize(
    ("env_id", "actions", "message"),
    [
        ("Serving", [[1, 2]], "must be 2 of them"),
        ("Serving", [[1, 2], [16, 0]], r"actions\[1\]\[0\] = 16: .*the nearest is 15"),
        ("Serving", [[1, 2], [0.5, 0]], r"actions\[1\]\[0\] = 0.5"),
        ("Serving", [1, 2], "a clock level and a size slot each"),
        ("ServingDiscrete", [3, 64], r"actions\[1\] = 64: .*below 64"),
        ("ServingDiscrete", [[3], [6]], "a whole number each"),
        ("ServingContinuous", [[0, 0], [np.nan, 0]], "two finite numbers"),
    ],
)
def test_actions_outside_the_space_are_refused(
    short: Keywords, env_id: str, actions: list[Any], message: str
) -> None:
    envs = native(f"ThrottLLeM/{env_id}-v0", 2, **short)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        envs.step(np.array(actions))


def test_a_mask_leaves_the_others_where_they_are(short: Keywords) -> None:
    envs = native("ThrottLLeM/Serving-v0", 2, **short)
    with pytest.raises(gym.error.ResetNeeded):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset(seed=0)
    envs.step(np.array([[3, 2], [5, 1]]))
    _, infos = envs.reset(seed=3, options={"reset_mask": np.array([True, False])})
    assert infos["telemetry"]["time_s"].tolist()[1] == 0.0
    assert infos["_telemetry"].tolist() == [True, False]
    assert [int(envs.telemetry(i).time_s) for i in range(2)] == [4, 5]


def test_nothing_can_be_asked_before_reset(short: Keywords) -> None:
    envs = native("ThrottLLeM/Serving-v0", 2, **short)
    for ask in (envs.action_masks, lambda: envs.telemetry(0), lambda: envs.step(np.zeros((2, 2)))):
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            ask()
    with pytest.raises(ValueError, match="seed has 3 values"):
        envs.reset(seed=[1, 2, 3])
