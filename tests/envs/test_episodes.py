"""How an episode runs: time, truncation, determinism, options of an episode."""

import hashlib
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from throttllem_env.envs import ServingEnv
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.scenario import Scenario

from .conftest import MakeEnv, make_trace


def trajectory(env: ServingEnv, seed: int, actions_seed: int = 0) -> str:
    """Hash everything that an episode shows."""
    rng = np.random.default_rng(actions_seed)
    digest = hashlib.sha256()
    observation, info = env.reset(seed=seed)
    truncated = False
    while not truncated:
        digest.update(observation.tobytes() + repr(info).encode())
        action = [rng.integers(16), rng.integers(4)]
        observation, reward, _, truncated, info = env.step(action)
        digest.update(np.float64(reward).tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("env_id", ["ThrottLLeM/Serving-v0", "ThrottLLeM/ServingEvents-v0"])
def test_same_seed_same_trajectory(env_id: str, make_env: MakeEnv) -> None:
    first, second = make_env(env_id), make_env(env_id)
    one = trajectory(first, seed=1)
    assert one == trajectory(second, seed=1)
    assert one != trajectory(second, seed=2)
    assert one == trajectory(second, seed=1), "an earlier episode left a trace"


def test_synthetic_traces_are_drawn_from_the_seed(make_env: MakeEnv) -> None:
    first, second = (make_env(trace="poisson:duration_s=200", length_predictor="noisy-30") for _ in range(2))
    assert trajectory(first, 3) == trajectory(second, 3) != trajectory(second, 4)


def test_episodes_differ_without_a_seed_but_repeat_as_a_sequence(make_env: MakeEnv) -> None:
    def three(env: ServingEnv) -> list[list[float]]:
        return [env.reset(seed=seed)[0].tolist() for seed in (9, None, None)]

    one = three(make_env())
    assert one == three(make_env())
    assert one[1] != one[2]


def test_truncated_at_the_horizon_and_never_terminated(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset(seed=0)
    ends = [env.step([15, 2])[2:4] for _ in range(8)]
    assert ends == [(False, False)] * 7 + [(False, True)]
    assert env.telemetry.time_s >= 12.0
    with pytest.raises(gym.error.ResetNeeded, match="over"):
        env.step([15, 2])


def test_control_points_lie_on_a_grid(make_env: MakeEnv) -> None:
    env = make_env(control_period_s=2.0)
    _, info = env.reset(seed=0)
    infos = [info, *(env.step([0, 2])[4] for _ in range(4))]
    assert [int(i["telemetry"]["time_s"] // 2) for i in infos] == [2, 3, 4, 5, 6]


def test_elapsed_time_adds_up(make_env: MakeEnv) -> None:
    env = make_env("ThrottLLeM/ServingEvents-v0")
    _, info = env.reset(seed=0)
    now_s, truncated = info["telemetry"]["time_s"], False
    while not truncated:
        *_, truncated, info = env.step([8, 2])
        assert info["elapsed_s"] > 0
        now_s += info["elapsed_s"]
    assert now_s == pytest.approx(info["telemetry"]["time_s"])


def test_event_control_stops_at_arrivals_and_completions(make_env: MakeEnv) -> None:
    env = make_env("ThrottLLeM/ServingEvents-v0", gamma=0.9)
    env.reset(seed=0)
    early, truncated = 0, False
    while not truncated:
        *_, truncated, info = env.step([15, 2])
        numbers = info["telemetry"]
        if info["elapsed_s"] < 0.5:
            early += 1
            assert numbers["arrived"] or numbers["completed"] or numbers["time_s"] % 1.0 < 0.5
        assert info["discount"] == pytest.approx(0.9 ** info["elapsed_s"])
    assert early > 10


def test_discount_is_gamma_per_period_without_events(make_env: MakeEnv) -> None:
    env = make_env(gamma=0.9)
    env.reset(seed=0)
    assert env.step([15, 2])[4]["discount"] == 0.9


def test_a_trace_shorter_than_the_episode_is_served_whole(make_env: MakeEnv) -> None:
    env = make_env(trace=make_trace(duration_s=3.0), load=0.5, episode_s=30.0, run_in_s=0.0)
    env.reset(seed=0)
    arrived, steps, truncated = 0, 0, False
    while not truncated:
        *_, truncated, info = env.step([15, 2])
        arrived, steps = arrived + info["telemetry"]["arrived"], steps + 1
    assert (arrived + 1, steps) in {(18, 30), (19, 30)}  # one may arrive at the very start


def test_length_predictors_that_look_see_the_requests_of_their_episode(make_env: MakeEnv) -> None:
    env = make_env(length_predictor="oracle", backend="reference")
    env.reset(seed=3)
    run: Any = env._run
    lengths = run._observation._forecaster.lengths
    assert isinstance(lengths, OracleLengths)
    np.testing.assert_array_equal(lengths.table.by_request, run._backend._trace.output_tokens)


def test_projected_admission_is_served(scenario: Scenario, make_env: MakeEnv) -> None:
    env = make_env(scenario=scenario.model_copy(update={"admission": "projected"}))
    assert trajectory(env, 0) == trajectory(env, 0) != trajectory(make_env(), 0)


def test_closing_twice_is_fine_and_reset_opens_again(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(gym.error.ResetNeeded):
        env.step([0, 0])
    env.reset(seed=0)
    env.step([0, 0])


def test_nothing_can_be_asked_before_reset(make_env: MakeEnv) -> None:
    env = make_env()
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        env.step([0, 0])
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        env.action_masks()
