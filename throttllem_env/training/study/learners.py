"""Learners of single decisions: what each of docs/learners.md is trained with."""

import json
import time
from pathlib import Path
from typing import Any, Final

from throttllem_env.suggest import nearest
from throttllem_env.training.algorithms import train
from throttllem_env.training.extras import Imitation, Lagrangian, Randomisation, Residual
from throttllem_env.training.report import Reporter
from throttllem_env.training.settings import TrainSettings
from throttllem_env.training.study.recipes import CODE, CONV, StudyRecipe

LOOKS: Final = 3
"""How often a training is held to held-out requests."""

OPTIONS: Final = {"episode_s": 600.0, "run_in_s": 0.0, "violation_weight": 30.0}
"""Of all environments: episodes as long as a search's, from an empty engine; lateness dearer than usual."""

COST: Final = "cost.json"


LEARNERS: Final[dict[str, StudyRecipe]] = {
    "ppo": StudyRecipe("ppo", 500_000, "PPO as `throttllem train` has it"),
    "maskable-ppo": StudyRecipe("maskable-ppo", 200_000, "the same, without sizes that cannot be had now"),
    "recurrent-ppo": StudyRecipe("recurrent-ppo", 80_000, "memory: an LSTM of 64 before the layers"),
    "dqn": StudyRecipe("dqn", 150_000, "values of 64 joint actions, learned from a replay buffer"),
    "qrdqn": StudyRecipe("qrdqn", 100_000, "25 quantiles of those values"),
    "sac": StudyRecipe("sac", 40_000, "clock and size as two fractions"),
    "residual": StudyRecipe(
        "ppo",
        80_000,
        "PPO that moves `throttllem`'s choice: at most 12 % of the top clock, or the next larger size",
        extras={"residual": Residual()},
    ),
    "lagrangian": StudyRecipe(
        "ppo",
        300_000,
        "PPO with a price of lateness that moves until 2 % of requests are late, the reference's share",
        extras={"lagrangian": Lagrangian(late_share=0.02)},
    ),
    "imitation": StudyRecipe(
        "ppo",
        300_000,
        "PPO that begins with 20,000 steps of `throttllem`, cloned",
        extras={"imitation": Imitation()},
    ),
}
"""By name."""


def require_learner(name: str) -> StudyRecipe:
    """The learner of a name.

    Raises:
        ValueError: There is none; the message names the nearest.
    """
    if name not in LEARNERS:
        raise ValueError(f"learner = {name!r}: unknown; {nearest(name, LEARNERS)}")
    return LEARNERS[name]


def folder_of(out: Path, name: str, seed: int) -> Path:
    """Where a training lies; those of all learners and seeds lie side by side.

    Args:
        out: Folder of the study.
        name: The learner.
        seed: The training's seed.
    """
    return out / f"{name}-{seed}"


def learner_settings(
    learner: StudyRecipe, folder: Path, seed: int, scenario: str, traces: Path, **changes: Any
) -> TrainSettings:
    """What to train: the train blocks of both recorded hours and drawn loads, all of it randomised.

    Args:
        learner: How.
        folder: The training's folder.
        seed: Seeds everything.
        scenario: What is served on what.
        traces: Folder of the recorded traces.
        **changes: Fields of `TrainSettings` that replace the study's.
    """
    values: dict[str, Any] = {
        "algo": learner.algo,
        "steps": learner.steps,
        "out": folder,
        "scenario": scenario,
        "trace": "bursty",
        "seed": seed,
        "options": OPTIONS,
        "hyperparameters": dict(learner.hyperparameters),
        "checkpoint_steps": -(-learner.steps // LOOKS),
        "randomisation": Randomisation(str(traces / CONV), str(traces / CODE)),
    }
    return TrainSettings(**values | dict(learner.extras) | changes)


def train_learner(settings: TrainSettings, report: Reporter) -> None:
    """Train, and add up what it costs; a training that was cut off goes on, and its cost too.

    Args:
        settings: What is trained.
        report: Told how far it is.
    """
    started_s, path = _spent_s(), settings.out / COST
    before_s = read_cost_s(settings.out)
    try:
        train(settings, report)
    finally:
        if settings.out.is_dir():
            spent_s = before_s + _spent_s() - started_s
            path.write_text(json.dumps({"cpu_s": round(spent_s, 1)}) + "\n", encoding="utf-8")


def _spent_s() -> float:
    return time.process_time()


def read_cost_s(folder: Path) -> float:
    """Processor time of a training, seconds; 0 where none is known."""
    path = folder / COST
    return float(json.loads(path.read_text(encoding="utf-8"))["cpu_s"]) if path.is_file() else 0.0
