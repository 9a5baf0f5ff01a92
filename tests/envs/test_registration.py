"""The ids are found however people find them."""

import subprocess
import sys

import gymnasium as gym
import pytest

import throttllem_env
from throttllem_env.envs import ENV_IDS


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_registers_every_id() -> None:
    code = "import throttllem_env, gymnasium as g; print(*[i for i in g.registry if i[:11] == 'ThrottLLeM/'])"
    assert set(run(code).split()) == set(ENV_IDS)


def test_registering_again_changes_nothing() -> None:
    before = {env_id: gym.spec(env_id) for env_id in ENV_IDS}
    throttllem_env.register_envs()
    assert all(gym.spec(env_id) is spec for env_id, spec in before.items())


def test_a_module_prefix_is_enough_and_defaults_are_those_of_the_plan() -> None:
    code = (
        "import gymnasium as g\n"
        "e = g.make('throttllem_env:ThrottLLeM/Serving-v0').unwrapped\n"
        "o = e.options\n"
        "print(e.action_space, e.scenario.name, o.trace, o.control_period_s, o.episode_s, o.run_in_s)\n"
        "_, info = e.reset(seed=0)\n"
        "t = info['telemetry']\n"
        "print(t['time_s'] >= 30, t['target_mhz'] == e.scenario.top_mhz, t['size'] == e.scenario.sizes[-1])"
    )
    first, second = run(code).splitlines()
    assert first == "MultiDiscrete([16  4]) llama2-13b-a100 azure-conv-like 1.0 300.0 30.0"
    assert second == "True True True"


def test_lazy_names_are_there_and_others_are_not() -> None:
    from throttllem_env import envs

    assert all(getattr(envs, name) for name in envs.__all__)
    with pytest.raises(AttributeError, match="Observatoin"):
        _ = envs.Observatoin  # type: ignore[attr-defined]
