"""A compiled environment is the plain one: to the last bit on the same simulator, almost on the plain one."""

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throttllem_env.envs import ENV_IDS, ServingEnv
from throttllem_env.envs.compiled_run import CompiledRun
from throttllem_env.envs.plain_run import PlainRun
from throttllem_env.scenario import Scenario, WarmUp

from .conftest import MakeEnv, make_trace

DRAWN = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

CASES: dict[str, Any] = {
    "env_id": st.sampled_from(ENV_IDS),
    "seed": st.integers(0, 2**31),
    "load": st.sampled_from([0.3, 1.0, 2.5]),
    "gpus": st.sampled_from([5, 8]),
    "admission": st.sampled_from(["vllm", "projected"]),
    "changes": st.fixed_dictionaries(
        {
            "length_predictor": st.sampled_from(["learned", "noisy-30", "oracle"]),
            "control_period_s": st.sampled_from([0.5, 1.0]),
            "run_in_s": st.sampled_from([0.0, 4.0]),
            "observation": st.sampled_from(["flat", "compact", "dict"]),
            "trace": st.sampled_from(["poisson:duration_s=60", "made"]),
        }
    ),
}


def opened(name: str) -> Any:
    return make_trace(3) if name == "made" else name


def quick(scenario: Scenario, gpus: int, admission: str) -> Scenario:
    """Sizes change within an episode, and there may be too few GPUs to change."""
    warm_up = WarmUp(min_s=0.5, max_s=2.0)
    return scenario.model_copy(update={"gpus_per_node": gpus, "warm_up": warm_up, "admission": admission})


def flattened(observation: Any) -> Any:
    return np.concatenate(list(observation.values())) if isinstance(observation, dict) else observation


def episode(env: ServingEnv, seed: int) -> list[tuple[Any, Any, dict[str, Any]]]:
    """All that an episode of random actions shows; sizes change seldom enough to be carried out."""
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    seen, over, action = [(flattened(observation), np.float64(0), info)], False, env.action_space.sample()
    while not over:
        if len(seen) % 5 == 0:
            action = env.action_space.sample()
        observation, reward, _, over, info = env.step(action)
        seen.append((flattened(observation), reward, info | {"masks": masks(env)}))
    return seen


def masks(env: ServingEnv) -> list[bool]:
    return [] if env.options.actions == "continuous" else env.action_masks().tolist()


@DRAWN
@given(**CASES)
def test_on_the_same_simulator_nothing_differs(
    scenario: Scenario,
    make_env: MakeEnv,
    env_id: str,
    seed: int,
    load: float,
    gpus: int,
    admission: str,
    changes: dict[str, Any],
) -> None:
    options = changes | {"scenario": quick(scenario, gpus, admission), "load": load}
    options["trace"] = opened(options["trace"])
    compiled, plain = make_env(env_id, **options), make_env(env_id, render_mode="ansi", **options)
    for one, other in zip(episode(compiled, seed), episode(plain, seed), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_equal(one[2], other[2])
        assert repr(one[2]) == repr(other[2]), "types and the order of keys, too"
    assert isinstance(compiled._run, CompiledRun)
    assert isinstance(plain._run, PlainRun)


@DRAWN
@given(**CASES)
def test_on_the_plain_simulator_only_joules_are_rounded(
    scenario: Scenario,
    make_env: MakeEnv,
    env_id: str,
    seed: int,
    load: float,
    gpus: int,
    admission: str,
    changes: dict[str, Any],
) -> None:
    options = changes | {"scenario": quick(scenario, gpus, admission), "load": load}
    options["trace"] = opened(options["trace"])
    compiled, plain = make_env(env_id, **options), make_env(env_id, backend="reference", **options)
    for one, other in zip(episode(compiled, seed), episode(plain, seed), strict=True):
        np.testing.assert_array_max_ulp(one[0], other[0], maxulp=1)
        np.testing.assert_allclose(one[1], other[1], rtol=1e-9, atol=1e-12)
        assert_same_info(one[2], other[2])


def assert_same_info(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            assert_same_info(value, other[name])
        elif name in {"power_w", "total_energy_j", "energy_j", "energy"}:
            assert value == pytest.approx(other[name], rel=1e-9, abs=1e-6)
        else:
            np.testing.assert_equal(value, other[name])


def test_telemetry_is_made_when_asked_for(make_env: MakeEnv) -> None:
    compiled, plain = make_env(), make_env(render_mode="ansi")
    for env in (compiled, plain):
        env.reset(seed=4)
    for action in ([15, 2], [3, 1], [9, 0]):
        for env in (compiled, plain):
            env.step(action)
        one, other = compiled.telemetry, plain.telemetry
        assert one is compiled.telemetry
        assert repr(one.active) == repr(other.active)
        assert repr(one.waiting) == repr(other.waiting)
        assert (one.finished, one.power_w, one.previous_s) == (
            other.finished,
            other.power_w,
            other.previous_s,
        )


def test_a_copy_goes_its_own_way(make_env: MakeEnv) -> None:
    """Whoever plans ahead tries actions on copies."""
    env, alone = make_env(), make_env()
    for one in (env, alone):
        one.reset(seed=2)
        one.step([3, 1])
    copied = copy.deepcopy(env)
    for _ in range(3):
        copied.step([15, 2])
    np.testing.assert_equal(env.step([0, 1]), alone.step([0, 1]))
    copied = copy.deepcopy(env)
    del env
    np.testing.assert_equal(copied.step([7, 2]), alone.step([7, 2]))


def test_more_requests_than_there_was_room_for(make_env: MakeEnv) -> None:
    options = {"trace": make_trace(duration_s=12.0, rate_rps=150.0), "load": 30.0, "episode_s": 6.0}
    compiled, plain = make_env(**options), make_env(render_mode="ansi", **options)
    for one, other in zip(episode(compiled, 1), episode(plain, 1), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    assert one[2]["telemetry"]["queue"] > 600
