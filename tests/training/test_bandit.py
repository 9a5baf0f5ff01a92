"""LinUCB trains like other learners: it keeps what it learned, goes on, and begins runs with it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throttllem_env.agents.learned.bandit_file import bandit_controller
from throttllem_env.agents.learned.policy_file import read_policy
from throttllem_env.agents.linucb import LinUcb
from throttllem_env.controller import Assignment, ControllerError, make_controller
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.scenario import load_scenario
from throttllem_env.traces import Trace
from throttllem_env.training.algorithms import train
from throttllem_env.training.extras import Randomisation, Residual
from throttllem_env.training.report import Silent
from throttllem_env.training.settings import TrainSettings

MakeSettings = Callable[..., TrainSettings]
SCENARIO = load_scenario("llama2-13b-a100")
ASSIGNMENT = Assignment(
    SCENARIO, SCENARIO.latency_slo(), OracleLengths(Trace([], [], []), 100, SCENARIO.engine.max_model_len), 0
)


class StopAt(Silent):
    """Interrupts a training as Ctrl-C does, after a checkpoint."""

    def advanced(self, steps: int) -> None:
        if steps > 90:
            raise KeyboardInterrupt


@pytest.fixture
def settings(make_settings: MakeSettings) -> TrainSettings:
    return make_settings(
        "linucb", steps=128, checkpoint_steps=64, options={"episode_s": 40.0, "run_in_s": 3.0}
    )


def trained(path: Path) -> LinUcb:
    agent = make_controller(str(path))
    assert isinstance(agent, LinUcb)
    agent.reset(ASSIGNMENT)
    return agent


def test_an_interrupted_bandit_goes_on_as_if_it_had_not_been(settings: TrainSettings, tmp_path: Path) -> None:
    whole = train(replace(settings, out=tmp_path / "whole"), Silent())
    parts = replace(settings, out=tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train(parts, StopAt())
    assert train(parts, Silent()).best == whole.best
    for name in ("last.zip", "curve.csv", "validation.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    assert whole.steps == 128


def test_what_was_learned_is_where_runs_begin_and_runs_do_not_change_it(settings: TrainSettings) -> None:
    train(settings, Silent())
    path = settings.out / "last.zip"
    agent = trained(path)
    # 40 windows of 2 s at least; most of them had tokens.
    assert agent.bandit.trials.sum() > 20
    assert agent.scale
    before = agent.bandit.rewards.copy()
    agent.bandit.learn(3, np.ones(8), -5.0)
    agent.reset(ASSIGNMENT)
    np.testing.assert_array_equal(agent.bandit.rewards, before)
    fresh = make_controller("linucb")
    assert isinstance(fresh, LinUcb)
    fresh.reset(ASSIGNMENT)
    assert fresh.bandit.trials.sum() == 0


def test_settings_of_other_learners_are_refused(settings: TrainSettings) -> None:
    for name, value in (("residual", Residual()), ("randomisation", Randomisation())):
        with pytest.raises(ValueError, match=f"{name} = .*: linucb does not take it"):
            train(replace(settings, **{name: value}), Silent())
    with pytest.raises(ValueError, match="unexpected keyword argument 'alfa'"):
        train(replace(settings, hyperparameters={"alfa": 1}), Silent())
    with pytest.raises(ValueError, match="slo = 'maybe'"):
        train(replace(settings, hyperparameters={"slo": "maybe"}), Silent())
    with pytest.raises(ValueError, match="none for 'ThrottLLeM/ServingDiscrete-v0'"):
        train(replace(settings, env_id="ThrottLLeM/ServingDiscrete-v0"), Silent())


def test_files_that_are_damaged_are_refused(settings: TrainSettings) -> None:
    train(replace(settings, steps=64), Silent())
    policy = read_policy(settings.out / "model.zip")
    for changes, said in (
        ({"arrays": {**policy.arrays, "rewards": np.zeros(3)}}, r"rewards has shape \(3,\), not \(16,\)"),
        ({"arrays": {}}, "damaged: 'alive'"),
        (
            {"description": {**policy.description, "arguments": {"arm": 3}}},
            "unexpected keyword argument 'arm'",
        ),
    ):
        broken: Any = replace(policy, **changes)  # type: ignore[arg-type]
        with pytest.raises(ControllerError, match=said):
            bandit_controller(broken, "mine")
    few = replace(policy, description={**policy.description, "arguments": {"arms": 4}})
    with pytest.raises(ControllerError, match="it knows 16 clocks; llama2-13b-a100 has 4 of 4"):
        bandit_controller(few, "mine").reset(ASSIGNMENT)
