"""Trainings of seconds: few steps, tiny nets, short episodes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.training.settings import TrainSettings

MakeSettings = Callable[..., TrainSettings]

SMALL: dict[str, Any] = {"n_envs": 4, "policy_kwargs": {"net_arch": [8]}}
ON_POLICY: dict[str, Any] = {**SMALL, "n_steps": 16, "batch_size": 32, "n_epochs": 1}
OFF_POLICY: dict[str, Any] = {**SMALL, "buffer_size": 300, "learning_starts": 32, "batch_size": 16}

HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "ppo": ON_POLICY,
    "maskable-ppo": ON_POLICY,
    "recurrent-ppo": {**ON_POLICY, "policy_kwargs": {"net_arch": [8], "lstm_hidden_size": 8}},
    "dqn": OFF_POLICY,
    "qrdqn": {**OFF_POLICY, "policy_kwargs": {"net_arch": [8], "n_quantiles": 5}},
    "sac": OFF_POLICY,
    "linucb": {},
}


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """Nets are tiny: threads would only wait for each other, most of all beside other tests."""
    from throttllem_env.training.sb3.trainer import one_thread

    with one_thread():
        yield


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    """Settings of a training of a second or two."""

    def make(algo: str = "ppo", **changes: Any) -> TrainSettings:
        values: dict[str, Any] = {
            "algo": algo,
            "steps": 256,
            "checkpoint_steps": 128,
            "out": tmp_path / "out",
            "trace": "poisson:rate_rps=4,duration_s=400",
            "options": {"episode_s": 10.0, "run_in_s": 3.0},
            "hyperparameters": HYPERPARAMETERS[algo],
        }
        return TrainSettings(**values | changes)

    return make
