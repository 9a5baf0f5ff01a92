"""Every learner trains, ends in a controller, goes on where it stopped, and comes out the same again."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throttllem_env.agents.learned.policy_file import read_policy
from throttllem_env.controller import Assignment, make_controller
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.scenario import load_scenario
from throttllem_env.traces import Trace
from throttllem_env.training.algorithms import ALGORITHMS, train
from throttllem_env.training.extras import Curriculum, Imitation, Lagrangian, Residual
from throttllem_env.training.report import Silent
from throttllem_env.training.settings import TrainSettings
from throttllem_env.training.validation import HeldOut, Validation

MakeSettings = Callable[..., TrainSettings]
SB3 = [name for name, algorithm in ALGORITHMS.items() if algorithm.model]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def results(out: Path) -> tuple[str, str, dict[str, Any]]:
    """The learning curve, the evaluations and the last policy of a training."""
    last = read_policy(out / "last.zip")
    arrays = {name: array.tobytes() for name, array in last.arrays.items()}
    return (out / "curve.csv").read_text(), (out / "validation.csv").read_text(), arrays


class StopAfter(Silent):
    """Interrupts a training as Ctrl-C does, some steps after a checkpoint."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def advanced(self, steps: int) -> None:
        if steps > self.steps:
            raise KeyboardInterrupt


@pytest.mark.parametrize("algo", SB3)
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    algo: str, make_settings: MakeSettings, tmp_path: Path
) -> None:
    whole = train(make_settings(algo, out=tmp_path / "whole"), Silent())
    assert whole.steps >= 256
    settings = make_settings(algo, out=tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train(settings, StopAfter(150))
    assert train(settings, Silent()).best == whole.best
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    curve = rows(tmp_path / "whole" / "curve.csv")
    assert [int(row["steps"]) for row in curve][-1] == whole.steps
    assert all(float(row["power_w"]) > 100 for row in curve)
    # The model is a controller that fits the scenario.
    scenario = load_scenario("llama2-13b-a100")
    lengths = OracleLengths(Trace([], [], []), 100, 4096)
    make_controller(str(whole.model)).reset(Assignment(scenario, scenario.latency_slo(), lengths, 0))


def test_another_seed_gives_another_training(make_settings: MakeSettings, tmp_path: Path) -> None:
    for seed in (0, 1):
        train(make_settings(seed=seed, steps=128, out=tmp_path / str(seed)), Silent())
    assert results(tmp_path / "0") != results(tmp_path / "1")


def test_a_training_that_is_done_is_not_done_again(make_settings: MakeSettings) -> None:
    settings = make_settings(steps=128)
    first = train(settings, Silent())
    written = first.model.stat().st_mtime_ns
    assert train(settings, Silent()) == first
    assert first.model.stat().st_mtime_ns == written


def test_a_folder_of_another_training_is_not_overwritten(make_settings: MakeSettings) -> None:
    train(make_settings(steps=128), Silent())
    with pytest.raises(ValueError, match="holds a training with seed = 0, not 7"):
        train(make_settings(steps=128, seed=7), Silent())
    assert train(make_settings(steps=128, seed=7, fresh=True), Silent()).steps == 128


def test_a_training_stopped_while_a_checkpoint_is_replaced_goes_on_from_the_last(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(out=tmp_path / "out")
    whole = train(settings, Silent())
    (settings.out / "state").rename(settings.out / ".state.before")
    assert train(settings, Silent()) == whole


def test_other_hyperparameters_are_another_training(make_settings: MakeSettings, tmp_path: Path) -> None:
    import yaml

    from throttllem_env.training.hyperparams import load_hyperparams

    file = tmp_path / "mine.yaml"
    values = load_hyperparams("ppo", "ThrottLLeM/Serving-v0")
    settings = make_settings(steps=128, hyperparameter_file=file)
    for gamma in (0.9, 0.8):
        file.write_text(yaml.safe_dump({"ThrottLLeM/Serving-v0": {**values, "gamma": gamma}}))
        if gamma == 0.9:
            train(settings, Silent())
    with pytest.raises(ValueError, match=r"holds a training with gamma = 0\.9, not 0\.8"):
        train(settings, Silent())


def test_the_best_checkpoint_is_kept(make_settings: MakeSettings) -> None:
    settings = make_settings(steps=512)
    outcome = train(settings, Silent())
    found = rows(settings.out / "validation.csv")
    assert max(float(row["score"]) for row in found) == outcome.best.score
    best = settings.out / "checkpoints" / f"{outcome.best.steps:09d}.zip"
    assert best.read_bytes() == outcome.model.read_bytes()
    assert len(list(best.parent.iterdir())) == len(found) == 4


def test_it_stops_early_when_nothing_becomes_better(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = Validation(0, 1.0, 0.1, 1.0, True, 0.1, 0.1)
    monkeypatch.setattr("throttllem_env.training.validation.HeldOut.validate", lambda *_: same)
    outcome = train(make_settings(steps=1024, patience=2), Silent())
    assert outcome.stopped_early
    assert outcome.steps == 3 * 128


def test_settings_versions_and_command_lie_beside_the_model(make_settings: MakeSettings) -> None:
    settings = make_settings(steps=128)
    train(settings, Silent())
    told = json.loads((settings.out / "training.json").read_text(encoding="utf-8"))
    assert told["settings"]["algo"] == "ppo"
    assert told["hyperparameters"]["n_steps"] == 16
    assert told["hyperparameters"]["gamma"] == pytest.approx(0.99, abs=0.02)
    assert told["command"]
    assert {"python", "torch", "stable_baselines3", "throttllem-env"} <= told["versions"].keys()
    trained = read_policy(settings.out / "model.zip").description["trained"]
    assert (trained["algo"], trained["scenario"], trained["seed"]) == ("ppo", "llama2-13b-a100", 0)


def test_nothing_that_can_run_is_written(make_settings: MakeSettings) -> None:
    settings = make_settings("dqn", steps=128)
    train(settings, Silent())
    import torch

    torch.load(settings.out / "state" / "weights.pt", weights_only=True)
    for path in (settings.out / "state").glob("*.npz"):
        with np.load(path, allow_pickle=False) as stored:
            assert all(stored[name].size for name in stored.files)
    assert not list(settings.out.rglob("*.pkl"))


def test_the_price_of_lateness_rises_while_too_many_are_late(make_settings: MakeSettings) -> None:
    # Nobody can keep an SLO of 1.5 s.
    settings = make_settings(
        steps=512,
        slo_scale=0.05,
        lagrangian=Lagrangian(late_share=0.01, rate=0.2),
        options={"episode_s": 30.0, "run_in_s": 3.0},
    )
    train(settings, Silent())
    prices = [float(row["price"]) for row in rows(settings.out / "curve.csv")]
    assert prices[0] == 10.0
    assert prices == sorted(prices)
    assert prices[-1] > 10.0


def test_loads_follow_the_curriculum(make_settings: MakeSettings) -> None:
    settings = make_settings(steps=512, curriculum=Curriculum((0.3, 0.9)))
    train(settings, Silent())
    curve = rows(settings.out / "curve.csv")
    assert [float(row["load"]) for row in curve] == [0.3, 0.3, 0.9, 0.9]


def test_a_residual_agent_begins_as_its_reference(make_settings: MakeSettings) -> None:
    settings = make_settings(
        steps=64,
        checkpoint_steps=64,
        residual=Residual("throttllem"),
        hyperparameters={"n_envs": 4, "n_steps": 16, "batch_size": 64, "learning_rate": 1e-9},
    )
    outcome = train(settings, Silent())
    held_out = HeldOut(load_scenario(settings.scenario), settings.trace)
    reference = held_out.run(make_controller("throttllem"))
    agent = make_controller(str(outcome.model))
    # Asked once per second, the agent's reference decides a little otherwise than on its own.
    assert held_out.run(agent)["energy_j"] == pytest.approx(reference["energy_j"], rel=0.1)
    assert outcome.best.slo_attainment >= float(reference["slo_attainment"]) - 0.02


@pytest.mark.parametrize("algo", ["recurrent-ppo", "sac", "dqn"])
def test_every_kind_of_learner_imitates(algo: str, make_settings: MakeSettings) -> None:
    teacher = Imitation("static-frequency:mhz=1020", steps=200, epochs=1)
    assert train(make_settings(algo, steps=64, imitation=teacher), Silent()).steps >= 64


def test_vector_rewards_are_weighted(make_settings: MakeSettings) -> None:
    settings = make_settings(env_id="ThrottLLeM/MOServing-v0", reward_weights=(1.0, 0.0), steps=128)
    train(settings, Silent())
    (row,) = rows(settings.out / "curve.csv")
    scenario = load_scenario(settings.scenario)
    # Only energy counts: reward per second = - power / reference power.
    assert float(row["reward_per_s"]) == pytest.approx(
        -float(row["power_w"]) / scenario.reference_power_w, rel=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algo": "dqn", "env_id": "ThrottLLeM/Serving-v0"}, "none for 'ThrottLLeM/Serving-v0'"),
        ({"algo": "dqn", "residual": Residual()}, "residual: algo = 'dqn'"),
        ({"residual": Residual(), "imitation": Imitation()}, "begins with its reference's choices anyway"),
        ({"reward_weights": (1.0, 1.0)}, "weights go with ThrottLLeM/MOServing-v0"),
        ({"trace": "poisson:rate_rps=4,duration_s=200"}, "no request in its validation blocks"),
        ({"options": {"episode_z": 5}}, "option 'episode_z': unknown; did you mean 'episode_s'"),
        ({"hyperparameters": {"n_step": 16}}, "unexpected keyword argument 'n_step'"),
        ({"hyperparameters": {"learning_rate": "lin_much"}}, "learning_rate = 'lin_much'"),
    ],
)
def test_wrong_input_is_refused_by_name(
    changes: dict[str, Any], said: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(changes.pop("algo", "ppo"), **changes)
    with pytest.raises(ValueError, match=said):
        train(settings, Silent())


def test_an_unknown_learner_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="algo = 'ppoo': unknown; did you mean 'ppo'"):
        TrainSettings(algo="ppoo", steps=1, out=Path("out"))


def test_a_tiny_agent_learns_what_a_random_one_does_not(make_settings: MakeSettings) -> None:
    """At a low load: to save energy and be in time, in 6,144 steps."""
    settings = make_settings(
        steps=6144,
        checkpoint_steps=2048,
        load=0.3,
        options={"episode_s": 60.0, "run_in_s": 5.0, "observation": "compact"},
        hyperparameters={
            "n_envs": 8,
            "n_steps": 32,
            "batch_size": 64,
            "n_epochs": 6,
            "learning_rate": 3e-3,
            "policy_kwargs": {"net_arch": [16]},
        },
    )
    learned = train(settings, Silent()).best
    held_out = HeldOut(load_scenario(settings.scenario), settings.trace, load=0.3)
    random = held_out.validate(make_controller("random"), 0)
    assert learned.slo_attained
    assert not random.slo_attained
    assert learned.saving > 0.05
    curve = [float(row["reward_per_s"]) for row in rows(settings.out / "curve.csv")]
    assert curve[-1] > curve[0]
