"""A tiny search saves energy, leaves its record, and goes on where it was cut off."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.agents.supervising.policy_file import PolicyFile
from throttllem_env.training.algorithms import train
from throttllem_env.training.report import Outcome, Silent
from throttllem_env.training.search.recipe import Recipe
from throttllem_env.training.settings import TrainSettings

TINY = {
    "population": 6,
    "cases": 9,
    "pool": 9,
    "episode_s": 60.0,
    "randomised": False,
    "held_out_loads": [0.6],
    "held_out_predictors": ["learned"],
    "held_out_s": 240.0,
}
STEPS = 6 * 9 * 60


def trained(out: Path, generations: int, **changes: Any) -> Outcome:
    values: dict[str, Any] = {"algo": "cma-es", "trace": "bursty", "seed": 3}
    values |= {"checkpoint_steps": 2 * STEPS, "hyperparameters": TINY, **changes}
    return train(TrainSettings(steps=generations * STEPS, out=out, **values), Silent())


class InterruptedTrainingError(Exception):
    """What stops a training in the middle."""


class Stop(Silent):
    """Interrupts after some steps."""

    def advanced(self, steps: int) -> None:
        if steps >= 3 * STEPS:
            raise InterruptedTrainingError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    trained(out, 5)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_tiny_search_finds_a_policy_that_spends_less_than_where_it_began(whole: Path) -> None:
    curve = rows(whole / "curve.csv")
    assert len(curve) == 5
    assert min(float(row["score_best"]) for row in curve[1:]) < float(curve[0]["score_mean"])
    scores = [float(row["score"]) for row in rows(whole / "validation.csv")]
    assert max(scores) > -1.1


def test_the_folder_says_where_the_policy_comes_from(whole: Path) -> None:
    policy = PolicyFile.load(whole / "policy.json")
    assert policy.scenario == "llama2-13b-a100"
    assert policy.card["settings"]["seed"] == 3
    description = json.loads((whole / "training.json").read_text())
    assert description["hyperparameters"]["population"] == 6
    assert "numpy" in description["versions"]
    cells = {row["cell"] for row in rows(whole / "held-out.csv")}
    assert cells == {f"{family} 0.6 learned" for family in ("conv", "code", "bursty")}
    assert list((whole / "tb").rglob("events.out*"))


def test_an_interrupted_training_ends_as_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"algo": "cma-es", "trace": "bursty", "seed": 3, "hyperparameters": TINY}
    settings |= {"checkpoint_steps": 2 * STEPS, "steps": 5 * STEPS, "out": tmp_path}
    with pytest.raises(InterruptedTrainingError):
        train(TrainSettings(**settings), Stop())
    # As if it had been cut off while it wrote.
    with (tmp_path / "state" / "scores.jsonl").open("a") as file:
        file.write("[0.1, 0.")
    train(TrainSettings(**settings), Silent())
    for name in ("curve.csv", "validation.csv", "held-out.csv"):
        assert (tmp_path / name).read_text() == (whole / name).read_text()
    parameters = [PolicyFile.load(folder / "policy.json").parameters for folder in (whole, tmp_path)]
    assert (parameters[0] == parameters[1]).all()


def test_a_finished_training_is_not_run_again(whole: Path) -> None:
    before = (whole / "curve.csv").read_text()
    assert trained(whole, 5).steps == 5 * STEPS
    assert (whole / "curve.csv").read_text() == before


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"populaton": 8}, "'populaton': unknown; .*population"),
        ({"population": 8.5}, "population = 8.5: expected int"),
        ({"cases": True}, "cases = True: expected int"),
        ({"held_out_loads": 0.5}, "held_out_loads = 0.5: expected tuple"),
    ],
)
def test_wrong_hyperparameters_are_named(hyperparameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.of(hyperparameters)


def test_what_a_search_does_not_take_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="option 'control': cma-es draws its own episodes"):
        trained(tmp_path, 1, options={"control": "events"})
    with pytest.raises(ValueError, match=r"reward_weights = \(1.0, 2.0\): cma-es does not take it"):
        trained(tmp_path, 1, reward_weights=(1.0, 2.0))
