"""Hyperparameters are in rl-zoo's layout, and its way of making a training out of them works on our ids.

rl-zoo itself (rl_zoo3 2.9) cannot be installed beside our constraints: it needs python-dateutil below 3. What
its `train.py` does with a file of hyperparameters and an id is done here by hand.
"""

from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from throttllem_env.envs import ENV_IDS
from throttllem_env.training.algorithms import ALGORITHMS, resolved
from throttllem_env.training.hyperparams import FOLDER, for_learner, load_hyperparams, replaced

LEARNERS = {name: algorithm for name, algorithm in ALGORITHMS.items() if algorithm.model}


@pytest.mark.parametrize("algo", LEARNERS)
def test_every_learner_has_hyperparameters_for_its_environment(algo: str) -> None:
    values = load_hyperparams(algo, ALGORITHMS[algo].env_id)
    assert values["n_envs"] >= 1
    assert values["policy"].startswith("Mlp")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_files_name_learners_and_ids_that_exist(path: Path) -> None:
    import yaml

    assert path.stem in ALGORITHMS
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) <= set(ENV_IDS)


@pytest.mark.parametrize("algo", LEARNERS)
def test_a_training_as_rl_zoo_makes_it(algo: str) -> None:
    env_id = ALGORITHMS[algo].env_id
    values: dict[str, Any] = load_hyperparams(algo, env_id)
    # What rl-zoo takes out before it hands the rest to the learner.
    for name in ("n_envs", "n_timesteps", "normalize"):
        values.pop(name)
    if isinstance(values["learning_rate"], str):
        _, first = values["learning_rate"].split("_")
        values["learning_rate"] = lambda remaining: remaining * float(first)
    small = {"n_steps": 8, "batch_size": 16, "learning_starts": 8, "buffer_size": 100}
    values |= {name: value for name, value in small.items() if name in values}
    envs = make_vec_env(
        env_id,
        n_envs=2,
        seed=0,
        env_kwargs={"trace": "poisson:rate_rps=4", "episode_s": 5.0, "run_in_s": 2.0},
    )
    learner: Any = resolved(LEARNERS[algo].model)
    model = learner(env=VecNormalize(envs, gamma=values["gamma"]), seed=0, device="cpu", **values)
    model.learn(32)
    assert model.num_timesteps >= 32
    envs.close()


def test_schedules_fall_to_nothing() -> None:
    made = for_learner({"learning_rate": "lin_4e-4", "n_envs": 3, "gamma": 0.9})
    assert made.keys() == {"learning_rate", "gamma"}
    assert [made["learning_rate"](remaining) for remaining in (1.0, 0.5, 0.0)] == [4e-4, 2e-4, 0.0]


def test_replacing_one_argument_of_the_net_keeps_the_others() -> None:
    values = replaced(
        {"gamma": 0.9, "policy_kwargs": {"net_arch": [64], "x": 1}}, {"policy_kwargs": {"x": 2}}
    )
    assert values == {"gamma": 0.9, "policy_kwargs": {"net_arch": [64], "x": 2}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "must map environment ids"),
        ("a: [1\n", "hyperparameters"),
        (
            "ThrottLLeM/Serving-v1: {}\n",
            "none for 'ThrottLLeM/Serving-v0'; did you mean 'ThrottLLeM/Serving-v1'",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        load_hyperparams("ppo", "ThrottLLeM/Serving-v0", tmp_path / "mine.yaml")
