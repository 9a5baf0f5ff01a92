"""A scenario with set targets and a small trace, so that no test depends on frozen numbers."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import throttllem_env
from throttllem_env.envs import ServingEnv
from throttllem_env.scenario import RatedLoad, Scenario, SloConfig, load_scenario
from throttllem_env.traces import Trace

throttllem_env.register_envs()

MakeEnv = Callable[..., ServingEnv]


def make_trace(seed: int = 0, duration_s: float = 120.0, rate_rps: float = 6.0) -> Trace:
    rng = np.random.default_rng(seed)
    count = int(duration_s * rate_rps)
    arrival_s = np.sort(rng.uniform(0.0, duration_s, count))
    prompt = np.clip(rng.lognormal(6.5, 0.9, count), 1, 2000).astype(np.int64)
    output = np.clip(rng.lognormal(5.0, 0.7, count), 1, 800).astype(np.int64)
    return Trace(arrival_s, prompt, output, "made", duration_s)


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    rated = RatedLoad(requests_rps={1: 0.5, 2: 3.0, 4: 7.0}, reference_power_w=900.0)
    return load_scenario("llama2-13b-a100").model_copy(update={"slo": SloConfig(e2e_s=25.0), "rated": rated})


@pytest.fixture(scope="session")
def trace() -> Trace:
    return make_trace()


@pytest.fixture
def keywords(scenario: Scenario, trace: Trace) -> dict[str, Any]:
    """Keywords of a short episode."""
    return {"scenario": scenario, "trace": trace, "episode_s": 8.0, "run_in_s": 4.0}


@pytest.fixture
def make_env(keywords: dict[str, Any]) -> MakeEnv:
    """Make the bare environment, short episodes by default."""

    def make(env_id: str = "ThrottLLeM/Serving-v0", **changes: Any) -> ServingEnv:
        env = gym.make(env_id, disable_env_checker=True, **keywords | changes).unwrapped
        assert isinstance(env, ServingEnv)
        return env

    return make
