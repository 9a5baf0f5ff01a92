"""Try the learners of single decisions (PPO and its kin, DQN, SAC), and hold them to the reference.

    python scripts/try_learners.py train    --traces DIR [--learners ppo:2,residual,...]
    python scripts/try_learners.py tune     --traces DIR [--trials 16] [--trial-steps 150000]
    python scripts/try_learners.py evaluate --traces DIR [--jobs 2]

`train` trains each for its seeds (`ppo:2`: seeds 0 and 1); `tune` lets Optuna choose hyperparameters of PPO
on held-out requests (extra `tune`); `evaluate` serves test blocks and writes docs/learners.md. What is there
already is not made again, and what was cut off goes on.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from throttllem_env.training.settings import TrainSettings
from throttllem_env.training.study.command_line import Lines, named_seeds
from throttllem_env.training.study.contest import Standing
from throttllem_env.training.study.learners import (
    LEARNERS,
    OPTIONS,
    folder_of,
    learner_settings,
    require_learner,
    train_learner,
)
from throttllem_env.training.study.learners_page import (
    LearnersStudy,
    all_tried,
    serve_tests,
    write_learners_page,
)
from throttllem_env.training.study.tuning import trials_of, tune

TUNING, TRIAL_LOOKS = "tuning", 3
"""Folder of the trials, and how often each is held to held-out requests."""


def learners(text: str) -> list[tuple[str, int]]:
    """Parse `name:seeds,name`."""
    return named_seeds(text, require_learner)


def train_all(arguments: argparse.Namespace) -> None:
    """Train every learner for every seed."""
    for name, seeds in arguments.learners:
        for seed in range(seeds):
            folder = folder_of(arguments.out, name, seed)
            settings = learner_settings(
                require_learner(name), folder, seed, arguments.scenario, arguments.traces
            )
            train_learner(settings, Lines(f"{name}, seed {seed}"))


def tune_all(arguments: argparse.Namespace) -> None:
    """Let Optuna choose hyperparameters of PPO."""

    def settings(
        folder: Path, hyperparameters: Mapping[str, Any], options: Mapping[str, Any]
    ) -> TrainSettings:
        steps = arguments.trial_steps
        return learner_settings(
            replace(LEARNERS["ppo"], steps=steps, hyperparameters=hyperparameters),
            folder,
            arguments.tune_seed,
            arguments.scenario,
            arguments.traces,
            options={**OPTIONS, **options},
            checkpoint_steps=-(-steps // TRIAL_LOOKS),
        )

    study = tune(settings, arguments.out / TUNING, arguments.trials, lambda text: print(text, flush=True))
    print(f"best: {study.best_params}, worth {-study.best_value:.4f}")


def evaluate_all(arguments: argparse.Namespace) -> None:
    """Serve test blocks under all that is trained, and write the page."""
    tried = all_tried(arguments.out)
    test: list[dict[str, Standing]] = []
    if not arguments.no_tests:
        test = serve_tests(
            tried,
            arguments.traces,
            arguments.out,
            jobs=arguments.jobs,
            notify=lambda text: print(text, flush=True),
        )
    study = LearnersStudy(tried, test, trials_of(arguments.out / TUNING))
    print(write_learners_page(study, arguments.docs))


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "tune", "evaluate"))
    parser.add_argument("--traces", type=Path, required=True, help="folder with the Azure traces of 2023")
    parser.add_argument("--scenario", default="llama2-13b-a100", help="default: %(default)s")
    parser.add_argument("--learners", type=learners, default=[(name, 1) for name in LEARNERS])
    parser.add_argument("--trials", type=int, default=16, help="tune: how many in all; default: %(default)s")
    parser.add_argument("--trial-steps", type=int, default=150_000, help="tune; default: %(default)s")
    parser.add_argument(
        "--tune-seed", type=int, default=100, help="tune: seed of trials; default: %(default)s"
    )
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="evaluate: where the page goes")
    parser.add_argument("--no-tests", action="store_true", help="evaluate: only what trainings say")
    parser.add_argument("--jobs", type=int, default=2, help="evaluate: runs at once; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/learners"), help="default: %(default)s")
    arguments = parser.parse_args()
    {"train": train_all, "tune": tune_all, "evaluate": evaluate_all}[arguments.what](arguments)


if __name__ == "__main__":
    main()
