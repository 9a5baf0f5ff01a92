"""A trained model is a controller: without torch, without pickles, and only where it fits."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import QRDQN, MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.vec_env import VecNormalize

from throttllem_env.agents.learned.deciders import describe_grid
from throttllem_env.agents.learned.export import exported_network, head_of
from throttllem_env.agents.learned.loading import controller_of
from throttllem_env.agents.learned.policy_file import PolicyFile, read_policy
from throttllem_env.controller import Assignment, ControllerError, make_controller
from throttllem_env.envs import ServingEnv, ServingVectorEnv, register_envs
from throttllem_env.envs.actions import available_sizes, target_size
from throttllem_env.envs.sb3 import ServingVecEnv
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.types import Action

register_envs()

LEARNERS = {
    "ppo": (PPO, "Serving", "MlpPolicy", {"n_steps": 8, "batch_size": 16}),
    "ppo-discrete": (PPO, "ServingDiscrete", "MlpPolicy", {"n_steps": 8, "batch_size": 16}),
    "ppo-continuous": (PPO, "ServingContinuous", "MlpPolicy", {"n_steps": 8, "batch_size": 16}),
    "maskable-ppo": (MaskablePPO, "Serving", "MlpPolicy", {"n_steps": 8}),
    "recurrent-ppo": (RecurrentPPO, "Serving", "MlpLstmPolicy", {"n_steps": 8}),
    "dqn": (DQN, "ServingDiscrete", "MlpPolicy", {"buffer_size": 10}),
    "qrdqn": (QRDQN, "ServingDiscrete", "MlpPolicy", {"buffer_size": 10}),
    "sac": (SAC, "ServingContinuous", "MlpPolicy", {"buffer_size": 10}),
}
OPTIONS: dict[str, Any] = {"trace": "poisson:rate_rps=4", "episode_s": 40.0, "run_in_s": 5.0}


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    from throttllem_env.training.sb3.trainer import one_thread

    with one_thread():
        yield


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load_scenario("llama2-13b-a100")


def environments(env_id: str) -> VecNormalize:
    envs = gym.make_vec(f"ThrottLLeM/{env_id}-v0", num_envs=2, **OPTIONS)
    assert isinstance(envs, ServingVectorEnv)
    return VecNormalize(ServingVecEnv(envs))


def made(name: str) -> tuple[Any, VecNormalize]:
    """A small model whose actions differ from state to state, and its normaliser."""
    learner, env_id, policy, settings = LEARNERS[name]
    venv = environments(env_id)
    kwargs: dict[str, Any] = {"net_arch": [16]}
    if name == "recurrent-ppo":
        kwargs["lstm_hidden_size"] = 8
    if name == "qrdqn":
        kwargs["n_quantiles"] = 5
    model = learner(policy, venv, seed=3, device="cpu", policy_kwargs=kwargs, **settings)
    head = getattr(model.policy, "action_net", None)
    if head is not None:
        head.weight.data *= 300  # orthogonal initialisation makes all actions alike
    venv.seed(0)
    venv.action_space.seed(0)
    venv.reset()
    for _ in range(5):  # statistics to normalise by
        venv.step(np.array([venv.action_space.sample() for _ in range(2)]))
    return model, venv


def exported(name: str, model: Any, venv: VecNormalize, scenario: Scenario) -> PolicyFile:
    network, arrays = exported_network(model, venv)
    head, quantiles = head_of(model)
    options = venv.get_attr("options")[0]
    actions = describe_grid(
        scenario,
        options.actions,
        options.clock_levels,
        head,
        masked=name == "maskable-ppo",
        quantiles=quantiles,
    )
    description = {
        "network": network,
        "actions": actions,
        "observation_names": list(venv.get_attr("observation_names")[0]),
        "control": "period",
        "control_period_s": 1.0,
    }
    return PolicyFile("network", description, arrays)


def assigned(scenario: Scenario, env: ServingEnv) -> Assignment:
    return Assignment(scenario, env.slo, env.episode.forecaster.lengths, 0)


def what_the_environment_asks_for(env: ServingEnv, action: Any) -> Action:
    mhz, slot = env._setup.codec.decode(action)
    telemetry, sizes = env.telemetry, env.scenario.sizes
    possible = available_sizes(telemetry, env.scenario)[slot]
    return Action(mhz, sizes[slot] if possible else target_size(telemetry))


@pytest.mark.parametrize("name", LEARNERS)
def test_the_controller_does_what_the_model_predicts(name: str, scenario: Scenario) -> None:
    model, venv = made(name)
    controller = controller_of(exported(name, model, venv, scenario), name)
    env = gym.make(f"ThrottLLeM/{LEARNERS[name][1]}-v0", **OPTIONS).unwrapped
    assert isinstance(env, ServingEnv)
    observation, _ = env.reset(seed=1)
    controller.reset(assigned(scenario, env))
    memory, first, asked = None, np.array([True]), set()
    for _ in range(40):
        masks = {"action_masks": env.action_masks()} if name == "maskable-ppo" else {}
        seen = venv.normalize_obs(observation)
        if name == "recurrent-ppo":
            masks |= {"state": memory, "episode_start": first}
        action, memory = model.predict(seen, deterministic=True, **masks)
        first[:] = False
        decided = controller.act(observation, env.telemetry)
        assert decided == what_the_environment_asks_for(env, action)
        observation, *_ = env.step(action)
        asked.add(decided.frequency_mhz)
    assert len(asked) > 1, "a model that always does the same shows little"
    venv.close()


def small_policy(scenario: Scenario, **changes: Any) -> PolicyFile:
    """Always the action whose bias is largest: clock level 3, size slot 2."""
    names = ["clock", "queue", "slack_top"]
    bias = np.zeros(20, np.float32)
    bias[[3, 16 + 2]] = 1.0
    description = {
        "network": {"activations": ["none"], "normalise": None},
        "actions": describe_grid(scenario, "multi-discrete", 16, "scores", masked=False),
        "observation_names": names,
        "control": "period",
        "control_period_s": 2.0,
    }
    arrays = {"0.weight": np.zeros((20, len(names)), np.float32), "0.bias": bias}
    return PolicyFile("network", description | changes, arrays)


def first_step(policy: PolicyFile) -> tuple[Action, ServingEnv]:
    env = gym.make("ThrottLLeM/Serving-v0", **OPTIONS).unwrapped
    assert isinstance(env, ServingEnv)
    observation, _ = env.reset(seed=0)
    controller = controller_of(policy, "small")
    controller.reset(assigned(env.scenario, env))
    return controller.act(observation, env.telemetry), env


def test_a_policy_reads_the_features_that_it_names(scenario: Scenario) -> None:
    policy = small_policy(scenario)
    policy.arrays["0.weight"][5, 0] = 100.0  # the clock, which is not 0
    action, env = first_step(policy)
    assert action == Action(env.grid.clocks_mhz[5], 4)


def test_the_expected_clock_lies_between_likely_ones(scenario: Scenario) -> None:
    policy = small_policy(scenario)
    policy.arrays["0.bias"][:16] = -50.0
    policy.arrays["0.bias"][[3, 9]] = 0.0
    mode, env = first_step(policy)
    policy.description["actions"]["choice"] = "expected"
    expected, _ = first_step(policy)
    assert mode.frequency_mhz == env.grid.clocks_mhz[3]
    assert expected == Action(env.grid.clocks_mhz[6], mode.size)


def test_a_file_holds_the_policy_and_equal_policies_make_equal_files(
    scenario: Scenario, tmp_path: Path
) -> None:
    policy = small_policy(scenario)
    for name in ("a.zip", "b.zip"):
        policy.write(tmp_path / "made" / name)
    assert (tmp_path / "made" / "a.zip").read_bytes() == (tmp_path / "made" / "b.zip").read_bytes()
    found = read_policy(tmp_path / "made" / "a.zip")
    assert found.kind == "network"
    assert found.description["actions"] == policy.description["actions"]
    np.testing.assert_array_equal(found.arrays["0.bias"], policy.arrays["0.bias"])
    controller = make_controller(str(tmp_path / "made" / "a.zip"))
    assert (controller.control_points, controller.period_s) == ("period", 2.0)
    watched = make_controller(f"{tmp_path / 'made' / 'a.zip'}+watchdog")
    assert watched.needs_observation


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"observation_names": ["clock", "queue", "slack_tip"]},
            "feature 'slack_tip' is not there; did you mean 'slack_top'",
        ),
        ({"network": {"activations": ["none", "none"], "normalise": None}}, "1.weight"),
        ({"observation_names": ["clock"]}, "has 3 features, not 1"),
        ({"control": None, "actions": {}}, "'residual' is missing"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(scenario: Scenario, changes: Any, said: str) -> None:
    with pytest.raises(ControllerError, match=said):
        first_step(small_policy(scenario, **changes))


def test_another_number_of_clock_levels_is_refused_by_name(scenario: Scenario) -> None:
    policy = small_policy(scenario)
    policy.description["actions"]["clock_levels"] = "full"
    clocks = len(scenario.gpu_spec.clocks_mhz)
    with pytest.raises(ControllerError, match=rf"multi-discrete \[16, 4\], the scenario has \[{clocks}, 4\]"):
        first_step(policy)


def test_files_that_are_none_are_refused(tmp_path: Path, scenario: Scenario) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(ControllerError, match="is no zip"):
        make_controller(str(tmp_path / "text.zip"))
    with pytest.raises(ControllerError, match="no such file"):
        make_controller(str(tmp_path / "missing.zip"))
    with zipfile.ZipFile(tmp_path / "half.zip", "w") as archive:
        archive.writestr("policy.json", '{"format": 1, "kind": "network"}')
    with pytest.raises(ControllerError, match="damaged"):
        make_controller(str(tmp_path / "half.zip"))
    PolicyFile("oracle", {}, {}).write(tmp_path / "kind.zip")
    with pytest.raises(ControllerError, match="kind = 'oracle'"):
        make_controller(str(tmp_path / "kind.zip"))
    with pytest.raises(ControllerError, match="no parameter 'size'"):
        make_controller(f"{tmp_path / 'kind.zip'}:size=2")


def test_a_pickle_in_a_policy_is_not_loaded(tmp_path: Path, scenario: Scenario) -> None:
    path = tmp_path / "evil.zip"
    policy = small_policy(scenario)
    policy.write(path)
    with zipfile.ZipFile(path) as archive:
        description = archive.read("policy.json")
    with (tmp_path / "weights.npz").open("wb") as file:
        np.savez(file, allow_pickle=True, **{"0.weight": np.array([{}], object)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("policy.json", description)
        archive.write(tmp_path / "weights.npz", "weights.npz")
    with pytest.raises(ControllerError, match="damaged"):
        make_controller(str(path))


def test_a_foreign_model_is_loaded_only_where_it_is_trusted(tmp_path: Path, scenario: Scenario) -> None:
    model, venv = made("maskable-ppo")
    path, statistics = tmp_path / "model.zip", tmp_path / "statistics.pkl"
    model.save(path)
    venv.save(str(statistics))
    with pytest.raises(ControllerError, match="trust=yes"):
        make_controller(str(path))
    with pytest.raises(ControllerError, match="trust = 'maybe'"):
        make_controller(f"{path}:trust=maybe")
    trusted = make_controller(f"{path}:trust=yes,normalise={statistics}")
    ours = controller_of(exported("maskable-ppo", model, venv, scenario), "ours")
    env = gym.make("ThrottLLeM/Serving-v0", **OPTIONS).unwrapped
    assert isinstance(env, ServingEnv)
    observation, _ = env.reset(seed=2)
    for controller in (trusted, ours):
        controller.reset(assigned(scenario, env))
    for _ in range(20):
        action = ours.act(observation, env.telemetry)
        assert trusted.act(observation, env.telemetry) == action
        level = env.grid.clocks_mhz.index(action.frequency_mhz)
        observation, *_ = env.step(np.array([level, env.grid.sizes.index(action.size)]))


def test_a_foreign_model_of_another_environment_is_refused_by_name(tmp_path: Path) -> None:
    PPO("MlpPolicy", "CartPole-v1", device="cpu", policy_kwargs={"net_arch": [4]}).save(tmp_path / "pole.zip")
    with pytest.raises(ControllerError, match=r"actions are Discrete\(2\); environments have"):
        make_controller(f"{tmp_path / 'pole.zip'}:trust=yes")


def test_a_policy_runs_where_there_is_no_torch(tmp_path: Path, scenario: Scenario) -> None:
    small_policy(scenario).write(tmp_path / "model.zip")
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['stable_baselines3'] = None\n"
        "from throttllem_env.evaluation.compare import compare\n"
        "from throttllem_env.evaluation.settings import Settings\n"
        f"agents = ({str(tmp_path / 'model.zip')!r},)\n"
        "done = compare(Settings(agents=agents, trace='poisson:rate_rps=3', duration_s=20))\n"
        "assert not done.failures, done.failures\n"
        "print(int(done.runs[0].result.timeline.frequency_mhz[5]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) in scenario.gpu_spec.clocks_mhz[:25]
