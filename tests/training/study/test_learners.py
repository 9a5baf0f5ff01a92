"""The study of other learners: what is trained, what tuning keeps, and what the page says."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.training.algorithms import ALGORITHMS
from throttllem_env.training.report import Outcome, Reporter, Silent
from throttllem_env.training.settings import TrainSettings
from throttllem_env.training.study import tuning
from throttllem_env.training.study.contest import REFERENCE, ContestCase, Standing
from throttllem_env.training.study.learners import (
    LEARNERS,
    folder_of,
    learner_settings,
    read_cost_s,
    require_learner,
    train_learner,
)
from throttllem_env.training.study.learners_page import (
    RIVAL,
    LearnersStudy,
    Tried,
    all_tried,
    serve_tests,
    write_learners_page,
)
from throttllem_env.training.study.learning import Training
from throttllem_env.training.study.tuning import SHIPPED, hyperparameters_of, trials_of, tune
from throttllem_env.training.validation import Validation

SMALL: dict[str, Any] = {
    "trace": "poisson:rate_rps=4,duration_s=400",
    "randomisation": None,
    "options": {"episode_s": 10.0, "run_in_s": 3.0},
    "steps": 64,
    "checkpoint_steps": 64,
}


def validation(score: float, steps: int = 1) -> Validation:
    return Validation(steps, 1.0, 0.2, 0.995, True, 0.1, score)


def test_every_learner_of_the_extra_is_tried_and_every_option(tmp_path: Path) -> None:
    assert {learner.algo for learner in LEARNERS.values()} == {
        name for name, algorithm in ALGORITHMS.items() if algorithm.model
    }
    made = {name: learner_settings(one, tmp_path, 0, "s", tmp_path) for name, one in LEARNERS.items()}
    assert all(settings.randomisation for settings in made.values())
    assert made["residual"].residual
    assert made["lagrangian"].lagrangian
    assert made["imitation"].imitation
    with pytest.raises(ValueError, match="learner = 'resdual': unknown; did you mean 'residual'"):
        require_learner("resdual")


def test_what_a_training_costs_adds_up_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A clock that is looked at when a training begins and when it ends.
    monkeypatch.setattr(
        "throttllem_env.training.study.learners._spent_s", iter([1.0, 4.0, 10.0, 12.5]).__next__
    )
    small = {**SMALL, "hyperparameters": {"n_envs": 4, "n_steps": 16, "batch_size": 32, "n_epochs": 1}}
    settings = learner_settings(LEARNERS["ppo"], tmp_path / "ppo-0", 0, "llama2-13b-a100", tmp_path, **small)
    train_learner(settings, Silent())
    assert read_cost_s(settings.out) == 3.0
    train_learner(settings, Silent())
    assert read_cost_s(settings.out) == 5.5
    (found,) = all_tried(tmp_path)
    assert (found.learner, found.training.seed, found.training.steps) == ("ppo", 0, [64.0])


def values_to_settings(
    folder: Path, hyperparameters: Mapping[str, Any], options: Mapping[str, Any]
) -> TrainSettings:
    return TrainSettings(
        algo="ppo", steps=3, out=folder, hyperparameters=hyperparameters, options=dict(options)
    )


class Learners:
    """Stands for trainings: the dearer lateness is, the better; three looks each."""

    def __init__(self) -> None:
        self.trained: list[TrainSettings] = []

    def train(self, settings: TrainSettings, report: Reporter) -> Outcome:
        self.trained.append(settings)
        score = settings.options["violation_weight"] / 100 - 4.0
        for look in range(1, 4):
            report.validated(validation(score, look), validation(score, look))
        return Outcome(settings.out / "model.zip", 3, validation(score), False)


@pytest.fixture
def learners(monkeypatch: pytest.MonkeyPatch) -> Learners:
    found = Learners()
    monkeypatch.setattr(tuning, "train", found.train)
    return found


def test_tuning_begins_with_what_ships_and_finds_what_is_better(tmp_path: Path, learners: Learners) -> None:
    told: list[str] = []
    study = tune(values_to_settings, tmp_path, 10, told.append)
    assert dict(learners.trained[0].hyperparameters) == hyperparameters_of(SHIPPED)
    assert learners.trained[0].options == {"violation_weight": SHIPPED["violation_weight"]}
    assert study.best_params["violation_weight"] > SHIPPED["violation_weight"]
    found = trials_of(tmp_path)
    assert len(found) == len(told) == 10
    assert found[0].values == study.best_params
    assert [trial.score for trial in found] == sorted((trial.score for trial in found), reverse=True)


def test_trials_that_do_worse_than_most_are_given_up(tmp_path: Path, learners: Learners) -> None:
    tune(values_to_settings, tmp_path, 14, lambda _: None)
    given_up = [trial for trial in trials_of(tmp_path) if trial.given_up]
    assert given_up
    assert all(trial.looks < 3 and trial.number >= tuning.STARTUP_TRIALS for trial in given_up)


def test_a_study_that_was_cut_off_goes_on_and_draws_nothing_twice(tmp_path: Path, learners: Learners) -> None:
    def cut_off(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(values_to_settings, tmp_path, 6, cut_off)
    tune(values_to_settings, tmp_path, 6, lambda _: None)
    assert len(learners.trained) == len(trials_of(tmp_path)) == 6
    assert len({trial.values["learning_rate"] for trial in trials_of(tmp_path)}) == 6
    tune(values_to_settings, tmp_path, 6, lambda _: None)
    assert len(learners.trained) == 6, "what is done is not done again"


def test_a_tiny_study_trains(tmp_path: Path) -> None:
    def settings(folder: Path, hyperparameters: Any, options: Any) -> TrainSettings:
        few = {**hyperparameters, "n_envs": 2, "n_steps": 16, "batch_size": 32, "n_epochs": 1}
        told = {"hyperparameters": few, "options": {**SMALL["options"], **options}}
        return learner_settings(LEARNERS["ppo"], folder, 0, "llama2-13b-a100", tmp_path, **SMALL | told)

    study = tune(settings, tmp_path, 2, lambda _: None)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    assert (tmp_path / "trial-1" / "model.zip").is_file()
    assert -100 < study.best_value < 1


def test_nothing_tuned_is_nothing_to_tell_of(tmp_path: Path) -> None:
    assert trials_of(tmp_path) == []


def test_the_page_says_what_was_tried_and_who_wins(tmp_path: Path) -> None:
    case = ContestCase("conv 0.5", "conv.csv", 0.5)
    reference = Standing(REFERENCE, case, 1000, 3, 3, 1.0, None, 0.0, None, True)
    standings = {
        REFERENCE: reference,
        RIVAL: replace(reference, agent=RIVAL, energy=0.97),
        "a.zip": replace(reference, agent="a.zip", energy=0.9, late=2, points=0.1),
        "b.zip": replace(reference, agent="b.zip", energy=1.25, late=9, points=-0.6),
    }
    curve = Training("ppo", 1, [1e5, 2e5], [-1.5, -0.95], [0.3, 0.4], [0.99, 0.998])
    tried = [
        Tried("ppo", curve, 160.4, "a.zip"),
        Tried("dqn", replace(curve, recipe="dqn", seed=0), 90, "b.zip"),
    ]
    trial = tuning.Trial(0, SHIPPED, -1.2, 3, False)
    page = write_learners_page(LearnersStudy(tried, [standings], [trial]), tmp_path / "docs")
    text = page.read_text()
    assert "--learners ppo:2,dqn\n" in text
    assert (
        "| ppo | 1 | 200,000, cut off before 500,000 | 160 s | 1.50, 0.95 | 0.950 | 40.0 % | 99.80 % |"
        in text
    )
    assert "| ppo, seed 1 | **90.0 %, +0.10** | 1 of 1 |" in text
    assert "| dqn, seed 0 | 125.0 %, -0.60 | 0 of 1 |" in text
    assert "| throttllem-energy | 97.0 %, +0.00 | 0 of 1 |" in text
    assert "| 0 | 1.200 | 3 | 0.0005 | 0.99 | 0.003 | 128 | 256 | 64 | 30 |" in text
    short = write_learners_page(LearnersStudy(tried, []), tmp_path).read_text()
    assert "## Tuning" not in short
    assert "try_learners.py tune" not in short
    assert "## Test blocks\n\nNot run." in short


def test_without_trainings_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training is there"):
        serve_tests([], tmp_path, tmp_path, jobs=1, notify=lambda _: None)
    assert folder_of(tmp_path, "ppo", 3).name == "ppo-3"
